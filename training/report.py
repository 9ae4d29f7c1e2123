"""The HTML report of an evaluation: tables, and the pictures of the paper (seed, figures 3, 6 and 7)."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from model_store.loaded import LoadedVersion
from nca.gate import Policy
from training.console import DETECTION_HEAD, detection_rows, quality_rows
from training.evaluate import Judged
from training.foreign import FOREIGN_HEAD, ForeignRow
from training.measures import MEASURES, Figure
from training.pictures import draw_quadrants

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1c1e21; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; } h2 { margin-top: 2.5rem; } .faint { color: #666; }
"""


def write_report(
    folder: Path,
    *,
    version: LoadedVersion,
    policy: Policy,
    judged: Sequence[Judged],
    detection: Mapping[str, Mapping[str, Mapping[str, Any]]],
    quality: Mapping[str, Mapping[str, Mapping[str, Figure]]],
    foreign: Sequence[ForeignRow],
    scans: bytes,
) -> Path:
    """Write ``folder``/report.html, which needs no other file; ``scans`` is the picture of `draw_scans`."""
    manifest = version.manifest
    parts = [
        f"<h1>{escape(manifest.name)} {escape(manifest.version)}</h1>",
        f"<p>{escape(manifest.intended_use)}</p>",
        f"<p class=faint>{len({one.outcome.scan for one in judged})} scans that neither the weights nor the "
        f"calibration saw, each clean and degraded; {manifest.calibration.members} members. A mask has failed below "
        f"Dice {policy.min_dice:g}; rule <code>{policy.rule}</code>, at most {policy.alpha:.0%} failures among the "
        "accepted.</p>",
    ]
    for title, structures in detection.items():
        parts.append(f"<h2>Verdicts, {escape(title)}</h2>")
        for name, figures in structures.items():
            parts += [f"<h3>{escape(name)}</h3>", _table(DETECTION_HEAD, detection_rows(figures))]
    parts.append("<h2>Quality scores</h2><p class=faint>With 95 % intervals from 300 resamples of the scans.</p>")
    for name, scores in quality.items():
        parts += [f"<h3>{escape(name)}</h3>", _table(("score", *MEASURES), quality_rows(scores))]
    parts.append("<h2>Predicted against true Dice</h2>")
    for index, name in enumerate(manifest.structures):
        chosen = [one for one in judged if one.outcome.structure == index]
        parts += [f"<h3>{escape(name)}</h3>", _picture(draw_quadrants(chosen, version.gates[index], policy))]
    if foreign:
        parts += ["<h2>Scans of other kinds</h2>", _table(FOREIGN_HEAD, [one.cells for one in foreign])]
    parts += ["<h2>Scans, masks and their uncertainty</h2>", _picture(scans)]
    path = folder / "report.html"
    title = f"ncagate: {manifest.name} {manifest.version}"
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>"
    path.write_text(head + "\n".join(parts) + "</html>\n", encoding="utf-8")
    return path


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    top = "".join(f"<th>{escape(one)}</th>" for one in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(one))}</td>" for one in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _picture(png: bytes) -> str:
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(png).decode()}">'

"""`ncagate routes test`: what the routing table says of a series, without sending it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from imaging.dicom_identity import Identity, read_identity
from imaging.errors import ImagingError, NoDicomImagesError
from model_store.registry import open_registry
from ncagate.settings import Settings
from pacs.config import load_pacs
from pacs.routing import facts_of, find_route, try_routes


def try_series(series: Path, *, sender: str, settings: Settings) -> dict[str, Any]:
    """Every route, whether it fits and which of its patterns do not; which is ``taken``, and what for (``request``).

    Raises:
        InvalidPacsConfigError: of the file.
        NoDicomImagesError: there is no DICOM object in the folder, or no such folder or file.
        ModelStoreError, UnsuitableWishError: the route that is taken asks for what there is not.
    """
    config = load_pacs(settings.pacs)
    identity = _first(series)
    taken = find_route(config.route, identity, sender=sender)
    routes = [
        {
            "name": trial.route.name,
            "model": trial.route.model,
            "taken": trial.route is taken,
            "misses": {name: getattr(trial.route, name) for name in trial.misses},
        }
        for trial in try_routes(config.route, identity, sender=sender)
    ]
    request = None
    if taken is not None:
        wanted = taken.wish().request(open_registry(settings), settings, destinations=taken.destinations)
        request = wanted.model_dump(mode="json")
    return {
        "series": dict(facts_of(identity, sender=sender)),
        "routes": routes,
        "taken": None if taken is None else taken.name,
        "request": request,
    }


def print_trial(trial: Mapping[str, Any], console: Console) -> None:
    """What `try_series` found, for a person."""
    table = Table("route", "model", "fits", "does not match", box=None)
    for one in trial["routes"]:
        fits = "no image" if trial["taken"] is None else "an earlier one does"
        fits = "taken" if one["taken"] else "no" if one["misses"] else fits
        told = ", ".join(f"{name} {pattern!r}" for name, pattern in one["misses"].items())
        cells = map(Text, (one["name"], one["model"], fits, told))  # patterns have brackets, as markup has
        table.add_row(*cells, style="bold" if one["taken"] else "")
    facts = ", ".join(f"{name} {value!r}" for name, value in trial["series"].items())
    console.print(facts, markup=False, highlight=False)
    console.print(table)
    request = trial["request"]
    if request is None:
        console.print("no route: the series would not be segmented")
        return
    where = ", ".join(request["destinations"]) or "no archive"
    console.print(
        f"{request['model']} {request['version']}, accepted from Dice {request['min_dice']:g}; goes to {where}"
    )


def _first(series: Path) -> Identity:
    if not series.exists():
        raise NoDicomImagesError(f"{series} does not exist")
    files = sorted(one for one in series.rglob("*") if one.is_file()) if series.is_dir() else [series]
    for file in files:
        try:
            return read_identity(file)
        except ImagingError:
            continue
    raise NoDicomImagesError("there is no DICOM object")

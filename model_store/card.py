"""The model card of a version (Mitchell et al., *Model Cards for Model Reporting*, 2019), written from its manifest."""

from __future__ import annotations

from typing import Any

from model_store.manifest import Manifest

CARD_FILE = "MODEL_CARD.md"


def model_card(manifest: Manifest) -> str:
    """Markdown; every figure is the manifest's."""
    parts = (_head, _data, _figures, _limits)
    return "\n\n".join(part(manifest) for part in parts) + "\n"


def _head(manifest: Manifest) -> str:
    segments = ", ".join(
        f"{one.name} (label {one.label}, {one.code.scheme} {one.code.value})" for one in manifest.segments
    )
    levels = ", ".join(
        f"kernel {one.kernel} x {one.steps} steps at scale {'x'.join(map(str, one.scale))}"
        for one in manifest.architecture.levels
    )
    return (
        f"# {manifest.name} {manifest.version}\n\n{manifest.intended_use}\n\n"
        f"- Structures: {segments}\n"
        f"- Network: M3D-NCA, {manifest.parameters:,} parameters; {levels}\n"
        f"- Made {manifest.created:%Y-%m-%d} by ncagate {manifest.code_version}\n"
        f"- Licence: {manifest.licence}. {manifest.attribution}"
    )


def _data(manifest: Manifest) -> str:
    record, contract = manifest.training, manifest.contract
    extents = " x ".join(f"{low:g}-{high:g}" for low, high in contract.extent_mm)
    held_out = len(manifest.validation_scans)
    return (
        "## Data\n\n"
        f"Trained on {len(record.training_scans)} scans ({record.iterations:,} iterations, {record.minutes:g} min); "
        f"{held_out} scans were seen neither by the weights nor by their calibration. Seed {record.seed}; the manifest "
        "lists every scan.\n\n"
        f"Made for {', '.join(contract.modalities)} of {extents} mm. Calibrated on {manifest.calibration.data}: "
        f"{len(manifest.calibration.scans)} scans, {manifest.calibration.outcomes} outcomes "
        f"({', '.join(manifest.calibration.kinds)})."
    )


def _figures(manifest: Manifest) -> str:
    lines = ["## Figures", ""]
    for part, structures in manifest.metrics.items():
        for structure, figures in structures.items():
            lines += [f"{part}, {structure}:", "", *_table(figures), ""]
    return "\n".join(lines).rstrip()


def _table(conditions: dict[str, dict[str, Any]]) -> list[str]:
    head = "| condition | outcomes | Dice | lowest | failed | found | missed | false alarms |"
    rows = [head, "|" + "---|" * 8]
    for name, one in conditions.items():
        rows.append(
            f"| {name} | {one['outcomes']} | {one['dice_mean']:.3f} ± {one['dice_sd']:.3f} | {one['dice_min']:.3f} | "
            f"{one['failures']} | {one['detected']} | {one['false_negatives']} | {one['false_positives']} |"
        )
    return rows


def _limits(manifest: Manifest) -> str:
    calibration = manifest.calibration
    return (
        "## Verdict and limits\n\n"
        f"A mask has failed below Dice {calibration.min_dice:g}. The rule `conformal` chooses its threshold so that "
        f"at most {calibration.alpha:.0%} of the accepted masks have failed, on scans and conditions like those of "
        "the calibration, with 90 % confidence. For other scanners, sequences or tracing protocols that is not known: "
        "recalibrate with `ncagate calibrate` on scans of your own."
    )

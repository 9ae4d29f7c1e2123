"""`ncagate routes test`: what the routing table says of a series, without sending it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from imaging.dicom_identity import Identity, read_identity
from imaging.errors import ImagingError, NoDicomImagesError
from model_store.registry import open_registry
from ncagate.settings import Settings
from pacs.config import load_pacs
from pacs.routing import facts_of, find_route, try_routes


def try_series(series: Path, *, sender: str, settings: Settings, console: Console) -> bool:
    """Print every route, whether it fits and which of its patterns do not; whether one is taken.

    Raises:
        InvalidPacsConfigError: of the file.
        NoDicomImagesError: there is no DICOM object in the folder, or no such folder or file.
        ModelStoreError, UnsuitableWishError: the route that is taken asks for what there is not.
    """
    config = load_pacs(settings.pacs)
    identity = _first(series)
    taken = find_route(config.route, identity, sender=sender)
    table = Table("route", "model", "fits", "does not match", box=None)
    for trial in try_routes(config.route, identity, sender=sender):
        chosen = trial.route is taken
        fits = "taken" if chosen else "no" if trial.misses else "an earlier one does" if taken else "no image"
        told = ", ".join(f"{name} {getattr(trial.route, name)!r}" for name in trial.misses)
        cells = map(Text, (trial.route.name, trial.route.model, fits, told))  # patterns have brackets, as markup has
        table.add_row(*cells, style="bold" if chosen else "")
    facts = facts_of(identity, sender=sender).items()
    console.print(", ".join(f"{name} {value!r}" for name, value in facts), markup=False, highlight=False)
    console.print(table)
    if taken is not None:
        request = taken.wish().request(open_registry(settings), settings, destinations=taken.destinations)
        where = ", ".join(request.destinations) or "no archive"
        console.print(f"{request.model} {request.version}, accepted from Dice {request.min_dice:g}; goes to {where}")
    else:
        console.print("no route: the series would not be segmented")
    return taken is not None


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

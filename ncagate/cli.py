"""The command line, `ncagate --help`. Heavy imports come late: help is instant."""

from __future__ import annotations

import sys
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Annotated

import typer

from ncagate import administration, monitoring, remote, versions
from ncagate.answers import exit_of
from ncagate.terminal import Exit, Json, Strict, chosen_settings, complain, print_json, told
from ncagate.versions import Store

ROOMS = ("imaging", "jobs", "model_store", "nca", "ncagate", "pacs", "service", "training", "worker")
"""Our own packages: one of them that is missing is a defect, anything else is not installed."""

app = typer.Typer(
    name="ncagate",
    help="Segments 3-D medical scans and says of every mask whether it can be trusted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
routes = typer.Typer(help="The routing table of what archives send.", no_args_is_help=True)
app.add_typer(routes, name="routes")
versions.install(app)
administration.install(app)
remote.install(app)
monitoring.install(app, versions.models)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ncagate {distribution_version('ncagate')}")
        raise typer.Exit


@app.callback()
def _root(
    show: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind to (default 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind to (default 8000; 0 picks a free one).")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of database, scans, results and models.")] = None,
) -> None:
    """Run gateway, workers and a private Redis as one service. Ctrl-C stops it."""
    from ncagate.embedded import serve as run

    with told():
        run(chosen_settings(host=host, port=port, data=data))


@app.command()
def gateway(
    fd: Annotated[int | None, typer.Option(hidden=True, help="Listening socket that the caller hands down.")] = None,
) -> None:
    """Run the HTTP gateway alone (production: one of several, with a Redis and a database of their own)."""
    from ncagate.processes import run_gateway

    with told():
        run_gateway(chosen_settings(), fd=fd)


@app.command()
def worker() -> None:
    """Run the Celery workers alone."""
    from ncagate.processes import run_worker

    run_worker(chosen_settings())


@app.command()
def trainer() -> None:
    """Run what `POST /training` asks for, one training at a time, on the datasets of NCAGATE_DATASETS."""
    from ncagate.processes import run_trainer

    chosen_settings()  # a setting that makes no sense is told like any other
    run_trainer()


@app.command()
def listen() -> None:
    """Take DICOM associations: archives and scanners send series by C-STORE (see NCAGATE_PACS)."""
    from ncagate.processes import run_listener

    with told():
        run_listener(chosen_settings())


@app.command()
def deliver() -> None:
    """Send results to the archives of NCAGATE_PACS, and webhooks, again and again until they have them."""
    from ncagate.processes import run_deliverer

    with told():
        run_deliverer(chosen_settings())


@routes.command("test")
def try_routes(
    series: Annotated[Path, typer.Argument(help="Folder of a DICOM series, or one file of it.")],
    sender: Annotated[str, typer.Option(help="Title of the sending application entity.")] = "dicomweb",
    pacs: Annotated[Path | None, typer.Option(help="File of routes (default NCAGATE_PACS).")] = None,
    json: Json = False,
) -> None:
    """Which route a series would take, and why the others do not fit. Exit code 1 where none does."""
    from rich.console import Console

    from ncagate.routing import print_trial, try_series

    with told():
        trial = try_series(series, sender=sender, settings=chosen_settings(pacs=pacs))
    if json:
        print_json(trial)
    else:
        print_trial(trial, Console())
    raise typer.Exit(Exit.NEGATIVE if trial["taken"] is None else Exit.DONE)


@app.command()
def segment(
    scans: Annotated[list[Path], typer.Argument(help="NIfTI files, zips or folders of a DICOM series.")],
    out: Annotated[Path, typer.Option(help="Folder for masks, uncertainties and previews.")],
    model: Annotated[str, typer.Option(help="Model to use.")] = "hippocampus",
    version: Annotated[str | None, typer.Option(help="Version or alias; default: production.")] = None,
    members: Annotated[int, typer.Option(min=1, help="Size of the ensemble.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the fire masks.")] = 0,
    roi: Annotated[
        str | None, typer.Option(help="Region of interest, SPACE:x0,y0,z0:x1,y1,z1 (ras, lps, centre or voxel).")
    ] = None,
    min_dice: Annotated[
        float | None, typer.Option(help="Dice a mask must be predicted to reach (default: the version's).")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Largest share of failures among the accepted (default: the version's).")
    ] = None,
    rule: Annotated[
        str | None, typer.Option(help="What an accepted mask must show: conformal (default) or nqm.")
    ] = None,
    series_uid: Annotated[
        str | None, typer.Option(help="Series to segment, where files hold several; default: the one that fits.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Inference engine.")] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write one JSON array of records to this file, or to stdout (`-`).")
    ] = None,
    strict: Strict = False,
    store: Store = None,
) -> None:
    """Segment scans here and now, without a server. Exit code 1 where a scan could not be read."""
    from ncagate import segmenting

    settings = chosen_settings(store=store, engine=engine, min_dice=min_dice, alpha=alpha, rule=rule)
    with told():
        batch = segmenting.Batch.open(
            settings,
            model=model,
            version=version,
            members=members,
            seed=seed,
            roi=roi,
            series_uid=series_uid,
            out=out,
        )
        records = batch.run(scans, shown=json != segmenting.STDOUT)
    if json is not None:
        segmenting.write_records(records, json)
    raise typer.Exit(exit_of(records, strict=strict))


@app.command()
def train(
    data: Annotated[Path, typer.Option(help="Folder with images/ and labels/ of the same file names.")],
    config: Annotated[Path, typer.Option(help="Training configuration (TOML).")],
    store: Annotated[Path, typer.Option(help="Model store to publish to.")],
    run: Annotated[Path, typer.Option(help="Folder of checkpoints, metrics and pictures.")] = Path("runs/latest"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --run.")] = False,
) -> None:
    """Train a model, calibrate and evaluate its verdict, and publish a version."""
    with told():
        from training.job import run as run_job

        run_job(data=data, config=config, store=store, resume=resume, run=run)


@app.command()
def plan(
    data: Annotated[Path, typer.Argument(help="Folder with images/ and labels/ (or imagesTr/ and labelsTr/).")],
    name: Annotated[str, typer.Option(help="Name of the model.")],
    out: Annotated[Path, typer.Option(help="Configuration to write (TOML).")],
    union: Annotated[bool, typer.Option("--union", help="All labels are one structure.")] = False,
    volume: Annotated[
        list[int] | None, typer.Option(min=0, help="Which volume of 4-D files, from 0; again for a further channel.")
    ] = None,
    spacing: Annotated[
        tuple[float, float, float] | None, typer.Option(help="Voxels to work on, in mm; default: the scans' median.")
    ] = None,
) -> None:
    """Look at labelled scans and write a training configuration for them."""
    with told():
        from training.plan import make_plan, read_facts, to_toml

        facts = read_facts(data, volumes=volume or (), spacing_mm=spacing)
        text = to_toml(make_plan(facts), name=name, union=union)
        out.write_text(text, encoding="utf-8")
        typer.echo(text, nl=False)


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="Folder with images/ and labels/ of the same file names.")],
    report: Annotated[Path, typer.Option(help="Folder for outcomes.csv, evaluation.json and report.html.")],
    model: Annotated[str, typer.Option(help="Model to evaluate.")] = "hippocampus",
    version: Annotated[str | None, typer.Option(help="Version or alias; default: production.")] = None,
    min_dice: Annotated[
        float | None, typer.Option(help="Dice below which a mask has failed (default: the version's).")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Largest share of failures among the accepted (default: the version's).")
    ] = None,
    rule: Annotated[str | None, typer.Option(help="Rule of the verdict: conformal (default) or nqm.")] = None,
    each_severity: Annotated[
        bool, typer.Option("--each-severity", help="Every kind of damage at all five severities.")
    ] = False,
    foreign: Annotated[
        Path | None, typer.Option(help="Folder of scans that do not show the structure; none may be accepted.")
    ] = None,
    store: Store = None,
) -> None:
    """Measure a version's masks and verdicts on labelled scans that it has not seen, clean and degraded."""
    settings = chosen_settings(store=store, min_dice=min_dice, alpha=alpha, rule=rule)
    with told():
        from model_store.loaded import load_version
        from model_store.registry import open_registry
        from training.assess import evaluate as run

        loaded = load_version(open_registry(settings), model, version)
        policy = loaded.manifest.calibration.policy(
            min_dice=settings.min_dice, alpha=settings.alpha, rule=settings.rule
        )
        run(loaded, data=data, report=report, policy=policy, each_severity=each_severity, foreign=foreign)


@app.command()
def calibrate(
    data: Annotated[Path, typer.Option(help="Folder with images/ and labels/ of the same file names.")],
    store: Annotated[Path, typer.Option(help="Model store to read from and publish to.")],
    name: Annotated[str, typer.Option(help="What scans these are, in words; it is published.")],
    model: Annotated[str, typer.Option(help="Model to recalibrate.")] = "hippocampus",
    version: Annotated[str | None, typer.Option(help="Version or alias; default: production.")] = None,
) -> None:
    """Publish a version with the same weights and a verdict calibrated on your own labelled scans."""
    with told():
        from model_store.loaded import load_version
        from model_store.registry import Registry
        from training.assess import recalibrate

        recalibrate(load_version(Registry(store), model, version), data=data, store=store, name=name)


@app.command()
def engines(
    engine: Annotated[str | None, typer.Option(help="Engine asked for (default NCAGATE_ENGINE).")] = None,
    json: Json = False,
) -> None:
    """Which inference engines run here, which one is used, and why."""
    from rich.console import Console

    from ncagate.modelling import engine_records, engine_table

    asked = chosen_settings(engine=engine).engine
    with told():
        records = engine_records(asked)
    if json:
        print_json(records)
    else:
        Console().print(engine_table(records, asked))


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ROOMS:
            raise
        complain(f"this command needs {missing}: pip install 'ncagate[serve]'", "not_installed")
        sys.exit(Exit.REFUSED)


if __name__ == "__main__":
    main()

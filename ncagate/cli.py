"""The command line, `ncagate --help`. Heavy imports come late: help is instant."""

from __future__ import annotations

from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Annotated, Any

import typer

from ncagate import administration, monitoring
from ncagate.terminal import UNREADABLE, chosen_settings, told

app = typer.Typer(
    name="ncagate",
    help="Segments 3-D medical scans and says of every mask whether it can be trusted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
models = typer.Typer(help="List, show, promote and roll back model versions.", no_args_is_help=True)
app.add_typer(models, name="models")
routes = typer.Typer(help="The routing table of what archives send.", no_args_is_help=True)
app.add_typer(routes, name="routes")
administration.install(app)
monitoring.install(app, models)

Store = Annotated[
    Path | None, typer.Option(help="Model store; default: NCAGATE_STORE, or `models` in the data folder.")
]


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
) -> None:
    """Which route a series would take, and why the others do not fit. Exit code 1 where none does."""
    from rich.console import Console

    from ncagate.routing import try_series

    with told():
        fits = try_series(series, sender=sender, settings=chosen_settings(pacs=pacs), console=Console())
    raise typer.Exit(0 if fits else 1)


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
    json: Annotated[Path | None, typer.Option(help="Write one JSON array of records to this file.")] = None,
    store: Store = None,
) -> None:
    """Segment scans here and now, without a server. Exit code 2 where a scan could not be read."""
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
        records = batch.run(scans)
    if json is not None:
        segmenting.write_records(records, json)
    raise typer.Exit(UNREADABLE if any("error" in record for record in records) else 0)


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
) -> None:
    """Which inference engines run here, which one is used, and why."""
    from rich.console import Console

    from ncagate.modelling import engine_table

    with told():
        Console().print(engine_table(chosen_settings(engine=engine).engine))


@models.command("list")
def list_models(store: Store = None) -> None:
    """Every model and version, which alias points where, and what is unusable."""
    from rich.console import Console

    from ncagate.modelling import version_table

    Console().print(version_table(_registry(store)))


@models.command()
def show(name: str, version: Annotated[str | None, typer.Argument()] = None, store: Store = None) -> None:
    """The manifest of a version (default: production)."""
    with told():
        typer.echo(_registry(store).resolve(name, version).to_json(), nl=False)


@models.command()
def push(
    name: str,
    version: str,
    source: Annotated[Path, typer.Option(help="Model store (folder) that has the version.")],
) -> None:
    """Copy a version from a folder into the deployment's model store, which may be a bucket (NCAGATE_STORE_URL)."""
    from model_store.registry import Registry

    with told():
        _registry(None).adopt(Registry(source), name, version)
        typer.echo(f"{name} {version} is published")


@models.command()
def promote(
    name: str,
    version: str,
    alias: Annotated[str, typer.Option(help="Alias to move.")] = "production",
    store: Store = None,
) -> None:
    """Point an alias at a version; says what is known of it from the shadow of others. `--alias candidate` tries it."""
    with told():
        _registry(store).set_alias(name, alias, version)
        _promoted(store, name, alias, version)


@models.command()
def rollback(
    name: str, alias: Annotated[str, typer.Option(help="Alias to move back.")] = "production", store: Store = None
) -> None:
    """Point an alias at the version it had before; says what is known of it from the shadow of others."""
    with told():
        _promoted(store, name, alias, _registry(store).rollback(name, alias))


def _promoted(store: Path | None, name: str, alias: str, version: str) -> None:
    if administration.note_promotion(store, f"{name} {alias} {version}"):
        monitoring.show_evidence(name)
    typer.echo(f"{name}: {alias} is now {version}")


def _registry(store: Path | None) -> Any:
    from model_store.registry import open_registry

    return open_registry(chosen_settings(store=store))


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()

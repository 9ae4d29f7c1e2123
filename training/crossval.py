"""Cross-validation: a network per fold, and what each makes of the scans it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load_file, save_file

from model_store.manifest import InputContract
from nca.engine import get_engine
from nca.engine.torch_engine import to_network
from nca.network import Network
from training import checkpoint
from training.checkpoint import TrainingState
from training.config import TrainingConfig
from training.console import console, progress, shown
from training.contract import derive_contract
from training.data import Fold
from training.errors import CheckpointMismatchError
from training.loop import METRICS_FILE, Report, new_state, train
from training.outcomes import Outcome, Subject, observe, read_outcomes, write_outcomes
from training.pictures import draw_curves
from training.statistics import collect
from training.watch import NOBODY_WATCHES, Watch

NETWORK_FILE = "network.safetensors"


@dataclass(frozen=True)
class FoldResult:
    """A fold's network, the contract of its training scans, and its outcomes on its held-out ones."""

    fold: Fold
    network: Network
    contract: InputContract
    outcomes: Sequence[Outcome]
    minutes: float


def run_fold(
    fold: Fold, *, config: TrainingConfig, run: Path, resume: bool, watch: Watch = NOBODY_WATCHES
) -> FoldResult:
    """Train on the fold's scans, or go on where ``run``/fold-N stands, and observe the held-out ones.

    Raises:
        TrainingError: the folder holds a run that was not to be resumed or is another's, or training diverged.
    """
    folder = run / f"fold-{fold.index}"
    state = _open_run(config, folder, resume=resume)
    title = f"fold {fold.index + 1} of {config.folds}"
    with progress(title, config.optimisation.iterations, done=state.iteration) as advance:
        show = shown(advance)

        def report(one: Report) -> None:
            show(one)
            watch.iterated(fold.index, one)

        train(state, fold.training, config=config, run=folder, on_report=report)
    draw_curves(folder / METRICS_FILE, folder / "curves.png")
    contract = derive_contract(fold.training, config=config)
    network = _network(state, fold, config=config, folder=folder, title=title)
    subject = Subject(network, config.preprocessing(), contract, get_engine(), config.calibration.members)
    outcomes = _outcomes(subject, fold, config=config, folder=folder, title=title)
    watch.judged(fold.index, outcomes)
    return FoldResult(fold, network, contract, outcomes, state.seconds / 60)


def _network(state: TrainingState, fold: Fold, *, config: TrainingConfig, folder: Path, title: str) -> Network:
    """The average with its statistics; kept in the folder, for collecting them takes a while."""
    path = folder / NETWORK_FILE
    if not path.is_file():
        with progress(f"{title}: statistics", len(fold.training)) as advance:
            statistics = collect(
                state.average, fold.training, seed=config.seed, run_level=state.stepping.run_level, on_case=advance
            )
        save_file(dict(to_network(state.average, statistics).weights), path)
    return Network(config.network(), load_file(path))


def _outcomes(subject: Subject, fold: Fold, *, config: TrainingConfig, folder: Path, title: str) -> list[Outcome]:
    """What the network makes of the held-out scans; kept in the folder, unless for another size of the ensemble."""
    path = folder / f"outcomes-{subject.members}.csv"
    if not path.is_file():
        with progress(f"{title}: held out", len(fold.held_out)) as advance:
            outcomes = observe(fold.held_out, subject, seed=config.seed, on_case=advance)
        write_outcomes(outcomes, path)
    return read_outcomes(path)


def _open_run(config: TrainingConfig, folder: Path, *, resume: bool) -> TrainingState:
    folder.mkdir(parents=True, exist_ok=True)
    state = new_state(config)
    if checkpoint.exists(folder):
        if not resume:
            raise CheckpointMismatchError(f"{folder} holds a run already: add --resume, or choose another with --run")
        checkpoint.restore(state, folder, config=config)
        console.print(f"{folder.name} resumed at iteration {state.iteration}")
    else:
        (folder / METRICS_FILE).unlink(missing_ok=True)  # of a run that died before its first checkpoint
    if state.iteration < config.optimisation.iterations:
        for kept in (*folder.glob("outcomes-*.csv"), *folder.glob(NETWORK_FILE)):
            kept.unlink()  # they came from other weights
    return state

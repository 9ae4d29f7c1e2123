"""The training loop."""

from __future__ import annotations

import copy
import csv
import ctypes
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nca.model import M3dNca
from nca.network import FloatArray
from training import checkpoint
from training.augment import augment, crop
from training.checkpoint import TrainingState
from training.config import OptimisationSection, TrainingConfig
from training.data import Case
from training.errors import DivergedError
from training.loss import dice_focal, hard_dice
from training.patches import LevelOutput, run_patches
from training.stepping import choose_stepping

METRICS_FILE = "metrics.csv"


@dataclass(frozen=True)
class Report:
    """Figures of one iteration: loss, Dice of the finest patches (of both over the batch), learning rate."""

    iteration: int
    loss: float
    dice: float
    learning_rate: float
    seconds: float


def new_state(config: TrainingConfig, *, engine: str = "auto") -> TrainingState:
    """A fresh model under the configuration's seed, its average and its optimiser, to be run by ``engine``.

    Raises:
        EngineUnavailableError: no engine of that name runs here.
    """
    torch.manual_seed(config.seed)
    model = M3dNca(config.network())
    section = config.optimisation
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=section.learning_rate, weight_decay=section.weight_decay, fused=True
    )
    return TrainingState(model, copy.deepcopy(model).requires_grad_(False), optimiser, choose_stepping(engine))


def train(
    state: TrainingState,
    cases: Sequence[Case],
    *,
    config: TrainingConfig,
    run: Path,
    on_report: Callable[[Report], None] = lambda report: None,
) -> None:
    """Run the iterations that are left, with a checkpoint and a row of metrics.csv now and then in ``run``.

    Every iteration draws from a generator seeded by (seed, iteration), so a resumed run repeats the uninterrupted one.

    Raises:
        DivergedError: the loss is no longer finite.
    """
    _keep_freed_memory()
    section = config.optimisation
    _drop_rows_after(run / METRICS_FILE, state.iteration)
    start = time.monotonic() - state.seconds
    with (run / METRICS_FILE).open("a", buffering=1, newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        if not file.tell():
            rows.writerow(one.name for one in fields(Report))
        while state.iteration < section.iterations:
            loss, dice = _iterate(state, cases, config=config)
            state.iteration += 1
            state.seconds = time.monotonic() - start
            report = Report(state.iteration, loss, dice, state.optimiser.param_groups[0]["lr"], state.seconds)
            rows.writerow(astuple(report))
            on_report(report)
            if state.iteration % section.checkpoint_every == 0 or state.iteration == section.iterations:
                checkpoint.save(state, run, config=config)


def learning_rate(iteration: int, section: OptimisationSection) -> float:
    """Linear warm-up, then a cosine from ``learning_rate`` to ``final_learning_rate``."""
    if iteration < section.warmup:
        return section.learning_rate * (iteration + 1) / section.warmup
    progress = (iteration - section.warmup) / max(1, section.iterations - section.warmup)
    span = section.learning_rate - section.final_learning_rate
    return section.final_learning_rate + span * 0.5 * (1 + math.cos(math.pi * progress))


def total_loss(outputs: Sequence[LevelOutput], section: OptimisationSection) -> Tensor:
    """Dice-focal loss of the finest level, plus a share of each coarser level's own."""
    *coarse, finest = (dice_focal(one.logits, one.target, gamma=section.focal_gamma) for one in outputs)
    return finest + section.coarse_weight * sum(coarse)


def _iterate(state: TrainingState, cases: Sequence[Case], *, config: TrainingConfig) -> tuple[float, float]:
    section = config.optimisation
    rng = np.random.default_rng([config.seed, state.iteration])
    image, target = _batch(cases, config=config, rng=rng)
    done = state.iteration / section.iterations
    patch = next(one.size for one in reversed(section.patches) if one.start <= done)
    fire_seed = (config.seed << 32) | state.iteration
    run_level = state.stepping.run_level
    with state.stepping.torch_limited():
        outputs = run_patches(
            state.model, image, target, patch=patch, fire_seed=fire_seed, rng=rng, run_level=run_level
        )
        loss = total_loss(outputs, section)
        if not math.isfinite(loss.item()):
            raise DivergedError(f"the loss is {loss.item()} at iteration {state.iteration}")
        _learn(state, loss, section)
        return loss.item(), hard_dice(outputs[-1].logits.detach(), outputs[-1].target)


def _learn(state: TrainingState, loss: Tensor, section: OptimisationSection) -> None:
    """One step of the optimiser, and of the moving average after it."""
    parameters: list[Tensor] = list(state.model.parameters())
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(state.iteration, section)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(parameters, section.gradient_norm, foreach=True)
    state.optimiser.step()
    decay = min(section.average, (1 + state.iteration) / (10 + state.iteration))  # follow closely at first
    with torch.no_grad():
        averages: list[Tensor] = list(state.average.parameters())
        torch._foreach_lerp_(averages, parameters, 1 - decay)


def _batch(cases: Sequence[Case], *, config: TrainingConfig, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """(b, inputs, x, y, z) and (b, segments, x, y, z): each drawn crop several times (batch duplication)."""
    section = config.optimisation
    crops = []
    for chosen in rng.choice(len(cases), section.scans_per_batch, replace=len(cases) < section.scans_per_batch):
        image, target = crop(cases[chosen].image, cases[chosen].target, size=section.crop, rng=rng)
        augmented = augment(image, target, section=config.augmentation, spacing=config.model.spacing_mm, rng=rng)
        crops += [augmented] * section.duplicates
    return np.stack([image for image, _ in crops]), np.stack([target for _, target in crops])


def _drop_rows_after(path: Path, iteration: int) -> None:
    """Forget what a killed run reported after its last checkpoint."""
    if path.exists():
        header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [row for row in rows if int(row.split(",", 1)[0]) <= iteration]
        path.write_text("".join([header, *kept]), encoding="utf-8")


def _keep_freed_memory() -> None:
    """Have glibc reuse freed activations: otherwise each is mapped, zeroed and unmapped anew, a fifth of the time."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        trim_threshold, mmap_threshold, largest = -1, -3, 32 * 1024 * 1024  # numbers from malloc.h
        libc.mallopt(mmap_threshold, largest)
        libc.mallopt(trim_threshold, 2**31 - 1)

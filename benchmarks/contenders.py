"""What is compared on one fold: variants of the automaton, and two 3-D U-Nets, each trained for the same time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors.numpy import load_file

from nca.engine import get_engine
from nca.engine.torch_engine import to_network
from nca.network import FloatArray, Network
from training import loop
from training.config import LevelSection, TrainingConfig
from training.data import Case
from training.loss import dice_focal
from training.statistics import collect

TIMED = 3
"""Iterations that are timed to find how many fill the time; one more before them warms up."""
FULL = "3 levels"
"""The configuration itself."""
UNET_LEVELS = 4
UNET_MULTIPLE = 2 ** (UNET_LEVELS - 1)
"""Every axis of a U-Net's input must divide by this."""
UNET_LEARNING_RATE = 1e-3


Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


class Predictor(Protocol):
    """A trained network. Members are those of the pseudo-ensemble; what has none yields one."""

    def predict(self, image: FloatArray, *, members: int) -> Sequence[FloatArray]:
        """Probabilities (x, y, z), one array a member, of an image (x, y, z)."""
        ...


@dataclass(frozen=True)
class Trained:
    """What training came to: weights by name, how many iterations filled the time, and learned numbers."""

    weights: Mapping[str, FloatArray]
    iterations: int
    parameters: int


class Contender(Protocol):
    """Something that can be trained for some minutes of one core and then predicts."""

    @property
    def ensemble(self) -> bool:
        """Whether members differ, so that their mean is another mask."""
        ...

    def train(self, cases: Sequence[Case], *, seed: int, minutes: float, run: Path) -> Trained:
        """Train on ``cases``; ``run`` is a folder for whatever it keeps."""
        ...

    def load(self, weights: Path, *, threads: int) -> Predictor:
        """The trained network from its safetensors file."""
        ...


@dataclass(frozen=True)
class Automaton:
    """An M3D-NCA under a training configuration."""

    config: TrainingConfig
    ensemble: bool = True

    def train(self, cases: Sequence[Case], *, seed: int, minutes: float, run: Path) -> Trained:
        """By `training.loop.train`, as `ncagate train` does."""
        config = _with(self.config, seed=seed)
        patches = [partial(self._timed, cases, patch) for patch in range(len(config.optimisation.patches))]
        iterations = _iterations_in(minutes, patches, self._shares())
        config = _with(config, optimisation={"iterations": iterations, "checkpoint_every": iterations})
        state = loop.new_state(config)
        loop.train(state, cases, config=config, run=run)
        statistics = collect(state.average, cases, seed=seed, run_level=state.stepping.run_level)
        weights = to_network(state.average, statistics).weights
        return Trained(weights, iterations, config.network().parameter_count())

    def load(self, weights: Path, *, threads: int) -> Predictor:
        """On the fastest engine of this machine."""
        return _AutomatonPredictor(Network(self.config.network(), load_file(weights)), threads)

    def _shares(self) -> list[float]:
        """Of the iterations, those on each patch size."""
        starts = [one.start for one in self.config.optimisation.patches] + [1.0]
        return [end - start for start, end in pairwise(starts)]

    def _timed(self, cases: Sequence[Case], patch: int) -> Callable[[], object]:
        """An iteration on that patch size, of a run that is thrown away."""
        section = self.config.optimisation
        only = section.patches[patch].model_copy(update={"start": 0.0})
        config = _with(self.config, optimisation={"patches": (only,)})
        state = loop.new_state(config)
        return lambda: loop._iterate(state, cases, config=config)


@dataclass(frozen=True)
class _AutomatonPredictor:
    network: Network
    threads: int

    def predict(self, image: FloatArray, *, members: int) -> Sequence[FloatArray]:
        engine = get_engine(threads=self.threads)
        return [one[0] for one in engine.run(self.network, image[None], seed=0, members=range(members))]


@dataclass(frozen=True)
class UNet:
    """A network of MONAI's, trained on the automaton's crops, augmentation, loss, schedule and moving average.

    Each batch is two whole crops; batch duplication would show it the same twice.
    """

    build: Callable[[], torch.nn.Module]
    config: TrainingConfig
    ensemble: bool = False

    def train(self, cases: Sequence[Case], *, seed: int, minutes: float, run: Path) -> Trained:
        """AdamW on crops that its strides divide."""
        config = _with(self.config, seed=seed, optimisation={"duplicates": 1, "learning_rate": UNET_LEARNING_RATE})
        config = _with(config, optimisation={"crop": _multiple(config.optimisation.crop, UNET_MULTIPLE)})
        iterations = _iterations_in(minutes, [lambda: _UNetRun(self.build(), cases, config).iterate], [1.0])
        config = _with(config, optimisation={"iterations": iterations})
        torch.manual_seed(seed)
        training = _UNetRun(self.build(), cases, config)
        for _ in range(iterations):
            training.iterate()
        weights = {name: one.detach().numpy() for name, one in training.average.module.named_parameters()}
        return Trained(weights, iterations, sum(one.numel() for one in training.model.parameters()))

    def load(self, weights: Path, *, threads: int) -> Predictor:
        """In torch."""
        model = self.build().eval()
        stored = load_file(weights)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.from_numpy(stored[name]))
        return _UNetPredictor(model, threads)


class _UNetRun:
    def __init__(self, model: torch.nn.Module, cases: Sequence[Case], config: TrainingConfig) -> None:
        section = config.optimisation
        self.model, self._cases, self._config, self._done = model, cases, config, 0
        self._optimiser = torch.optim.AdamW(
            model.parameters(), lr=section.learning_rate, weight_decay=section.weight_decay
        )
        self.average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=self._lerp)

    def iterate(self) -> None:
        section = self._config.optimisation
        rng = np.random.default_rng([self._config.seed, self._done])
        image, target = (torch.from_numpy(one) for one in loop._batch(self._cases, config=self._config, rng=rng))
        for group in self._optimiser.param_groups:
            group["lr"] = loop.learning_rate(self._done, section)
        self._optimiser.zero_grad()
        dice_focal(self.model(image), target, gamma=section.focal_gamma).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), section.gradient_norm)
        self._optimiser.step()
        self._done += 1
        self.average.update_parameters(self.model)

    def _lerp(self, averages: Tensors, current: Tensors, _: torch.Tensor | int) -> None:
        decay = min(self._config.optimisation.average, (1 + self._done) / (10 + self._done))
        torch._foreach_lerp_(averages, current, 1 - decay)


@dataclass(frozen=True)
class _UNetPredictor:
    model: torch.nn.Module
    threads: int

    def predict(self, image: FloatArray, *, members: int) -> Sequence[FloatArray]:
        torch.set_num_threads(self.threads)
        pads = [(0, -n % UNET_MULTIPLE) for n in image.shape]
        padded = torch.from_numpy(np.pad(image, pads, mode="reflect"))[None, None]
        with torch.inference_mode():
            logits = self.model(padded)[0, 0]
        x, y, z = image.shape
        return [torch.sigmoid(logits)[:x, :y, :z].numpy()]


def contenders(config: TrainingConfig) -> dict[str, Contender]:
    """All of them by name."""

    def levels(*sections: tuple[int, int]) -> TrainingConfig:
        """Of (kernel, steps), coarsest first, each halved; the crop is enlarged to what the coarsest level divides."""
        *coarser, (kernel, steps) = sections
        halved = [LevelSection(kernel=k, steps=n, scale=(2, 2, 2)) for k, n in coarser]
        crop = _multiple(config.optimisation.crop, 2 ** len(coarser))
        every = (*halved, LevelSection(kernel=kernel, steps=steps))
        return _with(config, architecture={"levels": every}, optimisation={"crop": crop})

    def steps(factor: float) -> TrainingConfig:
        changed = [one.model_copy(update={"steps": round(one.steps * factor)}) for one in config.architecture.levels]
        return _with(config, architecture={"levels": tuple(changed)})

    single = _with(config, optimisation={"scans_per_batch": 4, "duplicates": 1})
    return {
        FULL: Automaton(config),
        "2 levels": Automaton(levels((3, 18), (3, 10))),
        "4 levels": Automaton(levels((3, 12), (3, 12), (3, 12), (3, 10))),
        "2 levels, kernel 7 and 3 (paper)": Automaton(levels((7, 8), (3, 20))),
        "no batch duplication": Automaton(single),
        "half the steps": Automaton(steps(0.5)),
        "twice the steps": Automaton(steps(2)),
        "3-D U-Net": UNet(_unet, config),
        "nnU-Net-like": UNet(_dynunet, config),
    }


def _unet() -> torch.nn.Module:
    from monai.networks.nets.unet import UNet as MonaiUNet

    return MonaiUNet(3, 1, 1, channels=(16, 32, 64, 128), strides=(2, 2, 2), num_res_units=2, norm="instance")


def _dynunet() -> torch.nn.Module:
    from monai.networks.nets.dynunet import DynUNet

    kernels = [3] * UNET_LEVELS
    return DynUNet(3, 1, 1, kernels, [1, 2, 2, 2], [2, 2, 2], filters=(16, 32, 64, 128), norm_name="instance")


def _with(config: TrainingConfig, *, seed: int | None = None, **sections: Mapping[str, object]) -> TrainingConfig:
    """The configuration with some values of some sections changed, validated anew."""
    changed: dict[str, object] = {} if seed is None else {"seed": seed}
    for name, values in sections.items():
        changed[name] = getattr(config, name).model_copy(update=dict(values))
    return TrainingConfig.model_validate(config.model_copy(update=changed).model_dump())


def _multiple(size: Sequence[int], factor: int) -> tuple[int, ...]:
    """The next larger size that divides by ``factor``."""
    return tuple(-(-n // factor) * factor for n in size)


def _iterations_in(minutes: float, kinds: Sequence[Callable[[], Callable[[], object]]], shares: Sequence[float]) -> int:
    """How many iterations fill so many minutes of processor time, when ``shares`` of them are of each kind.

    Processor time, as on a machine of its own: what else runs there must not shorten the training.
    """
    seconds = 0.0
    for begin, share in zip(kinds, shares, strict=True):
        iterate = begin()
        iterate()
        start = time.process_time()
        for _ in range(TIMED):
            iterate()
        seconds += share * (time.process_time() - start) / TIMED
    return max(1, round(60 * minutes / seconds))

"""The published architecture as the paper describes it (seed, sections 2.1 and 2.2), in plain eager torch.

Written from the paper, not from its code: all cells are computed and then masked, BatchNorm uses the statistics of
the very batch (at inference too), fire masks come from `torch.rand`, one member runs after another, tensors are in
torch's default layouts. It is what the project's engines are compared with.

Shapes: b batch, c channels, h hidden; x, y, z voxels of a level's grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nca.architecture import Architecture, Level
from nca.engine import Progress, ProgressCallback
from nca.model import M3dNca, StatisticsHook
from nca.network import FloatArray, Network
from nca.randomness import Firing
from nca.weights import NORM_EPSILON


class PublishedLevel(nn.Module):
    """The update rule of one level."""

    def __init__(self, architecture: Architecture, level: Level) -> None:
        super().__init__()
        c, h, k = architecture.channels, architecture.hidden, level.kernel
        self.inputs = architecture.inputs
        self.perceive = nn.Conv3d(c, c, k, padding=(k - 1) // 2, padding_mode="reflect", groups=c)
        self.dense_in = nn.Linear(2 * c, h)
        self.norm = nn.BatchNorm3d(h, eps=NORM_EPSILON, track_running_stats=False)
        self.dense_out = nn.Linear(h, c, bias=False)
        nn.init.zeros_(self.dense_out.weight)

    def forward(self, state: Tensor, fired: Tensor) -> Tensor:
        """One step: ``state`` (b, c, x, y, z), ``fired`` bool (b, x, y, z) -> the next state."""
        vector = torch.cat([state, self.perceive(state)], dim=1)  # (b, 2c, x, y, z)
        hidden = self.dense_in(vector.movedim(1, -1)).movedim(-1, 1)  # (b, h, x, y, z)
        hidden = functional.relu(self.norm(hidden))
        update = self.dense_out(hidden.movedim(1, -1)).movedim(-1, 1) * fired[:, None]
        return torch.cat([state[:, : self.inputs], (state + update)[:, self.inputs :]], dim=1)


class PublishedNca(nn.Module):
    """A cascade of levels, coarsest first, each with its own weights."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.levels = nn.ModuleList(PublishedLevel(architecture, level) for level in architecture.levels)

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """``image`` (b, inputs, x, y, z) on every level's grid, coarsest first, by average pooling."""
        images = [image]
        for level in reversed(self.architecture.levels[:-1]):
            images.insert(0, functional.avg_pool3d(images[0], level.scale, ceil_mode=True, count_include_pad=False))
        return images

    def enter(self, index: int, state: Tensor | None, image: Tensor) -> Tensor:
        """The state that level ``index`` starts from: the image, and zeros or the upsampled level before."""
        if state is None:
            hidden = self.architecture.channels - self.architecture.inputs
            return functional.pad(image, (0, 0, 0, 0, 0, 0, 0, hidden))
        x, y, z = image.shape[2:]
        factors = [float(factor) for factor in self.architecture.levels[index - 1].scale]
        finer = functional.interpolate(state, scale_factor=factors, mode="nearest")[:, :, :x, :y, :z]
        return torch.cat([image, finer[:, image.shape[1] :]], dim=1)


class PublishedEngine:
    """Runs a network's learned weights as published; its stored statistics and counter-based masks are not used."""

    name = "published"

    def __init__(self, *, threads: int = 0) -> None:
        self._threads = threads

    def exact(self) -> PublishedEngine:
        """Itself: it computes in float32."""
        return self

    def run(
        self,
        network: Network,
        image: FloatArray,
        *,
        seed: int,
        members: Sequence[int],
        on_progress: ProgressCallback | None = None,
    ) -> Iterator[FloatArray]:
        """Yield each member's probabilities, as `nca.engine.Engine` says, but for their dependence on the batch."""
        if self._threads:
            torch.set_num_threads(self._threads)
        model = to_published(network)
        for position, member in enumerate(members):
            torch.manual_seed(seed + member)

            def report(step: int, position: int = position) -> None:
                if on_progress is not None:
                    on_progress(Progress(position, len(members), step, network.architecture.total_steps))

            yield _run_member(model, torch.tensor(image)[None], on_step=report)


@torch.inference_mode()
def _run_member(model: PublishedNca, image: Tensor, *, on_step: Callable[[int], None]) -> FloatArray:
    """Probabilities (segments, x, y, z); ``on_step`` is told how many steps are done, from 0."""
    architecture, state, done = model.architecture, None, 0
    on_step(0)
    for index, level_image in enumerate(model.pyramid(image)):
        state = model.enter(index, state, level_image)
        for _ in range(architecture.levels[index].steps):
            fired = torch.rand(1, *state.shape[2:]) < architecture.fire_rate
            state = model.levels[index](state, fired)
            done += 1
            on_step(done)
    assert state is not None  # noqa: S101 - an architecture has levels
    logits = state[0, architecture.inputs : architecture.inputs + architecture.outputs]
    probabilities: FloatArray = torch.sigmoid(logits).contiguous().numpy()
    return probabilities


def published_level(
    model: M3dNca, index: int, state: Tensor, firing: Firing, on_statistics: StatisticsHook | None = None
) -> Tensor:
    """All steps of a level of the project's model in the published arithmetic; a `training.stepping.RunLevel`."""
    level, (x, y, z) = model.level(index), state.shape[2:]
    published = PublishedLevel(model.architecture, model.architecture.levels[index])
    learned = {
        "perceive.weight": level.perceive_weight[:, None],
        "perceive.bias": level.perceive_bias,
        "dense_in.weight": level.dense_in.weight,
        "dense_in.bias": level.dense_in.bias,
        "norm.weight": level.norm_scale,
        "norm.bias": level.norm_shift,
        "dense_out.weight": level.dense_out.weight,
    }
    for step in range(model.architecture.levels[index].steps):
        fired = torch.from_numpy(firing.mask(index, step, (x, y, z)))
        state = torch.func.functional_call(published, learned, (state, fired))
    return state


LEARNED = {
    "perceive.bias": "perceive.bias",
    "dense_in.weight": "dense_in.weight",
    "dense_in.bias": "dense_in.bias",
    "norm.scale": "norm.weight",
    "norm.shift": "norm.bias",
    "dense_out.weight": "dense_out.weight",
}
"""The name of each learned weight in `nca.weights` and here; the depthwise kernel has one more axis here."""


def to_published(network: Network) -> PublishedNca:
    """The published model with a network's learned weights."""
    model = PublishedNca(network.architecture).requires_grad_(False)
    for i, level in enumerate(model.levels):
        tensors = {mine: torch.tensor(network.weights[f"level{i}.{stored}"]) for stored, mine in LEARNED.items()}
        tensors["perceive.weight"] = torch.tensor(network.weights[f"level{i}.perceive.weight"])[:, None]
        level.load_state_dict(tensors)
    return model

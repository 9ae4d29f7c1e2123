"""All steps of a level in C++, forward and backward, as one operation of torch's autograd."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nca.engine.native import _core
from nca.engine.native.packing import CHANNEL_QUANTUM, HIDDEN_QUANTUM, padded
from nca.errors import InvalidInputError
from nca.model import NcaLevel, StatisticsHook
from nca.randomness import fire_threshold

Array = NDArray[Any]


def run_level(
    level: NcaLevel,
    state: Tensor,
    keys: NDArray[np.uint32],
    *,
    fire_rate: float,
    threads: int,
    on_statistics: StatisticsHook | None = None,
    isa: str = "",
) -> Tensor:
    """What `NcaLevel.forward` does with the batch's own statistics, for every step: state (b, c, x, y, z) -> state.

    ``keys``: (steps, b, 2), as `nca.randomness.Firing` gives them. Differentiable by the state and the level's
    parameters, once. All are float32 or, for checks, float64. The result is the same for any ``threads``.

    Raises:
        InvalidInputError: shapes or types do not belong together.
    """
    parameters = _parameters(level)
    _check(state, keys, parameters)
    keep = torch.is_grad_enabled() and any(one.requires_grad for one in (state, *parameters))
    job = _Job(level.inputs, keys, fire_threshold(fire_rate), threads, on_statistics, keep, isa)
    result: Tensor = _RunLevel.apply(job, state, *parameters)  # type: ignore[no-untyped-call]
    return result


@dataclass(frozen=True, eq=False)
class _Job:
    inputs: int
    keys: NDArray[np.uint32]
    threshold: int
    threads: int
    on_statistics: StatisticsHook | None
    keep: bool
    isa: str


class _RunLevel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, job: _Job, state: Tensor, *parameters: Tensor) -> Tensor:
        packed = _pack(parameters, inputs=job.inputs)
        rows = _rows(state, packed["perceive"].shape[-1])
        out, steps, hidden = np.empty_like(rows), len(job.keys), len(packed["bias"])
        mean, variance = np.empty((steps, hidden)), np.empty((steps, hidden))
        count = np.empty(steps, dtype=np.int64)
        ctx.tape = _core.train_forward(
            _trainer(job.threads), job.isa, **packed, state=rows, keys=job.keys, threshold=job.threshold,
            keep=job.keep, out=out, mean=mean, variance=variance, count=count,
        )  # fmt: skip
        ctx.shapes = [one.shape for one in parameters]
        ctx.inputs = job.inputs
        if job.on_statistics is not None:
            units = parameters[3].shape[0]
            for step in range(steps):
                statistics = (torch.from_numpy(one[step, :units].copy()) for one in (mean, variance))
                job.on_statistics(step, int(count[step]), *statistics)
        return _state(out, state.shape[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        tape, ctx.tape = ctx.tape, None
        if tape is None:
            raise RuntimeError("Trying to backward through the graph a second time: the level's tape was freed")
        (gradient,) = gradients
        (c, k, *_), (h, _) = ctx.shapes[0], ctx.shapes[2]
        channels, units = padded(c, CHANNEL_QUANTUM), padded(h, HIDDEN_QUANTUM)
        rows = _rows(gradient, channels, own=True)
        sums = {name: np.zeros(shape) for name, shape in _shapes(k, channels, units).items()}
        tape.backward(rows, **sums)
        return None, _state(rows, c), *_unpack(sums, ctx.shapes, gradient.dtype, inputs=ctx.inputs)


@cache
def _trainer(threads: int) -> _core.Trainer:
    """Threads and memory, kept from one iteration to the next."""
    return _core.Trainer(threads)


def _parameters(level: NcaLevel) -> tuple[Tensor, ...]:
    return (
        level.perceive_weight, level.perceive_bias, level.dense_in.weight, level.dense_in.bias,
        level.norm_scale, level.norm_shift, level.dense_out.weight,
    )  # fmt: skip


def _check(state: Tensor, keys: NDArray[np.uint32], parameters: tuple[Tensor, ...]) -> None:
    tensors = (state, *parameters)
    if any(one.device.type != "cpu" for one in tensors):
        raise InvalidInputError("the native engine runs on the CPU: move the state and the weights there")
    if state.dtype not in (torch.float32, torch.float64) or any(one.dtype != state.dtype for one in tensors):
        raise InvalidInputError("the state and the weights must all be float32, or all float64")
    channels, kernel = parameters[0].shape[:2]
    if state.dim() != 5 or state.shape[1] != channels:
        raise InvalidInputError(f"the state must be (b, {channels}, x, y, z), not {tuple(state.shape)}")
    if min(state.shape[2:]) <= (kernel - 1) // 2:
        raise InvalidInputError(f"{tuple(state.shape[2:])} cells are too few to be mirrored for a kernel of {kernel}")
    if keys.dtype != np.uint32 or keys.ndim != 3 or len(keys) == 0 or keys.shape[1:] != (len(state), 2):
        raise InvalidInputError(f"the keys must be uint32 (steps, {len(state)}, 2), not {keys.dtype} {keys.shape}")


def _shapes(kernel: int, channels: int, units: int) -> dict[str, tuple[int, ...]]:
    """Of a level's arrays as the kernels read them; channels and units are the padded counts."""
    return {
        "perceive": (kernel, kernel, kernel, channels),
        "perceive_bias": (channels,),
        "dense_in": (2 * channels, units),
        "bias": (units,),
        "scale": (units,),
        "shift": (units,),
        "dense_out": (units, channels),
    }


def _pack(parameters: tuple[Tensor, ...], *, inputs: int) -> dict[str, Array]:
    """Parameters as the kernels read them: channels last, padded with zeros, no update of the image channels."""
    arrays = [one.detach().numpy() for one in parameters]
    c, k, h = *arrays[0].shape[:2], len(arrays[3])
    shapes = _shapes(k, padded(c, CHANNEL_QUANTUM), padded(h, HIDDEN_QUANTUM))
    packed = {name: np.zeros(shape, dtype=arrays[0].dtype) for name, shape in shapes.items()}
    for view, array in zip(_views(packed, c, h), arrays, strict=True):
        view[...] = array.reshape(view.shape)
    packed["dense_out"][:, :inputs] = 0.0
    return packed


def _unpack(packed: dict[str, Array], shapes: list[torch.Size], dtype: torch.dtype, *, inputs: int) -> list[Tensor]:
    """The inverse, for gradients."""
    packed["dense_out"][:, :inputs] = 0.0
    views = _views(packed, shapes[0][0], shapes[2][0])
    return [torch.from_numpy(view).to(dtype).reshape(shape) for view, shape in zip(views, shapes, strict=True)]


def _views(packed: dict[str, Array], c: int, h: int) -> tuple[Array, ...]:
    """Where each parameter's numbers lie among those of the packed arrays, in the parameter's own axes.

    The first dense layer's inputs are two blocks, own state and perceived, each padded.
    """
    dense_in = packed["dense_in"]
    blocks = dense_in.reshape(2, len(dense_in) // 2, -1)[:, :c, :h]  # (2, c, h)
    return (
        np.moveaxis(packed["perceive"], -1, 0)[:c],
        packed["perceive_bias"][:c],
        np.moveaxis(blocks, -1, 0),  # (h, 2, c)
        packed["bias"][:h],
        packed["scale"][:h],
        packed["shift"][:h],
        packed["dense_out"].T[:c, :h],
    )


def _rows(state: Tensor, channels: int, *, own: bool = False) -> Array:
    """(b, c, x, y, z) -> (b, x, y, z, ``channels``), a view where it can be; ``own``: it will be written to."""
    rows = state.detach().movedim(1, -1).contiguous().numpy()
    missing = channels - rows.shape[-1]
    if missing:
        return np.pad(rows, [(0, 0)] * 4 + [(0, missing)])
    return rows.copy() if own else rows


def _state(rows: Array, channels: int) -> Tensor:
    """The inverse: (b, c, x, y, z) in channels-last order."""
    return torch.from_numpy(np.ascontiguousarray(rows[..., :channels])).movedim(-1, 1)

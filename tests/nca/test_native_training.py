"""Training's kernels against torch's autograd in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from nca.architecture import Architecture, Level, Shape
from nca.errors import InvalidInputError
from nca.model import M3dNca
from nca.randomness import Firing

pytestmark = pytest.mark.usefixtures("core")

BIASES = ("perceive_bias", "dense_in.bias")
"""Constant over the batch, so the normalisation takes them out again: their gradients are exactly zero."""


@dataclass(frozen=True)
class Task:
    """One level, a batch and a gradient to send back."""

    kernel: int
    grid: Shape
    channels: int = 16
    hidden: int = 64
    rate: float = 0.5
    steps: int = 3
    batch: int = 3
    inputs: int = 1

    def model(self, dtype: torch.dtype) -> M3dNca:
        torch.manual_seed(0)
        architecture = Architecture(
            (Level(self.kernel, self.steps),), channels=self.channels, hidden=self.hidden, inputs=self.inputs
        )
        model = M3dNca(architecture)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        torch.nn.init.uniform_(model.level(0).norm_scale, 0.5, 1.5)
        return model.to(dtype)

    def state(self, dtype: torch.dtype) -> Tensor:
        torch.manual_seed(1)
        state = torch.randn(self.batch, self.channels, *self.grid, dtype=torch.float64)
        return state.to(dtype).contiguous(memory_format=torch.channels_last_3d).requires_grad_()

    @property
    def firing(self) -> Firing:
        return Firing(5, range(self.batch), self.rate)


USUAL = [Task(kernel, (6, 9, 8), rate=rate) for kernel in (3, 5, 7) for rate in (0.5, 1.0)]
ODD = [
    Task(3, (2, 5, 4), channels=6, hidden=10, inputs=2),
    Task(7, (4, 4, 4)),  # every cell is mirrored on both sides
    Task(9, (6, 5, 7), channels=20, hidden=40, batch=1),
]
Results = dict[str, Tensor]
Moments = list[tuple[int, Tensor, Tensor]]


def by_torch(task: Task) -> tuple[Results, Moments]:
    model, state, moments = task.model(torch.float64), task.state(torch.float64), Moments()
    out = model.run_level(
        0,
        state,
        lambda level, step: torch.from_numpy(task.firing.mask(level, step, task.grid)),
        on_statistics=lambda step, *one: moments.append(one),
    )
    return _back(model, state, out), moments


def by_native(task: Task, dtype: torch.dtype, *, threads: int = 2, isa: str = "") -> tuple[Results, Moments]:
    from nca.engine.native.training import run_level

    model, state, moments = task.model(dtype), task.state(dtype), Moments()
    out = run_level(
        model.level(0),
        state,
        task.firing.keys(0, task.steps),
        fire_rate=task.rate,
        threads=threads,
        isa=isa,
        on_statistics=lambda step, *one: moments.append(one),
    )
    return _back(model, state, out), moments


def _back(model: M3dNca, state: Tensor, out: Tensor) -> Results:
    torch.manual_seed(2)
    gradient = torch.randn(out.shape, dtype=torch.float64)
    out.backward(gradient.to(out.dtype))
    results = {name: parameter.grad for name, parameter in model.level(0).named_parameters()}
    return {name: one for name, one in results.items() if one is not None} | {
        "out": out.detach(),
        "state": state.grad if state.grad is not None else torch.empty(0),
    }


def _isas() -> Iterator[str]:
    from nca.engine.native import _core

    yield from _core.isas()


class TestGradients:
    @pytest.mark.parametrize("task", USUAL + ODD, ids=str)
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
    def test_are_those_of_autograd_in_float64(self, task: Task, dtype: torch.dtype, tolerance: float) -> None:
        expected, _ = by_torch(task)
        ours, _ = by_native(task, dtype)
        assert ours.keys() == expected.keys()
        for name, value in ours.items():
            assert value.dtype == dtype
            if name in BIASES:
                assert not value.any()
                assert expected[name].abs().max() < 1e-9
                continue
            scale = float(expected[name].abs().max())
            torch.testing.assert_close(value.double(), expected[name], rtol=0, atol=tolerance * scale, msg=name)

    @pytest.mark.parametrize("kernel", [3, 7])
    def test_hold_on_every_instruction_set(self, kernel: int) -> None:
        task = Task(kernel, (5, 6, 7), steps=2)
        expected, _ = by_torch(task)
        for isa in _isas():
            ours, _ = by_native(task, torch.float32, isa=isa)
            for name in ours.keys() - set(BIASES):
                scale = float(expected[name].abs().max())
                torch.testing.assert_close(ours[name].double(), expected[name], rtol=0, atol=1e-4 * scale, msg=isa)

    @pytest.mark.parametrize("kernel", [3, 7])
    def test_agree_with_finite_differences(self, kernel: int) -> None:
        """Along random directions, as `torch.autograd.gradcheck` does it, which would go back more than once."""
        from nca.engine.native.training import run_level

        reach, step = kernel // 2, 1e-6
        task = Task(kernel, (reach + 1, reach + 2, reach + 1), channels=3, hidden=4, steps=2, batch=2)
        level, state = task.model(torch.float64).level(0), task.state(torch.float64)
        variables = [state, *level.parameters()]

        def loss() -> Tensor:
            out = run_level(level, state, task.firing.keys(0, 2), fire_rate=0.5, threads=2)
            return (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)).sum()

        gradients = torch.autograd.grad(loss(), variables)
        for _ in range(5):
            direction = [torch.randn_like(one) for one in variables]
            ends = []
            with torch.no_grad():
                for offset in (step, -2 * step):
                    torch._foreach_add_(variables, direction, alpha=offset)
                    ends.append(float(loss()))
                torch._foreach_add_(variables, direction, alpha=step)
            along = sum(float((a * b).sum()) for a, b in zip(gradients, direction, strict=True))
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(along, rel=1e-5)

    @pytest.mark.parametrize("kernel", [3, 7])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_do_not_depend_on_the_threads(self, kernel: int, dtype: torch.dtype) -> None:
        task = Task(kernel, (9, 9, 8))
        one, _ = by_native(task, dtype, threads=1)
        for threads in (2, 5):
            several, _ = by_native(task, dtype, threads=threads)
            assert all(torch.equal(several[name], value) for name, value in one.items())

    def test_going_back_twice_is_refused(self) -> None:
        from nca.engine.native.training import run_level

        task = Task(3, (3, 3, 3), steps=1)
        out = run_level(
            task.model(torch.float32).level(0),
            task.state(torch.float32),
            task.firing.keys(0, 1),
            fire_rate=0.5,
            threads=1,
        )
        out.sum().backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            out.sum().backward()


class TestStatistics:
    @pytest.mark.parametrize("task", USUAL[:2] + ODD[:1], ids=str)
    def test_are_those_of_torch(self, task: Task) -> None:
        _, expected = by_torch(task)
        _, ours = by_native(task, torch.float32)
        assert [one[0] for one in ours] == [one[0] for one in expected]
        for (_, mean, variance), (_, other_mean, other_variance) in zip(ours, expected, strict=True):
            torch.testing.assert_close(mean, other_mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(variance, other_variance, rtol=1e-4, atol=1e-5)

    def test_of_a_step_in_which_no_cell_fires_are_zero(self) -> None:
        task = replace(Task(3, (3, 3, 3)), rate=1e-9)
        results, moments = by_native(task, torch.float32)
        assert [count for count, _, _ in moments] == [0, 0, 0]
        torch.testing.assert_close(results["out"], task.state(torch.float32).detach())


class TestBadInput:
    def run(self, state: Tensor, keys: np.ndarray | None = None, *, dtype: torch.dtype = torch.float32) -> Tensor:
        from nca.engine.native.training import run_level

        task = Task(5, (4, 4, 4))
        keys = task.firing.keys(0, 3) if keys is None else keys
        return run_level(task.model(dtype).level(0), state, keys, fire_rate=0.5, threads=1)

    @pytest.mark.parametrize("shape", [(16, 4, 4, 4), (3, 15, 4, 4, 4), (3, 16, 4, 2, 4)])
    def test_a_state_of_another_shape_is_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(InvalidInputError):
            self.run(torch.zeros(shape))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.int32, torch.float64])
    def test_a_state_of_another_type_than_the_weights_is_refused(self, dtype: torch.dtype) -> None:
        with pytest.raises(InvalidInputError, match="float32"):
            self.run(torch.zeros(3, 16, 4, 4, 4, dtype=dtype))

    def test_weights_in_half_precision_are_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="float32"):
            self.run(torch.zeros(3, 16, 4, 4, 4, dtype=torch.float16), dtype=torch.float16)

    @pytest.mark.parametrize("shape", [(3, 2, 2), (0, 3, 2), (3, 3)])
    def test_keys_of_another_shape_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(InvalidInputError, match="keys"):
            self.run(torch.zeros(3, 16, 4, 4, 4), np.zeros(shape, dtype=np.uint32))

    @pytest.mark.parametrize("name", ["perceive_weight", "dense_in.weight", "norm_scale", "dense_out.weight"])
    def test_a_weight_that_is_no_number_shows_in_the_result(self, core: ModuleType, name: str) -> None:
        from nca.engine.native.training import run_level

        task = Task(3, (4, 4, 4))
        level = task.model(torch.float32).level(0)
        with torch.no_grad():
            level.get_parameter(name).fill_(torch.nan)
        out = run_level(level, task.state(torch.float32), task.firing.keys(0, 3), fire_rate=0.5, threads=2)
        assert torch.isnan(out.sum())
        out.sum().backward()

"""Runs a network with the C++ kernels: no torch, a fraction of its time, bounded memory."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from nca.engine import LOW_PRECISION, Progress, ProgressCallback
from nca.engine.native import _core
from nca.engine.native.packing import CHANNEL_QUANTUM, pack_level, padded
from nca.engine.native.plan import LevelPlan, Plan, make_plan
from nca.ensemble import check_image
from nca.errors import ImageTooLargeError
from nca.network import FloatArray, Network
from nca.pyramid import pyramid
from nca.randomness import fire_threshold, stream_key
from nca.weights import validate

BEST = ""
"""In place of an instruction set's name."""
ReportStep = Callable[[int], None]
"""Told how many of the member's steps are done; raising stops the member there."""


class NativeEngine:
    """Runs members side by side, or shares out the rows of one where memory is short; same bits either way.

    Args:
        threads: 0 means all cores.
        memory_budget: bytes for the states of all members that run at once; past it they are streamed from files.
        low_precision: dense layers on bfloat16, summed in float32; needs a processor that has the instructions.
    """

    def __init__(self, *, threads: int = 0, memory_budget: int, low_precision: bool = False) -> None:
        self.name = LOW_PRECISION if low_precision else "native"
        self._threads = threads or os.cpu_count() or 1
        self._memory_budget = memory_budget
        self._low_precision = low_precision

    def exact(self) -> NativeEngine:
        """The same in float32."""
        return NativeEngine(threads=self._threads, memory_budget=self._memory_budget) if self._low_precision else self

    def run(
        self,
        network: Network,
        image: FloatArray,
        *,
        seed: int,
        members: Sequence[int],
        on_progress: ProgressCallback | None = None,
    ) -> Iterator[FloatArray]:
        """Yield each member's probabilities, as `nca.engine.Engine` says.

        Raises:
            InvalidInputError, InvalidArchitectureError: the image or the weights are not what they should be.
            ImageTooSmallError, ImageTooLargeError: before any work is done.
        """
        check_image(network, image)
        validate(network.architecture, network.weights)
        x, y, z = image.shape[1:]
        folder = Path(tempfile.gettempdir())
        plan = make_plan(
            network.architecture,
            (x, y, z),
            members=max(1, len(members)),
            threads=self._threads,
            memory_budget=self._memory_budget,
            folder=folder,
        )
        job = _Job(network, image, plan, seed=seed, low_precision=self._low_precision)
        progress = _Progress(len(members), network.architecture.total_steps, on_progress)
        with ExitStack() as files:
            lanes = [_Lane(job, files) for _ in range(plan.lanes)]
            if len(lanes) == 1:
                yield from _one_after_another(lanes[0], members, progress)
            else:
                yield from _side_by_side(lanes, members, progress)


class _Job:
    """What all members share."""

    def __init__(self, network: Network, image: FloatArray, plan: Plan, *, seed: int, low_precision: bool) -> None:
        self.architecture = network.architecture
        self.plan = plan
        self.images = [np.ascontiguousarray(one) for one in pyramid(network.architecture, image)]
        self.threshold = fire_threshold(network.architecture.fire_rate)
        self.channels = padded(network.architecture.channels, CHANNEL_QUANTUM)
        self.seed = seed
        packed = (pack_level(network, index) for index in range(len(network.architecture.levels)))
        self.levels = [
            _core.Level(BEST, one.perceive, one.dense_in, one.bias, one.dense_out, low_precision) for one in packed
        ]

    def keys(self, member: int, level: int, steps: range) -> list[tuple[int, int]]:
        """The keys of these steps' fire masks."""
        return [stream_key(seed=self.seed, member=member, level=level, step=step) for step in steps]


class _Lane:
    """Runs one member after another on states of its own."""

    def __init__(self, job: _Job, files: ExitStack) -> None:
        self._job = job
        self._team = _core.Team(job.plan.threads)
        self._workspace = _core.Workspace()
        self._states = [self._state(level, files) for level in job.plan.levels]

    def _state(self, level: LevelPlan, files: ExitStack) -> _core.State:
        """A level's states, in memory or in a file of their own."""
        channels = self._job.channels
        if not self._job.plan.streamed:
            return _core.State(level.grid, channels, level.reach)
        try:
            return _core.State(level.grid, channels, level.reach, _open_states(files))
        except OSError as error:  # somebody else took the room since the plan was made
            raise ImageTooLargeError(f"no room for {level.states} bytes of states: {error.strerror}") from error

    def run(self, member: int, report: ReportStep) -> FloatArray:
        """One member's probabilities (segments, x, y, z)."""
        job, done = self._job, 0
        for index, (level, state) in enumerate(zip(job.architecture.levels, self._states, strict=True)):
            if index == 0:
                state.seed(self._team, job.images[0])
            else:
                scale = job.architecture.levels[index - 1].scale
                state.refine(self._team, self._states[index - 1], job.images[index], scale)
            self._update(index, member, partial(_after, done, report))
            done += level.steps
        out = np.empty((job.architecture.outputs, *job.plan.levels[-1].grid), np.float32)
        self._states[-1].probabilities(self._team, job.architecture.inputs, out)
        return out

    def _update(self, index: int, member: int, report: ReportStep) -> None:
        """All steps of one level."""
        job, steps = self._job, self._job.architecture.levels[index].steps
        for first in range(0, steps, job.plan.levels[index].steps_per_pass):
            taken = range(first, min(steps, first + job.plan.levels[index].steps_per_pass))
            _core.sweep(
                self._team,
                self._workspace,
                job.levels[index],
                self._states[index],
                first,
                job.keys(member, index, taken),
                job.threshold,
                partial(_after, first, report),
            )


def _after(earlier: int, report: ReportStep, steps: int) -> None:
    report(earlier + steps)


def _open_states(files: ExitStack) -> int:
    """Descriptor of a file that vanishes when it is closed, or with the process."""
    return files.enter_context(tempfile.TemporaryFile()).fileno()


class _Progress:
    """Adds up the steps of members that may run at the same time; told and telling in the caller's thread."""

    def __init__(self, members: int, steps: int, callback: ProgressCallback | None) -> None:
        self._done = [0] * members
        self._steps = steps
        self._callback = callback

    def __call__(self, position: int, done: int) -> None:
        """``done`` steps of the member at ``position`` are done."""
        self._done[position] = done
        if self._callback is not None:
            member, step = divmod(sum(self._done), self._steps)
            if member and not step:  # the end of a member, not the beginning of the next
                member, step = member - 1, self._steps
            self._callback(Progress(member, len(self._done), step, self._steps))


def _one_after_another(lane: _Lane, members: Sequence[int], progress: _Progress) -> Iterator[FloatArray]:
    for position, member in enumerate(members):
        yield lane.run(member, partial(progress, position))


@dataclass(frozen=True, eq=False)
class _Event:
    """What a lane tells: steps done, and a member's result or what went wrong."""

    position: int
    done: int = 0
    result: FloatArray | None = None
    error: BaseException | None = None


class _StoppedError(Exception):
    """The run was given up while a lane was at work."""


class _Crew:
    """Lanes at work in threads of their own; each takes the next member. What they tell comes as events."""

    def __init__(self, lanes: Sequence[_Lane], members: Sequence[int]) -> None:
        self.events: SimpleQueue[_Event] = SimpleQueue()
        self._members = members
        self._positions = iter(range(len(members)))
        self._taking = threading.Lock()
        self._stop = threading.Event()
        self._room = threading.Semaphore(2 * len(lanes))  # results that wait for the caller take memory
        self._threads = [threading.Thread(target=self._work, args=(lane,), daemon=True) for lane in lanes]

    def __enter__(self) -> _Crew:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for _thread in self._threads:
            self._room.release()
        for thread in self._threads:
            thread.join()

    def taken(self) -> None:
        """The caller has taken a result: there is room for another."""
        self._room.release()

    def _work(self, lane: _Lane) -> None:
        while (position := self._next()) is not None:
            try:
                result = lane.run(self._members[position], partial(self._report, position))
            except _StoppedError:
                return
            except BaseException as error:
                self.events.put(_Event(position, error=error))
                return
            self.events.put(_Event(position, result=result))

    def _next(self) -> int | None:
        self._room.acquire()
        with self._taking:
            return None if self._stop.is_set() else next(self._positions, None)

    def _report(self, position: int, done: int) -> None:
        if self._stop.is_set():
            raise _StoppedError
        self.events.put(_Event(position, done))


def _side_by_side(lanes: Sequence[_Lane], members: Sequence[int], progress: _Progress) -> Iterator[FloatArray]:
    results: dict[int, FloatArray] = {}
    with _Crew(lanes, members) as crew:
        for position in range(len(members)):
            while position not in results:
                event = crew.events.get()
                if event.error is not None:
                    raise event.error
                if event.result is not None:
                    results[event.position] = event.result
                else:
                    progress(event.position, event.done)
            yield results.pop(position)
            crew.taken()

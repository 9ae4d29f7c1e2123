"""Whether to try again, and when: growing pauses with jitter, until patience or time is over."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import httpx

from ncagate.client.errors import (
    NcagateError,
    NotUnderstoodError,
    ProblemError,
    WaitTimeoutError,
    fault_of,
    passes,
    problem_of,
)
from ncagate.client.steps import Call, Flow, Send, Sleep

FIRST_S = 0.25
LONGEST_S = 15.0
"""Pauses double from one to the other; each is cut by a random half, so that clients do not come all at once."""


@dataclass(frozen=True)
class Deadline:
    """A moment of the monotonic clock; None: never."""

    at: float | None = None

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """So many seconds from now."""
        return cls(None if seconds is None else time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds until then, 0 at least."""
        return float("inf") if self.at is None else max(self.at - time.monotonic(), 0.0)

    def check(self, job: str) -> None:
        """Raise `WaitTimeoutError` where it is over."""
        if self.left() <= 0:
            raise WaitTimeoutError(f"the job {job} has not ended in time; it goes on", job=job)


class Trials:
    """Attempts at one thing. ``patience_s`` counts from the first that failed: a long upload costs none of it."""

    def __init__(self, patience_s: float, deadline: Deadline | None = None) -> None:
        self._patience_s, self._deadline = patience_s, deadline or Deadline()
        self._failed, self._until = 0, Deadline()

    def worked(self) -> None:
        """Something came through: what fails next, fails for the first time."""
        self._failed, self._until = 0, Deadline()

    def pause(self, error: NcagateError) -> Flow[None]:
        """Wait before another attempt.

        Raises:
            NcagateError: ``error`` itself, where another would be of no use or comes too late.
        """
        if not self._failed:
            self._until = Deadline.after(self._patience_s)
        seconds = min(FIRST_S * 2**self._failed, LONGEST_S) * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
        if isinstance(error, ProblemError) and error.retry_after is not None:
            seconds = max(seconds, error.retry_after)
        if not passes(error) or seconds > min(self._until.left(), self._deadline.left()):
            raise error
        self._failed += 1
        yield Sleep(seconds)

    def send(self, call: Call) -> Flow[httpx.Response]:
        """The answer, which is no problem, after as many attempts as it takes.

        Raises:
            NcagateError: a problem, or no answer.
        """
        while True:
            try:
                return (yield from once(call))
            except NcagateError as error:
                yield from self.pause(error)


def once(call: Call) -> Flow[httpx.Response]:
    """The answer to one attempt; raises as `Trials.send`."""
    try:
        response: httpx.Response = yield Send(call)
    except httpx.RequestError as error:
        raise fault_of(error) from error
    if response.is_success:
        return response
    if response.is_redirect:  # a key goes where it was sent, and nowhere else
        raise NotUnderstoodError(f"the answer leads elsewhere (status {response.status_code}): is the address right?")
    raise problem_of(response, retry_after=_seconds(response))


def _seconds(response: httpx.Response) -> float | None:
    """Of `Retry-After`, where it is a number; ncagate gives no dates."""
    try:
        return max(float(response.headers["retry-after"]), 0.0)
    except (KeyError, ValueError):
        return None

"""The client that waits."""

from __future__ import annotations

import ssl
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

import httpx

from ncagate.client.connection import PATIENCE_S, Connection
from ncagate.client.flows import Flows, Submission
from ncagate.client.outcome import Outcome, image_of
from ncagate.client.patience import Deadline
from ncagate.client.scans import ScanPath
from ncagate.client.steps import Do, Emit, Flow, Read, Send, Sleep, Step
from ncagate.client.types import Job, Model, Part, State, Submitting

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

T = TypeVar("T")


class Client:
    """Talks to one service; threads may share it. It is closed by ``with`` or `close`.

    Args:
        url: address of the service; default: ``NCAGATE_URL``, or this machine.
        key: an API key or a token; default: ``NCAGATE_KEY``, or none.
        verify: certificates (PEM file) to trust in place of the usual ones, or a context of one's own.
        patience: for how long one goes on trying after a first failure, in seconds.

    Everything raises `NcagateError` (ncagate/client/errors.py).
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        verify: ScanPath | ssl.SSLContext | None = None,
        patience: float = PATIENCE_S,
    ) -> None:
        self._flows = Flows(patience)
        self._http = httpx.Client(**Connection(url, key, verify).options())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    @overload
    def segment(
        self,
        scan: ScanPath | Sequence[ScanPath],
        *,
        model: str,
        wait: Literal[True] = True,
        **options: Unpack[Submitting],
    ) -> Result: ...

    @overload
    def segment(
        self, scan: ScanPath | Sequence[ScanPath], *, model: str, wait: Literal[False], **options: Unpack[Submitting]
    ) -> Job: ...

    def segment(
        self, scan: ScanPath | Sequence[ScanPath], *, model: str, wait: bool = True, **options: Unpack[Submitting]
    ) -> Result | Job:
        """Send a scan; its result, or with ``wait=False`` its job as soon as the service has it.

        ``scan``: a NIfTI file, a zip, a folder of a DICOM series, or the files of one; ``options``: `Submitting`.

        Raises:
            ScanError: there is no such file.
            JobFailedError, JobCancelledError: the job has no result.
            WaitTimeoutError: it has not ended in time.
        """
        submission = Submission.of(scan, model, options)
        if not wait:
            return self._run(self._flows.submit(submission))
        return Result(self._run(self._flows.segment(submission)), self)

    def job(self, job: str) -> Job:
        """A job as it stands."""
        return self._run(self._flows.job(job))

    def jobs(self, *, state: State | None = None) -> Iterator[Job]:
        """Every job, newest first; pages are fetched as one goes on."""
        return self._iterate(self._flows.jobs(state=state))

    def watch(self, job: str, *, timeout: float | None = None) -> Iterator[Job]:
        """The job at every change, until it has ended."""
        return self._iterate(self._flows.watch(job, Deadline.after(timeout)))

    def result(self, job: str, *, timeout: float | None = None) -> Result:
        """The result of a job that was submitted before, when it has ended; raises as `segment`."""
        return Result(self._run(self._flows.watch(job, Deadline.after(timeout))), self)

    def cancel(self, job: str) -> Job:
        """Cancel a job that has not ended, and leave one that has as it is."""
        return self._run(self._flows.cancel(job))

    def erase(self, job: str, *, timeout: float | None = None) -> None:
        """Erase a job with its scan and results; one that has not ended is cancelled first."""
        self._run(self._flows.erase(job, Deadline.after(timeout)))

    def models(self) -> tuple[Model, ...]:
        """All models with their versions."""
        return self._run(self._flows.models())

    def model(self, name: str) -> Model:
        """One model with its versions."""
        return self._run(self._flows.model(name))

    def health(self, name: str) -> dict[str, Any]:
        """Whether a model still sees what it knows: drift of its versions, and candidates in their shadow."""
        return self._run(self._flows.health(name))

    def manifest(self, model: str, version: str) -> dict[str, Any]:
        """The manifest of a version: architecture, input contract, training, metrics, calibration."""
        return self._run(self._flows.manifest(model, version))

    def _run(self, flow: Flow[T]) -> T:
        """What the flow returns; what it emits is passed over."""
        work = _Work(self._http, flow)
        for _ in work.emitted():
            pass
        result: T = work.result
        return result

    def _iterate(self, flow: Flow[Any]) -> Iterator[Any]:
        yield from _Work(self._http, flow).emitted()


class Result(Outcome):
    """A verdict and its figures; mask and other files on request."""

    def __init__(self, job: Job, client: Client) -> None:
        super().__init__(job)
        self._client = client

    def mask(self) -> Nifti1Image:
        """The mask on the scan's own grid, as an image of nibabel (which has to be installed)."""
        return image_of(self.read(Part.MASK))

    def preview(self) -> bytes:
        """Three planes with mask, uncertainty and verdict, as PNG."""
        return self.read(Part.PREVIEW)

    def report(self) -> dict[str, Any]:
        """Verdict and figures, as JSON."""
        return self._client._run(self._client._flows.report(self.job.id))

    def read(self, part: Part) -> bytes:
        """One of the job's files, in memory."""
        return self._client._run(self._client._flows.read(self.job.id, part))

    def save(self, where: ScanPath, part: Part = Part.MASK, *, name: str | None = None) -> Path:
        """Stream a file to the disk; where it is now.

        ``where`` is a folder (there, or written with a `/` at its end) or the file itself; in a folder it is called by
        ``name``, by default the job's identifier. It appears when it is whole.
        """
        return self._client._run(self._client._flows.save(self.job.id, part, where, name=name))

    def save_all(self, folder: ScanPath, *, name: str | None = None) -> list[Path]:
        """Every file that the job has, as `save` does it."""
        return self._client._run(self._client._flows.save_all(self.job.id, folder, name=name))


class _Work:
    """Takes the steps of a flow, and gives what it emits; ``result`` is there at its end."""

    def __init__(self, http: httpx.Client, flow: Flow[Any]) -> None:
        self._http, self._flow = http, flow
        self._open: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())
        self.result: Any = None

    def emitted(self) -> Generator[Any, None, None]:
        answer, error = None, None
        try:
            while True:
                step = self._flow.send(answer) if error is None else self._flow.throw(error)
                answer, error = None, None
                if isinstance(step, Emit):
                    yield step.value
                    continue
                try:
                    answer = self._take(step)
                except Exception as raised:
                    error = raised
        except StopIteration as end:
            self.result = end.value
        finally:
            self._flow.close()
            self._close()

    def _take(self, step: Step) -> Any:
        match step:
            case Send(call):
                return self._send(call.build(self._http), stream=call.stream)
            case Read():
                return next(self._chunks, None)
            case Sleep(seconds):
                return time.sleep(seconds)
            case Do(work):
                return work()

    def _send(self, request: httpx.Request, *, stream: bool) -> httpx.Response:
        self._close()
        response = self._http.send(request, stream=True)
        if stream and response.is_success:
            self._open, self._chunks = response, response.iter_raw()
            return response
        try:
            response.read()
        finally:
            response.close()
        return response

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

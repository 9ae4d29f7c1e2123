"""The client that awaits, by asyncio: `Client` with every call to be awaited."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
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


class AsyncClient:
    """`ncagate.client.Client` for asyncio; tasks may share it. It is closed by ``async with`` or `close`.

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
        self._http = httpx.AsyncClient(**Connection(url, key, verify).options())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    @overload
    async def segment(
        self,
        scan: ScanPath | Sequence[ScanPath],
        *,
        model: str,
        wait: Literal[True] = True,
        **options: Unpack[Submitting],
    ) -> AsyncResult: ...

    @overload
    async def segment(
        self, scan: ScanPath | Sequence[ScanPath], *, model: str, wait: Literal[False], **options: Unpack[Submitting]
    ) -> Job: ...

    async def segment(
        self, scan: ScanPath | Sequence[ScanPath], *, model: str, wait: bool = True, **options: Unpack[Submitting]
    ) -> AsyncResult | Job:
        """Send a scan; its result, or with ``wait=False`` its job as soon as the service has it.

        ``scan``: a NIfTI file, a zip, a folder of a DICOM series, or the files of one; ``options``: `Submitting`.

        Raises:
            ScanError: there is no such file.
            JobFailedError, JobCancelledError: the job has no result.
            WaitTimeoutError: it has not ended in time.
        """
        submission = Submission.of(scan, model, options)
        if not wait:
            return await self._run(self._flows.submit(submission))
        return AsyncResult(await self._run(self._flows.segment(submission)), self)

    async def job(self, job: str) -> Job:
        """A job as it stands."""
        return await self._run(self._flows.job(job))

    def jobs(self, *, state: State | None = None) -> AsyncIterator[Job]:
        """Every job, newest first; pages are fetched as one goes on."""
        return self._iterate(self._flows.jobs(state=state))

    def watch(self, job: str, *, timeout: float | None = None) -> AsyncIterator[Job]:
        """The job at every change, until it has ended."""
        return self._iterate(self._flows.watch(job, Deadline.after(timeout)))

    async def result(self, job: str, *, timeout: float | None = None) -> AsyncResult:
        """The result of a job that was submitted before, when it has ended; raises as `segment`."""
        return AsyncResult(await self._run(self._flows.watch(job, Deadline.after(timeout))), self)

    async def cancel(self, job: str) -> Job:
        """Cancel a job that has not ended, and leave one that has as it is."""
        return await self._run(self._flows.cancel(job))

    async def erase(self, job: str, *, timeout: float | None = None) -> None:
        """Erase a job with its scan and results; one that has not ended is cancelled first."""
        await self._run(self._flows.erase(job, Deadline.after(timeout)))

    async def models(self) -> tuple[Model, ...]:
        """All models with their versions."""
        return await self._run(self._flows.models())

    async def model(self, name: str) -> Model:
        """One model with its versions."""
        return await self._run(self._flows.model(name))

    async def health(self, name: str) -> dict[str, Any]:
        """Whether a model still sees what it knows: drift of its versions, and candidates in their shadow."""
        return await self._run(self._flows.health(name))

    async def manifest(self, model: str, version: str) -> dict[str, Any]:
        """The manifest of a version: architecture, input contract, training, metrics, calibration."""
        return await self._run(self._flows.manifest(model, version))

    async def _run(self, flow: Flow[T]) -> T:
        """What the flow returns; what it emits is passed over."""
        work = _Work(self._http, flow)
        async for _ in work.emitted():
            pass
        result: T = work.result
        return result

    async def _iterate(self, flow: Flow[Any]) -> AsyncIterator[Any]:
        async with aclosing(_Work(self._http, flow).emitted()) as emitted:
            async for one in emitted:
                yield one


class AsyncResult(Outcome):
    """A verdict and its figures; mask and other files on request."""

    def __init__(self, job: Job, client: AsyncClient) -> None:
        super().__init__(job)
        self._client = client

    async def mask(self) -> Nifti1Image:
        """The mask on the scan's own grid, as an image of nibabel (which has to be installed)."""
        return image_of(await self.read(Part.MASK))

    async def preview(self) -> bytes:
        """Three planes with mask, uncertainty and verdict, as PNG."""
        return await self.read(Part.PREVIEW)

    async def report(self) -> dict[str, Any]:
        """Verdict and figures, as JSON."""
        return await self._client._run(self._client._flows.report(self.job.id))

    async def read(self, part: Part) -> bytes:
        """One of the job's files, in memory."""
        return await self._client._run(self._client._flows.read(self.job.id, part))

    async def save(self, where: ScanPath, part: Part = Part.MASK, *, name: str | None = None) -> Path:
        """Stream a file to the disk; where it is now.

        ``where`` is a folder (there, or written with a `/` at its end) or the file itself; in a folder it is called by
        ``name``, by default the job's identifier. It appears when it is whole.
        """
        return await self._client._run(self._client._flows.save(self.job.id, part, where, name=name))

    async def save_all(self, folder: ScanPath, *, name: str | None = None) -> list[Path]:
        """Every file that the job has, as `save` does it."""
        return await self._client._run(self._client._flows.save_all(self.job.id, folder, name=name))


class _Work:
    """Takes the steps of a flow, and gives what it emits; ``result`` is there at its end."""

    def __init__(self, http: httpx.AsyncClient, flow: Flow[Any]) -> None:
        self._http, self._flow = http, flow
        self._open: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self.result: Any = None

    async def emitted(self) -> AsyncGenerator[Any, None]:
        answer, error = None, None
        try:
            while True:
                step = self._flow.send(answer) if error is None else self._flow.throw(error)
                answer, error = None, None
                if isinstance(step, Emit):
                    yield step.value
                    continue
                try:
                    answer = await self._take(step)
                except Exception as raised:
                    error = raised
        except StopIteration as end:
            self.result = end.value
        finally:
            self._flow.close()
            await self._close()

    async def _take(self, step: Step) -> Any:
        match step:
            case Send(call):
                return await self._send(call.build(self._http), stream=call.stream)
            case Read():
                return None if self._chunks is None else await anext(self._chunks, None)
            case Sleep(seconds):
                return await asyncio.sleep(seconds)
            case Do(work):
                return await asyncio.to_thread(work)

    async def _send(self, request: httpx.Request, *, stream: bool) -> httpx.Response:
        await self._close()
        if isinstance(request.stream, httpx.SyncByteStream):
            request.stream = _Threaded(request.stream)
        response = await self._http.send(request, stream=True)
        if stream and response.is_success:
            self._open, self._chunks = response, response.aiter_raw()
            return response
        try:
            await response.aread()
        finally:
            await response.aclose()
        return response

    async def _close(self) -> None:
        if self._open is not None:
            await self._open.aclose()
            self._open = self._chunks = None


class _Threaded(httpx.AsyncByteStream):
    """A body that is read from the disk in a thread."""

    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks: Iterator[bytes] = iter(self._stream)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk

"""What can be asked of the service, each a flow of steps: what is sent, what is made of the answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from uuid import uuid4

import httpx

from ncagate.client.errors import (
    NcagateError,
    NoAnswerError,
    NotFoundError,
    NotUnderstoodError,
    RejectedError,
    fault_of,
)
from ncagate.client.events import EventReader
from ncagate.client.files import fetch_bytes, fetch_to, target_of
from ncagate.client.patience import Deadline, Trials, once
from ncagate.client.scans import Scan, ScanPath, find_scan
from ncagate.client.steps import KEEP_ALIVE_S, SILENCE_S, Call, Do, Emit, Flow, Read
from ncagate.client.types import (
    Job,
    Model,
    Options,
    Page,
    Part,
    Progress,
    State,
    Submitting,
    job_from,
    model_from,
    models_from,
    reading,
)

PAGE = 100
ERASED = "erased"
NOT_OFFERED = "not_acceptable"


@dataclass(frozen=True)
class Submission:
    """A scan and what is wanted of it; ``key`` is the idempotency key of all attempts."""

    source: ScanPath | Sequence[ScanPath]
    form: Mapping[str, str]
    key: str
    progress: Progress | None
    deadline: Deadline

    @classmethod
    def of(cls, source: ScanPath | Sequence[ScanPath], model: str, submitting: Submitting) -> Submission:
        """The time begins to run."""
        key = submitting.get("idempotency_key") or str(uuid4())
        deadline = Deadline.after(submitting.get("timeout"))
        fields = {name: submitting.get(name) for name in sorted(Options.__optional_keys__)}
        form = {"model": model} | {name: str(value) for name, value in fields.items() if value is not None}
        return cls(source, form, key, submitting.get("progress"), deadline)


@dataclass(frozen=True)
class Flows:
    """The service as flows. ``patience_s``: for how long one goes on trying after a first failure, in seconds."""

    patience_s: float

    def submit(self, submission: Submission) -> Flow[Job]:
        """Send a scan; however often it is sent again, there is one job."""
        scan: Scan = yield Do(lambda: find_scan(submission.source))
        headers = {"Idempotency-Key": submission.key, "Prefer": "respond-async"}
        call = Call("POST", "/segment", headers=headers, form=submission.form, scan=scan, progress=submission.progress)
        response = yield from Trials(self.patience_s, submission.deadline).send(call)
        return reading(job_from, _json(response))

    def segment(self, submission: Submission) -> Flow[Job]:
        """Send a scan, and follow its job to the end."""
        job = yield from self.submit(submission)
        return job if job.ended else (yield from self.watch(job.id, submission.deadline))

    def job(self, job: str) -> Flow[Job]:
        """A job as it stands."""
        return reading(job_from, (yield from self._get(_address(job))))

    def watch(self, job: str, deadline: Deadline) -> Flow[Job]:
        """Emit the job at every change, and return it when it has ended. A stream that breaks is opened again."""
        trials, last = Trials(self.patience_s, deadline), None
        while True:
            deadline.check(job)
            silence_s = min(SILENCE_S, max(deadline.left(), 0.1))
            call = Call("GET", f"{_address(job)}/events", headers={"Accept": "text/event-stream"}, stream=True)
            stream = yield from trials.send(Call(**(vars(call) | {"silence_s": silence_s})))
            reader = EventReader()
            try:
                while (data := (yield Read(stream))) is not None:
                    trials.worked()
                    for event in reader.feed(data):
                        if event.name == ERASED:
                            raise NotFoundError("job_not_found", "the job was erased", job=job)
                        now = reading(job_from, _parsed(event.data))
                        if now != last:
                            last = now
                            yield Emit(now)
                        if now.ended:
                            return now
                    if deadline.left() < KEEP_ALIVE_S < silence_s:
                        break  # a stream that may be silent for longer than is left: another one, with less patience
                else:
                    yield from trials.pause(NoAnswerError("the stream of events ended too early"))
            except httpx.TransportError as error:
                deadline.check(job)
                yield from trials.pause(fault_of(error))

    def jobs(self, *, state: State | None, page: int = PAGE) -> Flow[None]:
        """Emit every job, newest first."""
        params: dict[str, str | int] = {"limit": page} | ({} if state is None else {"state": state})
        while True:
            here = reading(_page, (yield from self._get("/jobs", params)))
            for one in here.jobs:
                yield Emit(one)
            if here.before is None:
                return
            params["before"] = here.before

    def cancel(self, job: str) -> Flow[Job]:
        """Have a job cancelled that has not ended; the job as it then stands.

        Each attempt looks first: `DELETE` erases a job that has ended, and an answer that was lost may have been that
        to the first `DELETE`.

        Raises:
            NotFoundError: there is no such job; or it ended in the very moment between, and is erased.
        """
        trials = Trials(self.patience_s)
        while True:
            now = yield from self.job(job)
            if now.ended:
                return now
            try:
                response = yield from once(Call("DELETE", _address(job)))
            except NcagateError as error:
                yield from trials.pause(error)
                continue
            if response.status_code == httpx.codes.NO_CONTENT:
                raise NotFoundError("job_not_found", "it ended before it was cancelled, and is erased", job=job)
            return reading(job_from, _json(response))

    def erase(self, job: str, deadline: Deadline) -> Flow[None]:
        """Erase a job, its scan and its results; one that has not ended is cancelled first.

        Raises:
            WaitTimeoutError: a worker did not let go of it in time.
        """
        trials, asked = Trials(self.patience_s), False
        while True:
            try:
                response = yield from once(Call("DELETE", _address(job)))
            except NotFoundError:
                if asked:
                    return
                raise
            except NcagateError as error:
                asked = True
                yield from trials.pause(error)
                continue
            if response.status_code == httpx.codes.NO_CONTENT:
                return
            yield from self.watch(job, deadline)

    def models(self) -> Flow[tuple[Model, ...]]:
        """All models."""
        return reading(models_from, (yield from self._get("/models")))

    def model(self, name: str) -> Flow[Model]:
        """One model."""
        return reading(model_from, (yield from self._get(f"/models/{quote(name, safe='')}")))

    def health(self, name: str) -> Flow[dict[str, Any]]:
        """Whether a model still sees what it knows, as JSON."""
        return reading(dict, (yield from self._get(f"/models/{quote(name, safe='')}/health")))

    def manifest(self, name: str, version: str) -> Flow[dict[str, Any]]:
        """The manifest of a version, as JSON."""
        path = f"/models/{quote(name, safe='')}/versions/{quote(version, safe='')}"
        return reading(dict, (yield from self._get(path)))

    def report(self, job: str) -> Flow[dict[str, Any]]:
        """Verdict and figures, as JSON."""
        return reading(dict, (yield from self._get(f"{_address(job)}/report")))

    def read(self, job: str, part: Part) -> Flow[bytes]:
        """A file of the job."""
        return (yield from fetch_bytes(job, part, Trials(self.patience_s)))

    def save(self, job: str, part: Part, where: ScanPath, *, name: str | None = None) -> Flow[Path]:
        """A file of the job on the disk; ``name`` is what it begins with in a folder, by default the identifier."""
        target = target_of(where, part, name=name or job)
        return (yield from fetch_to(job, part, target, Trials(self.patience_s)))

    def save_all(self, job: str, folder: ScanPath, *, name: str | None = None) -> Flow[list[Path]]:
        """Every file that the job has, in ``folder``, which is made where it is not there."""
        yield Do(lambda: Path(folder).mkdir(parents=True, exist_ok=True))
        saved = []
        for part in Part:
            try:
                saved.append((yield from self.save(job, part, folder, name=name)))
            except RejectedError as error:
                if error.code != NOT_OFFERED:  # the scan was no DICOM series
                    raise
        return saved

    def _get(self, path: str, params: Mapping[str, str | int] | None = None) -> Flow[Any]:
        response = yield from Trials(self.patience_s).send(Call("GET", path, params=params or {}))
        return _json(response)


def _address(job: str) -> str:
    return f"/jobs/{quote(job, safe='')}"


def _json(response: httpx.Response) -> Any:
    return _parsed(response.content)


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise NotUnderstoodError("the answer is no JSON: is this an ncagate?") from None


def _page(body: Mapping[str, Any]) -> Page:
    """Of the link to the next page only the place is taken: a key is never sent where an answer says."""
    query = parse_qs(urlsplit(body["next"]).query) if body["next"] else {"before": [None]}
    return Page(tuple(job_from(one) for one in body["jobs"]), query["before"][0])

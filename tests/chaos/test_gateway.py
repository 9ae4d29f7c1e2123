"""A gateway killed while it receives, answers and follows."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.chaos.client import ANSWER_S
from tests.chaos.processes import until
from tests.chaos.rig import Rig

HEAD = (
    b"POST /segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10000000\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    b'--x\r\nContent-Disposition: form-data; name="scan"; filename="scan.nii.gz"\r\n\r\n'
)


class TestKill:
    def test_in_the_middle_of_an_upload(self, rig: Rig) -> None:
        port = int(rig.client.urls[0].rpartition(":")[2])
        scratch = rig.data / "blobs" / "tmp"
        with socket.create_connection(("127.0.0.1", port), ANSWER_S) as upload:
            upload.sendall(HEAD + bytes(5_000_000))
            until(lambda: any(scratch.glob("*/0000")), ANSWER_S, "the upload has begun")
            rig.note("kill -9 of a gateway in the middle of an upload")
            rig.fleet.kill("gateway-0")
        assert list(scratch.glob("*/0000"))
        assert rig.ledger.states() == {}
        rig.revive("gateway-0")
        rig.settle()

    @pytest.mark.parametrize(("point", "rows"), [("stored", 0), ("queued", 1)])
    def test_before_it_has_answered(self, rig: Rig, point: str, rows: int) -> None:
        rig.order(point)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(rig.client.post)
            assert rig.wait_held(point) == [rig.fleet.parts["gateway-0"].pid]
            rig.note(f"kill -9 of a gateway, a job {point} but not answered")
            rig.fleet.kill("gateway-0")
            assert answer.result() is None
        rig.release(point)
        assert len(rig.ledger.states()) == rows
        rig.revive("gateway-0")
        rig.settle()

    def test_while_a_client_follows_a_job(self, rig: Rig) -> None:
        with rig.held("segment") as held:
            events = f"{rig.client.urls[0]}/jobs/{held.job_id}/events"
            with httpx.stream("GET", events, timeout=ANSWER_S) as stream:
                lines = stream.iter_lines()
                assert next(lines) == "event: job"
                rig.note("kill -9 of a gateway while a client follows a job")
                rig.fleet.kill("gateway-0")
                with pytest.raises(httpx.TransportError):
                    list(lines)
        until(lambda: rig.ledger.states()[held.job_id] == "succeeded", ANSWER_S, "the job ends without a gateway")
        rig.revive("gateway-0")
        assert rig.client.job(held.job_id)["attempt"] == 1
        rig.settle()

    def test_of_every_gateway_while_jobs_run_and_wait(self, rig: Rig) -> None:
        for seed in range(6):
            rig.client.submit(seed % 4)
        for name in ("gateway-0", "gateway-1"):
            rig.note("kill -9 of every gateway")
            rig.fleet.kill(name)
        for name in ("gateway-0", "gateway-1"):
            rig.revive(name)
        rig.settle()

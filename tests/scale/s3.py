"""An S3 server of the tests' own (moto's, a real HTTP server), behind a network that can fail."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import boto3
import httpx

from tests.chaos.processes import Fleet, Part, until
from tests.chaos.proxy import FaultProxy
from tests.chaos.servers import free_port

START_S = 60.0
KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "of the tests", "AWS_DEFAULT_REGION": "us-east-1"}


class S3Server:
    """What it holds is in its memory; ``network`` is between it and everybody but the tests."""

    def __init__(self, fleet: Fleet, log: Path) -> None:
        self.port = free_port()
        command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._part = fleet.add(Part("s3", command, log=log, environment=KEYS))
        until(self._answers, START_S, "the S3 server answers")
        self.network = FaultProxy(self.port)
        self.environment = {**KEYS, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.network.port}"}
        self._client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name=KEYS["AWS_DEFAULT_REGION"],
        )

    def bucket(self) -> str:
        """The name of a new and empty bucket."""
        name = f"test-{uuid4().hex}"
        self._client.create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str) -> list[str]:
        """All that it holds."""
        return [one["Key"] for one in self._client.list_objects_v2(Bucket=bucket).get("Contents", ())]

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write an object past everything."""
        self._client.put_object(Bucket=bucket, Key=key, Body=data)

    def close(self) -> None:
        """End the network; the server is the fleet's."""
        self._client.close()
        self.network.close()

    def _answers(self) -> bool:
        assert self._part.running, self._part.log.read_text()
        with suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.port}/moto-api/data.json").status_code == 200
        return False

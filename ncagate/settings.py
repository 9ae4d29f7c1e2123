"""Every setting of the deployment: one frozen object, read from ``NCAGATE_*`` environment variables."""

from __future__ import annotations

from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ncagate.bucket import checked_location
from ncagate.logs import LogFormat
from ncagate.webhook_hosts import checked_hosts

MIB = 1024 * 1024
DATABASE_NAME = "ncagate.db"
"""Of SQLite, in the data folder."""


class Settings(BaseSettings):
    """What a deployment chooses. Sizes are bytes, times are seconds."""

    model_config = SettingsConfigDict(env_prefix="NCAGATE_", frozen=True, extra="ignore")

    data: Path = Field(
        Path("ncagate-data"), description="Folder of the database, the scans, the results and the models."
    )
    database_url: str | None = Field(None, description="SQLAlchemy URL; default: SQLite in the data folder.")
    redis_url: str | None = Field(
        None,
        description="Celery's broker, a Redis or RabbitMQ; `ncagate serve` starts a private one where unset.",
    )
    blobs_url: Annotated[str | None, AfterValidator(checked_location)] = Field(
        None,
        description="Bucket of scans and results, `s3://bucket/prefix`, for machines that share no disk; "
        "unset: the data folder.",
    )
    store: Path | None = Field(None, description="Writable model store; default: `models` in the data folder.")
    store_url: Annotated[str | None, AfterValidator(checked_location)] = Field(
        None,
        description="Bucket of the model store, `s3://bucket/prefix`; `NCAGATE_STORE` is then where its versions are "
        "cached.",
    )
    pacs: Path | None = Field(
        None, description="File (TOML) of the routes that series take, and of the archives that get results."
    )
    datasets: Path | None = Field(
        None, description="Folder of the labelled datasets that may be trained on; unset: nobody trains over the API."
    )
    webhook_hosts: Annotated[str | None, AfterValidator(checked_hosts)] = Field(
        None, description="Hosts that webhooks may go to, separated by commas; unset: there are no webhooks."
    )
    webhook_secret_file: Path | None = Field(
        None,
        validate_default=True,
        description="File of the secrets that webhooks are signed with (`whsec_...`), one a line.",
    )
    log_format: LogFormat = Field("text", description="How lines of the log are written: `text` or `json`.")
    host: str = Field("127.0.0.1", description="Address the gateway binds to.")
    access: Literal["auto", "keys"] = Field(
        "auto",
        description="Who may come in: who has a key (`keys`), or anybody on this machine until the first key is made, "
        "where the gateway binds to loopback (`auto`).",
    )
    oidc_issuer: str | None = Field(None, description="OpenID provider whose tokens are taken, as in their `iss`.")
    oidc_audience: str | None = Field(None, description="Whom its tokens are for, as in their `aud`.")
    oidc_jwks: str | None = Field(None, description="Its public keys (JWKS): a file, or an address with https.")
    proxy_addresses: str | None = Field(
        None, description="Addresses or networks, separated by commas, of proxies that check client certificates."
    )
    proxy_certificate_header: str | None = Field(
        None, description="Header in which they hand the certificate on, and which they remove from what comes in."
    )
    port: int = Field(8000, ge=0, le=65535, description="Port the gateway binds to; 0 picks a free one.")

    body_bytes_max: PositiveInt = Field(512 * MIB, description="Largest request body.")
    body_rate_min: PositiveInt = Field(4096, description="Bytes a second at which a body has to come, after 30 s.")
    client_rate_max: float = Field(200.0, gt=0, description="Requests a second of one client, at each gateway.")
    client_requests_max: PositiveInt = Field(
        256, description="Requests of one client at once, streams of events included, at each gateway."
    )
    client_uploads_max: PositiveInt = Field(16, description="Uploads of one client at once, at each gateway.")
    client_queue_max: PositiveInt = Field(5000, description="Most jobs of one client that wait for a worker.")
    queue_max: PositiveInt = Field(20000, description="Most jobs that wait for a worker.")
    disk_free_min: PositiveInt = Field(512 * MIB, description="Room on the data folder's disk that uploads leave.")
    files_max: PositiveInt = Field(4096, description="Most files in one request or archive.")
    unpacked_bytes_max: PositiveInt = Field(2048 * MIB, description="Most bytes a compressed upload may unpack to.")
    voxels_max: PositiveInt = Field(128 * 1024 * 1024, description="Most voxels in one scan.")
    read_bytes_max: PositiveInt = Field(3072 * MIB, description="Most memory that reading one scan may take.")
    read_seconds_max: PositiveInt = Field(120, description="Longest that reading one scan may take.")

    engine: str = Field("auto", description="Inference engine; `auto` takes the fastest that runs here.")
    threads: int = Field(
        0,
        ge=0,
        description="CPU threads that a scan is segmented on; 0: all cores for one alone, its share among several.",
    )
    memory_budget: PositiveInt = Field(
        512 * MIB, description="Memory for automaton states per worker process; larger ones are streamed from files."
    )
    workers: int = Field(
        0, ge=0, description="Processes of a worker, which segment scans side by side; 0: one a core, as memory allows."
    )
    members_max: PositiveInt = Field(50, description="Largest ensemble a request may ask for.")
    min_dice: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Dice a mask must be predicted to reach, unless a request says otherwise; unset: the version's.",
    )
    alpha: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Largest share of failures among the accepted (rule `conformal`), unless a request says otherwise; "
        "unset: the version's.",
    )
    rule: Literal["nqm", "conformal"] = Field(
        "conformal",
        description="What an accepted mask must show: an NQM below the paper's threshold (`nqm`), "
        "or a predicted Dice with a stated risk (`conformal`).",
    )
    drift_window: int = Field(
        50, ge=10, description="How many of a version's last jobs are compared with its reference."
    )
    drift_alpha: float = Field(
        0.001, gt=0, lt=1, description="Largest chance that a version's window raises a drift alarm by chance."
    )
    shadow_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of a model's jobs that its alias `candidate` is tried on, once they are done.",
    )

    keep_days: float | None = Field(
        None,
        ge=0,
        description="Days to keep finished jobs for, unless their client has its own; unset: for ever.",
    )
    wait_max_s: float = Field(60.0, ge=0, description="Longest `Prefer: wait=N` that is honoured.")
    attempts_max: PositiveInt = Field(3, description="Attempts after which a job that keeps dying ends `failed`.")
    job_seconds_max: PositiveInt = Field(3600, description="Hard time limit of one attempt.")
    lease_s: float = Field(60.0, gt=0, description="A running job whose worker was silent for this long is taken back.")
    soft_shutdown_s: float = Field(30.0, ge=0, description="How long a stopping worker lets its task go on.")
    reconcile_s: float = Field(5.0, gt=0, description="How often rows are compared with the broker.")

    @field_validator("webhook_secret_file")
    @classmethod
    def _goes_with_hosts(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None and info.data.get("webhook_hosts") is not None:
            raise ValueError("webhook_hosts needs one: what is sent is signed")
        return value

    @cached_property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{(self.data / DATABASE_NAME).absolute()}"

    @cached_property
    def blobs(self) -> Path:
        """Folder of uploaded scans and results; where there is a bucket, of what is on its way to it."""
        return self.data / "blobs"

    @cached_property
    def models(self) -> Path:
        """Folder of the writable model store."""
        return self.store or self.data / "models"


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine and nothing that others can reach."""
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"

"""One TOML file (`NCAGATE_PACS`): who may send, which model a series goes to, and where results go.

quiet_s = 10                       # a series is complete when nothing of it came for so long

[listen]                           # DIMSE; without it `ncagate listen` takes the defaults
ae_title = "NCAGATE"
port = 11112
calling = ["PACS"]                 # application entities that may send; empty: any

[deidentify]                       # strip what arrives; see docs/pacs.md
key_file = "/run/secrets/identity_key"

[[route]]                          # the first that fits decides; patterns are regular expressions
name = "hippocampus"
modality = "MR"
series_description = ".*MPRAGE.*"
model = "hippocampus"
destinations = ["archive"]

[[destination]]
name = "archive"
kind = "stow"                      # or "cstore"
url = "https://pacs.example/dicom-web"
username = "ncagate"
password_file = "/run/secrets/pacs"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from jobs.archive import WEBHOOK
from jobs.models import LOCAL, NAME_MAX
from jobs.wish import Wish
from pacs.errors import InvalidPacsConfigError

ANY = ".*"


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
AeTitle = Annotated[str, Field(pattern=r"^[ -\[\]-~]{1,16}$")]  # DICOM part 5, table 6.2-1: no backslash, no control
Port = Annotated[int, Field(ge=1, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Tls(_Section):
    """Certificates, PEM. ``authority`` is what the other side's certificate is checked against; default: the system's.

    Of the listener: clients need a certificate of the authority where one is given.
    """

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None

    @model_validator(mode="after")
    def _no_key_alone(self) -> Tls:
        if self.key is not None and self.certificate is None:
            raise ValueError("a key goes with a certificate")
        return self


class ListenSection(_Section):
    """Where DIMSE associations are taken.

    Attributes:
        calling: titles of application entities that may send; empty for any.
        any_called: whether an association may name another title than ours.
        associations: most at once.
        instance_bytes: largest object.
        idle_s: seconds after which a silent association is ended.
        client: whose the series are, and the jobs made of them.
    """

    ae_title: AeTitle = "NCAGATE"
    host: str = "0.0.0.0"  # noqa: S104  # an archive is another machine
    port: Annotated[int, Field(ge=0, le=65535)] = 11112
    calling: tuple[AeTitle, ...] = ()
    any_called: bool = False
    associations: PositiveInt = 8
    instance_bytes: PositiveInt = 512 * 1024 * 1024
    idle_s: PositiveFloat = 60.0
    tls: Tls | None = None
    client: Annotated[str, Field(min_length=1, max_length=NAME_MAX)] = LOCAL


class DeidentifySection(_Section):
    """What arrives is stripped of its patient's identity, which ``key_file`` locks (Fernet: 32 bytes in base64)."""

    key_file: Path


class Route(Wish):
    """What is done with a series. Patterns match the whole value, in any case; a value that is absent is empty.

    Attributes:
        sender: title of the sending application entity, or `dicomweb`.
        destinations: names of what gets the result.
    """

    name: Name
    modality: Pattern = ANY
    body_part: Pattern = ANY
    series_description: Pattern = ANY
    sender: Pattern = ANY
    destinations: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _names_no_series(self) -> Route:
        if self.series_uid is not None:
            raise ValueError("a route is for series to come, so it names none")
        return self

    def wish(self) -> Wish:
        """What it asks of the service."""
        return Wish.model_validate(self.model_dump(include=set(Wish.model_fields)))


class StowDestination(_Section):
    """An archive that takes results by STOW-RS, with no, basic or bearer authentication, and a certificate of ours.

    Attributes:
        url: of the DICOMweb service, without `/studies`.
        flagged: whether it gets flagged masks as well.
        timeout_s: of every wait for the archive: to connect, to send, to read.
    """

    kind: Literal["stow"]
    name: Name
    url: Annotated[str, Field(pattern=r"^https?://")]
    username: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None
    tls: Tls | None = None
    flagged: bool = True
    timeout_s: PositiveFloat = 60.0

    @model_validator(mode="after")
    def _one_way_to_authenticate(self) -> StowDestination:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file go together")
        if self.username is not None and self.token_file is not None:
            raise ValueError("either a password or a token")
        return self


class CStoreDestination(_Section):
    """An archive that takes results by C-STORE.

    Attributes:
        ae_title: its title; ``calling`` is ours.
        flagged, timeout_s: as of `StowDestination`.
    """

    kind: Literal["cstore"]
    name: Name
    host: str
    port: Port
    ae_title: AeTitle
    calling: AeTitle = "NCAGATE"
    tls: Tls | None = None
    flagged: bool = True
    timeout_s: PositiveFloat = 60.0


Destination = StowDestination | CStoreDestination


class PacsConfig(_Section):
    """The whole file."""

    quiet_s: PositiveFloat = 10.0
    listen: ListenSection | None = None
    deidentify: DeidentifySection | None = None
    route: tuple[Route, ...] = ()
    destination: tuple[Annotated[Destination, Field(discriminator="kind")], ...] = ()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> PacsConfig:
        _unique("route", (one.name for one in self.route))
        known = _unique("destination", (one.name for one in self.destination))
        if WEBHOOK in known:
            raise ValueError(f"no destination can be called {WEBHOOK}: that is a job's own webhook")
        for route in self.route:
            if missing := [one for one in route.destinations if one not in known]:
                raise ValueError(f"route {route.name} names no destination of this file: {', '.join(missing)}")
        return self


def load_pacs(path: Path | None) -> PacsConfig:
    """Read and validate the file; without one nothing is routed and nothing is sent.

    Raises:
        InvalidPacsConfigError: it is missing, is no TOML, or says something impossible.
    """
    if path is None:
        return PacsConfig()
    try:
        return PacsConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidPacsConfigError(f"{path.name}: {error}") from error
    except ValidationError as error:
        places = ("{}: {}".format(".".join(map(str, one["loc"])) or "file", one["msg"]) for one in error.errors())
        raise InvalidPacsConfigError(f"{path.name}: {'; '.join(places)}") from error


def _unique(what: str, names: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"two sections [[{what}]] are called {name}")
        seen.add(name)
    return seen

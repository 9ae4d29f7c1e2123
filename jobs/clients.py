"""Who asks: a client, what it may do, and by what it was known."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from jobs.models import LOCAL


class Scope(StrEnum):
    """What a client may do. Every scope is about its own jobs, but for `ADMIN`."""

    SUBMIT = "submit"  # send scans; cancel and erase
    READ = "read"  # see jobs, results, models and metrics
    ADMIN = "admin"  # promote versions, and all of the above with every client's jobs


@dataclass(frozen=True)
class Client:
    """A client, for the length of a request.

    Attributes:
        name: whose the jobs are.
        credential: by what it was known, for the audit log; never a secret.
    """

    name: str
    scopes: frozenset[Scope]
    credential: str

    def may(self, scope: Scope) -> bool:
        """Whether it has a scope; `ADMIN` has all."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    @property
    def sees_all(self) -> bool:
        """Whether other clients' jobs are its to see."""
        return Scope.ADMIN in self.scopes


STRANGER = Client("", frozenset(), "none")
"""Who asks what everybody may ask; it sees nothing."""
NOBODY = Client(LOCAL, frozenset(Scope), "none")
"""Who asks where no key is asked for: whoever is on this machine."""

"""The attackers' targets: the gateway of the service's tests, and the whole stack of the end-to-end tests."""

from tests.e2e.conftest import scan, served, stack
from tests.jobs.conftest import database_url
from tests.service.conftest import published, serve, serving

__all__ = ["database_url", "published", "scan", "serve", "served", "serving", "stack"]

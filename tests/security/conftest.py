"""The attackers' targets: the gateway of the service's tests, and the whole stack of the end-to-end tests."""

from tests.e2e.conftest import scan, served, stack
from tests.service.conftest import published, serve, serving

__all__ = ["published", "scan", "serve", "served", "serving", "stack"]

"""The same server as in the tests of the service."""

from tests.service.conftest import operator, pool, serving, transport

__all__ = ["operator", "pool", "serving", "transport"]

"""What soaks share with the tests of the stores."""

from __future__ import annotations

from tests.store.conftest import redis_url, sqlite_url, valkey  # noqa: F401 - fixtures

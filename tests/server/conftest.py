"""What each test of the server is run under: as those with real servers, which these are too."""

from __future__ import annotations

from tests.e2e.conftest import bounded_in, journal

__all__ = ["journal"]

pytest_collection_modifyitems = bounded_in(__file__)

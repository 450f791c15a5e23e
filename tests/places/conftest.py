from __future__ import annotations

import pytest

from tests.support.object_store import memory, places_cache, s3, s3_endpoint, store

__all__ = ["memory", "places_cache", "s3", "s3_endpoint", "store"]


@pytest.fixture(autouse=True)
def _own_cache(places_cache: object) -> None:
    """Nothing comes from the cache of another test."""

"""The short cut to files of a store: the same bytes by it, without it, and where it breaks off."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace
from typing import Any

import pytest
from s3fs import S3FileSystem

from relex_merge.errors import RelexError
from relex_merge.hub.body import Span
from relex_merge.places.pin import PlacePin, pin
from relex_merge.places.ranges import Transfers
from relex_merge.places.urls import Urls
from tests.support.object_store import Store

DATA = random.Random(0).randbytes(3 * 2**20)


@pytest.fixture
def pinned(s3: Store) -> PlacePin:
    s3.files.pipe_file(s3.path("run", "x.bin"), DATA)
    return pin(f"{s3.address}/run")


def _read(pinned: PlacePin, transfers: Transfers | None = None) -> bytes:
    """Three ranges, of which one goes through a socket of its own, into two buffers each."""
    into = bytearray(len(DATA))
    spans = []
    for start, stop in ((0, 10), (10, 2**21), (2**21, len(DATA))):
        view = memoryview(into)[start:stop]
        spans.append(Span(start, stop, deque([view[:5], view[5:]])))
    (transfers or Transfers()).read(pinned.file("x.bin"), spans)
    return bytes(into)


def _refuse(*_: object, **__: object) -> Any:
    raise AssertionError("not to be asked")


def test_ranges_come_by_signed_urls(pinned: PlacePin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(S3FileSystem, "cat_ranges", _refuse)
    assert _read(pinned) == DATA


def test_what_cannot_be_signed_is_read_by_s3fs(
    pinned: PlacePin, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def no_key(*_: object, **__: object) -> str:
        asked.append(1)
        raise NotImplementedError("no key to sign with")

    monkeypatch.setattr(S3FileSystem, "sign", no_key)
    transfers = Transfers()
    assert _read(pinned, transfers) == DATA
    tries = len(asked)
    assert _read(pinned, transfers) == DATA
    assert len(asked) == tries, "it is not tried again in the same run"


@pytest.mark.parametrize("query", ["?no-such-signature", "/of/another/object"])
def test_a_url_that_is_not_served_is_no_fault(
    pinned: PlacePin, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(S3FileSystem, "sign", lambda *_, **__: f"http://127.0.0.1:9{query}")
    assert _read(pinned) == DATA


def test_a_body_that_breaks_off_is_ended_by_s3fs(
    pinned: PlacePin, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relex_merge.places import urls

    def some(response: Any, span: Span, check: Any) -> None:
        span.take(response.read()[:3])
        raise ConnectionError("cut")

    monkeypatch.setattr(urls, "receive_body", some)
    assert _read(pinned) == DATA


def test_an_object_that_was_replaced_is_told_at_once(pinned: PlacePin, s3: Store) -> None:
    s3.files.pipe_file(s3.path("run", "x.bin"), DATA[::-1])
    with pytest.raises(RelexError, match=r"run/x\.bin changed during the run"):
        _read(pinned)


def test_an_object_that_is_gone_is_named(pinned: PlacePin, s3: Store) -> None:
    s3.files.rm_file(s3.path("run", "x.bin"))
    with pytest.raises(RelexError, match=r"run/x\.bin cannot be read: there is no such"):
        _read(pinned)


def test_a_url_is_signed_once_a_file(pinned: PlacePin, monkeypatch: pytest.MonkeyPatch) -> None:
    sign, asked = S3FileSystem.sign, []

    def counted(*given: Any, **how: Any) -> Any:
        asked.append(given)
        return sign(*given, **how)

    monkeypatch.setattr(S3FileSystem, "sign", counted)
    made = Urls()
    for start in range(3):
        span = Span(start, start + 1, deque([memoryview(bytearray(1))]))
        assert made.fill(pinned.file("x.bin"), span, lambda: None)
    assert len(asked) == 1


def test_a_signature_whose_time_is_over_is_made_anew(
    pinned: PlacePin, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfers = Transfers()
    assert _read(pinned, transfers) == DATA
    known = transfers._urls._known
    for name, address in known.items():
        known[name] = replace(address, url="http://127.0.0.1:9/expired")
    monkeypatch.setattr(S3FileSystem, "cat_ranges", _refuse)
    assert _read(pinned, transfers) == DATA

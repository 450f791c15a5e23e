"""Weights read from the Hub in ranges: the same bytes as on the disk, each of them once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

import relex_merge
from relex_merge.hub.ranges import REQUESTS, Span
from relex_merge.weights.spans import coalesce
from tests.fake_hub import Fault, Hub
from tests.support.models import STEPS, Series, make_series
from tests.support.streams import (
    BASE,
    FILES,
    HEADERS,
    RUN,
    WEIGHTS,
    large,
    on_disk,
    publish,
    recipe,
    series,
    small,
    stored,
    streamed,
    weights,
)

__all__ = ["large", "series", "small"]


@pytest.mark.parametrize("shards", [1, 3])
def test_streamed_downloaded_and_local_weights_are_the_same_bytes(
    shards: int, hub: Hub, tmp_path: Path
) -> None:
    series = make_series(tmp_path / "series", shards=shards)
    publish(hub, series)
    local = on_disk(series)
    assert streamed(tmp_path / "streamed") == local
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.safetensors"))
    relex_merge.extrapolate(recipe(), tmp_path / "cached", stream=False, quiet=True)
    assert weights(tmp_path / "cached") == local


def test_every_byte_is_asked_for_once_and_every_file_resolved_once(
    hub: Hub, series: Series, tmp_path: Path
) -> None:
    publish(hub, series)
    streamed(tmp_path / "out")
    assert hub.log.bytes_sent(WEIGHTS) == stored(series)
    asked = hub.requests(WEIGHTS)
    assert all(entry.status == 206 and entry.range for entry in asked)
    assert not any(entry.has_token for entry in asked)
    assert len(series.base_state) > 20
    assert len(asked) <= FILES * (HEADERS + 3)  # neighbouring tensors come together
    assert len(hub.requests("(HEAD|GET) .*/resolve/.*safetensors")) == FILES


def test_only_the_first_and_the_last_model_send_more_than_weights(
    hub: Hub, small: Series, tmp_path: Path
) -> None:
    publish(hub, small)
    streamed(tmp_path / "out")
    files = {(e.repo, e.commit) for e in hub.requests("/resolve/.*json$")}
    heads = hub.heads(RUN)
    assert files == {(BASE, hub.heads(BASE)["main"]), (RUN, heads[f"step_{STEPS[-1]}"])}


def test_many_requests_run_at_a_time_but_not_too_many(
    hub: Hub, small: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, small)
    monkeypatch.setattr("relex_merge.weights.spans.LONGEST_SPAN", 1000)
    hub.faults.add(Fault(WEIGHTS, times=None, delay=0.01))
    assert streamed(tmp_path / "out") == on_disk(small)
    assert len(hub.requests(WEIGHTS)) > 5 * REQUESTS
    assert 4 <= hub.log.most_at_once(WEIGHTS) <= REQUESTS


# spans


@given(
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 700)), max_size=12),
    st.integers(1, 900),
    st.integers(0, 300),
)
def test_spans_hold_all_that_is_wanted_and_little_else(
    wanted: list[tuple[int, int]], longest: int, gap: int
) -> None:
    """Any ranges, overlapping ones too: after filling the spans each has its bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("relex_merge.weights.spans.LONGEST_SPAN", longest)
        patch.setattr("relex_merge.weights.spans.WIDEST_GAP", gap)
        data = bytes(i % 251 for i in range(5000))
        buffers = [(start, bytearray(length)) for start, length in wanted]
        spans = coalesce((start, memoryview(buffer)) for start, buffer in buffers)
        read = sum(span.stop - span.start for span in spans)
        assert read <= sum(length for _, length in wanted) + gap * len(wanted)
        for span in spans:
            assert 0 < span.stop - span.start <= longest
            assert sum(map(len, span.views)) == span.stop - span.start
            span.fill(_source(data, span))
        for start, buffer in buffers:
            assert bytes(buffer) == data[start : start + len(buffer)]


def _source(data: bytes, span: Span) -> Callable[[memoryview], int]:
    """Receives at most 13 bytes at a time."""
    pieces: Iterator[int] = iter(range(span.start, span.stop))

    def receive(into: memoryview) -> int:
        count = min(13, len(into))
        for i in range(count):
            into[i] = data[next(pieces)]
        return count

    return receive

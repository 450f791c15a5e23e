"""Streams that break: what is mended on the way, and what a person is told when it cannot be."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from relex_merge.errors import RelexError
from relex_merge.hub import download as hub_files
from relex_merge.hub.ranges import Connections, RemoteFile
from relex_merge.weights.remote import HubSource
from relex_merge.weights.spans import coalesce
from tests.fake_hub import Fault, Hub
from tests.fake_hub.access import Token
from tests.fake_hub.building import WRITE_TOKEN
from tests.fake_hub.log import Entry
from tests.support.models import STEPS, Series
from tests.support.streams import (
    FILES,
    HEADERS,
    RUN,
    WEIGHTS,
    bounds,
    large,
    on_disk,
    publish,
    series,
    small,
    stored,
    streamed,
)

__all__ = ["large", "series", "small"]

# what goes wrong and is mended


def test_an_address_that_expires_is_asked_for_again(
    hub: Hub, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, series)
    monkeypatch.setattr("relex_merge.weights.spans.LONGEST_SPAN", stored(series) // 40)
    hub.after(FILES * HEADERS + 10, WEIGHTS, hub.expire_urls)
    assert streamed(tmp_path / "out") == on_disk(series)
    assert any(entry.status == 403 for entry in hub.requests(WEIGHTS))
    resolved = [entry.commit for entry in hub.requests("HEAD .*/resolve/.*safetensors")]
    assert FILES < len(resolved) <= 2 * FILES
    assert max(map(resolved.count, resolved)) == 2


def test_a_broken_body_goes_on_from_the_byte_where_it_broke(
    hub: Hub, series: Series, tmp_path: Path, no_waiting: list[float]
) -> None:
    publish(hub, series)
    cut = 5000
    fault = hub.faults.add(Fault(WEIGHTS, after=FILES * HEADERS, cut_after=cut, times=3))
    assert streamed(tmp_path / "out") == on_disk(series)
    assert fault.fired == 3
    asked = hub.requests(WEIGHTS)
    broken = [e for e in asked if e.sent < bounds(e)[1] - bounds(e)[0] + 1]
    assert len(broken) == 3
    for entry in broken:
        first, last = bounds(entry)
        assert entry.sent == cut
        assert (entry.commit, (first + cut, last)) in [(e.commit, bounds(e)) for e in asked]
    assert hub.log.bytes_sent(WEIGHTS) == stored(series)  # nothing was read again


def test_a_connection_dropped_without_an_answer_is_made_again(
    hub: Hub, small: Series, tmp_path: Path, no_waiting: list[float]
) -> None:
    publish(hub, small)
    hub.faults.add(Fault(WEIGHTS, times=2, drop="before"))
    hub.faults.add(Fault("HEAD .*/resolve/.*safetensors", times=1, drop="before"))
    assert streamed(tmp_path / "out") == on_disk(small)


def test_a_busy_hub_is_given_the_time_that_it_asks_for(
    hub: Hub, small: Series, tmp_path: Path, no_waiting: list[float]
) -> None:
    publish(hub, small)
    busy = {"status": 429, "headers": {"Retry-After": "70"}}
    for match in (WEIGHTS, "HEAD .*/resolve/.*safetensors"):
        hub.faults.add(Fault(match, after=2, **busy))  # type: ignore[arg-type]
    assert streamed(tmp_path / "out") == on_disk(small)
    assert sum(no_waiting) == pytest.approx(140)


def test_an_error_of_the_server_is_overcome(
    hub: Hub, small: Series, tmp_path: Path, no_waiting: list[float]
) -> None:
    publish(hub, small)
    for match in (WEIGHTS, "HEAD .*/resolve/.*safetensors"):
        hub.faults.add(Fault(match, after=3, status=500))
        hub.faults.add(Fault(match, after=4, status=503))
    assert streamed(tmp_path / "out") == on_disk(small)
    assert sum(no_waiting) > 0


def test_a_slow_line_that_breaks_again_and_again_arrives_in_the_end(
    hub: Hub, small: Series, tmp_path: Path, no_waiting: list[float]
) -> None:
    """Whoever gets on is not given up, however often it breaks."""
    publish(hub, small)
    sha = hub.heads(RUN)["step_4"]
    hub.faults.add(Fault(f"GET /cdn/.*{sha}", times=None, cut_after=997))
    assert streamed(tmp_path / "out") == on_disk(small)


def test_a_hub_that_goes_away_for_a_minute_costs_no_run(
    hub: Hub, small: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ports are closed, so that the client closes its connections under other threads."""
    publish(hub, small)
    whole = on_disk(small)
    waited: list[float] = []
    lock = threading.Lock()

    def sleep(seconds: float) -> None:
        with lock:
            waited.append(seconds)
            if sum(waited) >= 60:
                hub.come_back()

    monkeypatch.setattr(time, "sleep", sleep)
    hub.after(FILES * HEADERS + 5, WEIGHTS, hub.go_away)
    assert streamed(tmp_path / "out") == whole
    assert sum(waited) >= 60


def test_what_is_pinned_is_read_when_the_branch_moves_on(
    hub: Hub, large: Series, tmp_path: Path
) -> None:
    publish(hub, large)
    heads = hub.heads(RUN)

    def move() -> None:
        for name in heads:
            hub.branch(RUN, name, at="step_1")

    moved = hub.faults.add(Fault(WEIGHTS, action=move))
    assert streamed(tmp_path / "out") == on_disk(large)
    assert moved.fired
    read = {entry.commit for entry in hub.requests(f"/cdn/{RUN}/")}
    assert read == {heads[f"step_{step}"] for step in STEPS}


# what goes wrong for good


def refused(out: Path, **how: Any) -> str:
    """The message of a run that fails and leaves nothing."""
    with pytest.raises(RelexError) as caught:
        streamed(out, **how)
    message = str(caught.value)
    assert "\n" not in message
    assert not list(out.parent.glob("*out*"))
    return message


def test_a_file_that_is_never_served_is_named_with_the_remedy(
    hub: Hub, hub_login: Token, series: Series, tmp_path: Path, no_waiting: list[float]
) -> None:
    publish(hub, series)
    sha = hub.heads(RUN)["step_7"]
    hub.faults.add(Fault(f"GET /cdn/.*{sha}", after=HEADERS, times=None, status=503))
    message = refused(tmp_path / "out")
    assert f"{RUN}@step_7: model.safetensors" in message
    assert "repeat the command" in message
    assert WRITE_TOKEN not in message
    assert "Signature" not in message


def test_access_that_is_taken_away_in_the_middle_is_told(
    hub: Hub, hub_login: Token, small: Series, tmp_path: Path, no_waiting: list[float]
) -> None:
    publish(hub, small)

    def lock() -> None:
        hub.expire_urls()
        del hub.tokens[WRITE_TOKEN]

    hub.repos[RUN].private = True
    hub.after(FILES * HEADERS, WEIGHTS, lock)
    message = refused(tmp_path / "out")
    assert "model.safetensors" in message
    assert "hf auth login" in message
    assert WRITE_TOKEN not in message
    assert sum(no_waiting) == 0  # nothing that waiting would mend


@pytest.mark.parametrize("by", [-1000, 1000])
@pytest.mark.parametrize("where", ["the redirect", "the answer"])
def test_a_file_of_another_length_than_its_header_says_is_refused(
    where: str, by: int, hub: Hub, small: Series, tmp_path: Path, no_waiting: list[float]
) -> None:
    publish(hub, small)
    sha = hub.heads(RUN)["step_4"]
    size = (small.checkpoints[2] / "model.safetensors").stat().st_size
    method = "HEAD .*/resolve/" if where == "the redirect" else "GET /cdn/"
    hub.faults.add(Fault(f"{method}.*{sha}.*safetensors", times=None, resize=size + by))
    message = refused(tmp_path / "out")
    assert f"{RUN}@step_4: model.safetensors" in message
    assert "leave that checkpoint out" in message


def test_an_upload_that_was_cut_short_is_refused(hub: Hub, small: Series, tmp_path: Path) -> None:
    publish(hub, small)
    whole = (small.checkpoints[2] / "model.safetensors").read_bytes()
    for content in (whole[:-1], whole[:100], whole[:5], b"\xff" * 100):
        hub.commit(RUN, {"model.safetensors": content}, branch="step_4")
        message = refused(tmp_path / "out")
        assert f"{RUN}@step_4: model.safetensors" in message
        assert "leave that checkpoint out" in message


def test_a_server_without_ranges_is_refused_before_it_sends_everything(
    hub: Hub, large: Series, tmp_path: Path
) -> None:
    publish(hub, large)

    def forget_the_range(entry: Entry) -> bool:
        if entry.path.startswith(f"/cdn/{RUN}/"):
            entry.headers.pop("range", None)  # type: ignore[attr-defined]
        return False

    hub.faults.add(Fault(forget_the_range))
    assert "use --no-stream" in refused(tmp_path / "out")


@pytest.mark.parametrize("name", ["../secret.safetensors", "model-9.safetensors"])
def test_an_index_that_names_what_is_not_there_is_refused(
    name: str, hub: Hub, small: Series, tmp_path: Path
) -> None:
    publish(hub, small)
    index = f'{{"weight_map": {{"model.norm.weight": "{name}"}}}}'
    hub.commit(RUN, {"model.safetensors.index.json": index}, branch="step_4")
    message = refused(tmp_path / "out")
    assert f"{RUN}@step_4" in message
    assert Path(name).name in message


def test_who_waits_for_a_busy_hub_ends_when_the_run_does(hub: Hub, small: Series) -> None:
    publish(hub, small)
    connections = Connections()
    pin = hub_files.pin(RUN, "step_4").at()
    source = HubSource(pin, Path("nowhere"), "the fourth", connections)
    busy = {"status": 429, "headers": {"Retry-After": "300"}}
    hub.faults.add(Fault(WEIGHTS, times=None, **busy))  # type: ignore[arg-type]
    ended: list[BaseException] = []

    def wait() -> None:
        file = RemoteFile(pin, "model.safetensors", "the fourth")
        try:
            connections.read(file, coalesce([(0, memoryview(bytearray(8)))]))
        except RelexError as error:
            ended.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not hub.requests(WEIGHTS)[HEADERS:]:
        time.sleep(0.01)
    source.stop()
    waiting.join(timeout=60)
    assert ended

"""Buckets on the Hub, by the real client over loopback: no revisions, pinned by the Xet hash."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfFileSystem

import relex_merge
from relex_merge.checkpoints.files import GRAM
from relex_merge.checkpoints.find import find
from relex_merge.errors import RelexError
from relex_merge.hub.body import Span
from relex_merge.places.pin import pin
from relex_merge.places.ranges import Transfers
from relex_merge.places.urls import Urls
from tests.fake_hub import Hub
from tests.support.models import Series
from tests.support.sharded_runs import STEPS, ShardedRuns
from tests.support.terminal import Command

BUCKET = "org/bucket"
ADDRESS = f"hf://buckets/{BUCKET}"
pytestmark = pytest.mark.usefixtures("no_figure")


@pytest.fixture
def bucket(hub: Hub, series: Series) -> Hub:
    """The series in a bucket: its base, and ``run/checkpoint-N``."""
    files = {"base": series.base}
    for step, folder in zip(series.steps, series.checkpoints, strict=True):
        files[f"run/checkpoint-{step:g}"] = folder
    content = {
        f"{name}/{file.name}": file.read_bytes()
        for name, folder in files.items()
        for file in folder.iterdir()
    }
    hub.create_repo(BUCKET)
    hub.commit(BUCKET, content)
    HfFileSystem.clear_instance_cache()
    return hub


def _recipe(series: Series) -> dict[str, Any]:
    models = [{"model": f"{ADDRESS}/run/checkpoint-{step:g}"} for step in series.steps]
    return {**series.recipe(), "base_model": f"{ADDRESS}/base", "models": models}


def _weights(out: Path) -> dict[str, bytes]:
    files = (path for path in out.glob("*.safetensors") if path.name != GRAM)
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.parametrize("short_cut", [True, False])
def test_a_series_in_a_bucket_makes_the_same_model_as_on_the_disk(
    short_cut: bool,
    bucket: Hub,
    series: Series,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Urls, "serves", lambda *_: short_cut)
    relex_merge.extrapolate(_recipe(series), tmp_path / "far", quiet=True)
    relex_merge.extrapolate(series.recipe(), tmp_path / "near", quiet=True)
    assert _weights(tmp_path / "far") == _weights(tmp_path / "near")
    stored = sum(f.stat().st_size for f in series.base.parent.rglob("*.safetensors"))
    assert bucket.log.bytes_sent(r"GET /(cdn|api/resolve-cache)/.*safetensors") == stored
    if short_cut:
        assert len(bucket.requests("GET /buckets/.*safetensors")) == 1 + len(series.steps)


def test_a_url_that_has_expired_is_asked_for_again(
    bucket: Hub, series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HfFileSystem, "cat_file", None)
    pinned = pin(f"{ADDRESS}/base")
    file, transfers = pinned.file("model.safetensors"), Transfers()
    stored = (series.base / "model.safetensors").read_bytes()
    for start in (0, 100):
        into = bytearray(50)
        transfers.read(file, [Span(start, start + 50, deque([memoryview(into)]))])
        assert into == stored[start : start + 50]
        bucket.expire_urls()


def test_a_bucket_is_searched_for_a_series(bucket: Hub, series: Series) -> None:
    found = find(f"{ADDRESS}/run")
    assert found.layout == "transformers"
    assert found.steps == list(series.steps)
    assert found.checkpoints[0].reference == f"{ADDRESS}/run/checkpoint-{series.steps[0]:g}"


def test_shards_in_a_bucket_are_read_as_they_lie(
    hub: Hub, sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    run = sharded_runs.root / "trainer-2"
    files = [path for path in run.rglob("*") if path.is_file()]
    hub.create_repo(BUCKET)
    hub.commit(BUCKET, {f"run/{f.relative_to(run).as_posix()}": f.read_bytes() for f in files})
    HfFileSystem.clear_instance_cache()
    found = find(f"{ADDRESS}/run")
    assert (found.layout, found.steps) == ("dcp", [*STEPS])
    for name, place in (("far", f"{ADDRESS}/run"), ("near", str(run))):
        recipe = sharded_runs.series.recipe()
        recipe["models"] = [{"model": f"{place}/checkpoint-{step}"} for step in STEPS]
        relex_merge.extrapolate(recipe, tmp_path / name, quiet=True)
    assert _weights(tmp_path / "far") == _weights(tmp_path / "near")


def test_a_file_is_pinned_by_its_hash(bucket: Hub, series: Series) -> None:
    pinned = pin(f"{ADDRESS}/base")
    assert pinned.changed(["model.safetensors"]) is None
    data = bytearray((series.base / "model.safetensors").read_bytes())
    data[-1] ^= 1
    bucket.commit(BUCKET, {"base/model.safetensors": bytes(data)})
    what = f"{ADDRESS}/base/model.safetensors changed"
    assert pinned.changed(["model.safetensors"]) == what


def test_a_bucket_that_does_not_exist(hub: Hub) -> None:
    HfFileSystem.clear_instance_cache()
    with pytest.raises(RelexError, match=r"hf://buckets/org/none/run does not exist"):
        find("hf://buckets/org/none/run")
    with pytest.raises(RelexError, match=r"hf://buckets/org/none/run does not exist"):
        pin("hf://buckets/org/none/run")


def test_a_hub_that_is_away_is_told_in_one_line(
    hub: Hub, relex: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    HfFileSystem.clear_instance_cache()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    done = relex("recipe", "hf://buckets/org/other/run")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1, done.err
    assert "hf://buckets/org/other/run cannot be read: no good answer came" in done.err

"""``publish-series`` from an object store: the same revisions as from the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from relex_merge.errors import RelexError
from relex_merge.publishing.publish_series import publish_series
from tests.fake_hub import Hub
from tests.fake_hub.access import Token
from tests.support.local_runs import make_run
from tests.support.object_store import Store
from tests.support.sharded_runs import ShardedRuns
from tests.support.terminal import Command

NEAR, FAR = "tester/near", "tester/far"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"), shards=2)[0]


def test_a_series_in_a_store_becomes_the_same_revisions(
    hub: Hub, hub_login: Token, relex: Command, s3: Store, run: Path, places_cache: Path
) -> None:
    s3.put(run, "run")
    publish_series(run, NEAR, quiet=True)
    done = relex("publish-series", f"{s3.address}/run", FAR, "--quiet")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{hub.url}/{FAR}: 3 published, 0 complete before\n"
    assert set(hub.heads(FAR)) == {"main", "step_5", "step_10", "step_15"}
    for step in (5, 10, 15):
        assert hub.files(FAR, f"step_{step}") == hub.files(NEAR, f"step_{step}")
    assert not list(places_cache.rglob("*.safetensors"))


def test_it_goes_on_where_it_was_and_refuses_other_content(
    hub: Hub, hub_login: Token, memory: Store, run: Path
) -> None:
    memory.put(run, "run")
    address = f"{memory.address}/run"
    publish_series(address, FAR, observe="5-10", quiet=True)
    found = publish_series(address, FAR, quiet=True)
    assert (found.published, found.before) == ((15,), (5, 10))
    name = "model-00001-of-00002.safetensors"
    memory.put(run / "checkpoint-15", "run", "checkpoint-20")
    data = memory.get("run", "checkpoint-10", name)
    memory.files.pipe_file(memory.path("run", "checkpoint-10", name), data[:-1] + b"\x01")
    with pytest.raises(RelexError, match="has step_10 with other content, so nothing was uploaded"):
        publish_series(address, FAR, quiet=True)
    assert "step_20" not in hub.heads(FAR)


def test_a_checkpoint_that_changes_meanwhile_is_not_published(
    hub: Hub, hub_login: Token, memory: Store, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relex_merge.hub.commit import upload

    memory.put(run, "run")

    def and_write(*given: object) -> None:
        upload(*given)  # type: ignore[arg-type]
        memory.files.pipe_file(memory.path("run", "checkpoint-5", "config.json"), b"{}")

    monkeypatch.setattr("relex_merge.publishing.publisher.upload", and_write)
    with pytest.raises(RelexError, match="checkpoint-5 changed while it was uploaded"):
        publish_series(f"{memory.address}/run", FAR, quiet=True)
    assert set(hub.heads(FAR)) == {"main"}


def test_shards_in_a_store_become_the_same_revisions_in_safetensors(
    hub: Hub,
    hub_login: Token,
    memory: Store,
    sharded_runs: ShardedRuns,
    relex: Command,
    places_cache: Path,
) -> None:
    memory.put(sharded_runs.root / "fsdp2-2", "run")
    how = ("--dtype", "bfloat16", "--observe", "5-10", "--quiet")
    for run, repo in ((sharded_runs.root / "fsdp2-2", NEAR), (f"{memory.address}/run", FAR)):
        done = relex("publish-series", run, repo, *how)
        assert (done.code, done.err) == (0, "")
    for step in (5, 10):
        assert hub.files(FAR, f"step_{step}") == hub.files(NEAR, f"step_{step}")
    assert not list(places_cache.rglob("*.pt"))


def test_only_a_folder_can_be_watched(hub_login: Token, memory: Store) -> None:
    with pytest.raises(RelexError, match="--watch is for a folder on this disk"):
        publish_series(f"{memory.address}/run", FAR, watch=True)

"""OUT in an object store: whole or not at all, nothing replaced unasked, nothing done twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

import relex_merge
from relex_merge.checkpoints.files import GRAM, REPORT
from relex_merge.errors import RelexError
from relex_merge.pipeline.staging_in_place import local_out, staging_in_place
from relex_merge.places.upload import MARKER
from tests.support.models import Series, write_recipe
from tests.support.object_store import Store
from tests.support.terminal import Command

pytestmark = pytest.mark.usefixtures("no_figure")


def _shards(store: Store, *parts: str) -> dict[str, bytes]:
    names = [n for n in store.names(*parts) if n.endswith(".safetensors") and n != GRAM]
    return {name: store.get(*parts, name) for name in names}


def _near(series: Series, out: Path, **options: Any) -> dict[str, bytes]:
    relex_merge.extrapolate(series.recipe(), out, quiet=True, **options)
    files = (path for path in out.rglob("*.safetensors") if path.name != GRAM)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def _small_shards() -> Any:
    from mergekit.options import MergeOptions

    return MergeOptions(out_shard_size=4_000)


def test_a_model_is_written_to_a_store(
    store: Store, series: Series, relex: Command, tmp_path: Path, places_cache: Path
) -> None:
    store.put_series(series)
    recipe = write_recipe(tmp_path / "recipe.yml", store.recipe(series))
    done = relex("run", "--yes", recipe, f"{store.address}/out", "--quiet")
    assert done.code == 0, done.err
    assert done.out == f"wrote {store.address}/out\n"
    near = _near(series, tmp_path / "near")
    assert _shards(store, "out") == near
    assert set(store.names("out")) == {path.name for path in (tmp_path / "near").iterdir()}
    assert not list(places_cache.rglob("model*.safetensors"))
    report = json.loads(store.get("out", REPORT))
    assert len({entry["state"] for entry in [report["base"], *report["checkpoints"]]}) == 6
    done = relex("inspect", f"{store.address}/out", "--json", tmp_path / "report.json")
    assert done.code == 0, done.err
    again = json.loads((tmp_path / "report.json").read_text())
    for key in ("base", "checkpoints", "summary", "verdict"):
        assert again[key] == report[key]


def test_several_targets_go_below_out(memory: Store, series: Series, tmp_path: Path) -> None:
    made = relex_merge.extrapolate(
        series.recipe(), f"{memory.address}/out", target_step=[20, 40], quiet=True
    )
    assert made.written == [f"{memory.address}/out/step-20", f"{memory.address}/out/step-40"]
    names = set(memory.names("out"))
    assert {"step-20/model.safetensors", "step-40/README.md"} <= names
    assert (
        memory.get("out", "step-20", "model.safetensors")
        == (_near(series, tmp_path / "near", target_step=20)["model.safetensors"])
    )


def test_what_is_there_is_replaced_only_by_force(
    store: Store, series: Series, relex: Command, tmp_path: Path
) -> None:
    store.files.makedirs(store.path("out"), exist_ok=True)
    store.files.pipe_file(store.path("out", "precious.bin"), b"mine")
    store.files.pipe_file(store.path("out2", "precious.bin"), b"a neighbour")
    recipe = write_recipe(tmp_path / "recipe.yml", series.recipe())
    for asked in (["--dry-run"], []):
        done = relex("run", "--yes", recipe, f"{store.address}/out", *asked)
        assert done.code == 1
        assert f"{store.address}/out is not empty (it holds precious.bin)" in done.err
        assert store.names("out") == {"precious.bin": 4}
    done = relex("run", "--yes", recipe, f"{store.address}/out", "--force", "--quiet")
    assert done.code == 0, done.err
    assert "model.safetensors" in store.names("out")
    assert "precious.bin" not in store.names("out")
    assert store.names("out2") == {"precious.bin": 11}


def test_out_may_not_replace_what_is_read(
    memory: Store, series: Series, relex: Command, tmp_path: Path
) -> None:
    memory.put_series(series)
    recipe = write_recipe(tmp_path / "recipe.yml", memory.recipe(series))
    before = memory.names()
    for out in ("run", "run/checkpoint-4", "base/"):
        done = relex("run", "--yes", recipe, f"{memory.address}/{out}", "--force")
        assert done.code == 1
        assert "would replace" in done.err
    assert memory.names() == before


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """Lets an upload go on for so many files, and then be interrupted; the names that were sent."""

    def after(count: int) -> list[str]:
        kind = fsspec.get_filesystem_class("memory")
        put = kind.put_file
        sent: list[str] = []

        def put_file(files: Any, here: str, there: str, **how: Any) -> None:
            if len(sent) >= count:
                raise KeyboardInterrupt
            sent.append(there.rpartition("/")[2])
            put(files, here, there, **how)

        monkeypatch.setattr(kind, "put_file", put_file)
        return sent

    return after


def test_an_upload_that_is_cut_off_leaves_no_index_and_goes_on_later(
    memory: Store,
    series: Series,
    tmp_path: Path,
    cut: Callable[[int], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = f"{memory.address}/out"

    def run() -> None:
        relex_merge.extrapolate(series.recipe(), out, options=_small_shards(), quiet=True)

    with monkeypatch.context():
        sent = cut(6)
        with pytest.raises(KeyboardInterrupt):
            run()
    names = set(memory.names("out"))
    assert MARKER in names
    assert not {"model.safetensors.index.json", "README.md"} & names
    arrived = {name for name in sent if name.startswith("model-")}
    monkeypatch.undo()
    monkeypatch.setattr("relex_merge.api.find_spec", lambda name: None)
    again = cut(100)
    run()
    near = _near(series, tmp_path / "near", options=_small_shards())
    assert len(near) > 5
    assert _shards(memory, "out") == near
    assert MARKER not in memory.names("out")
    assert arrived
    assert not arrived & set(again), "a shard was sent twice"
    assert again[-2:] == ["model.safetensors.index.json", "README.md"]


def test_by_force_the_old_index_goes_before_a_new_shard_comes(
    memory: Store, series: Series, cut: Callable[[int], list[str]]
) -> None:
    out = f"{memory.address}/out"
    relex_merge.extrapolate(series.recipe(), out, options=_small_shards(), quiet=True)
    cut(2)
    with pytest.raises(KeyboardInterrupt):
        relex_merge.extrapolate(
            series.recipe(40), out, options=_small_shards(), force=True, quiet=True
        )
    assert "model.safetensors.index.json" not in memory.names("out")


def test_a_refused_run_leaves_nothing(memory: Store, series: Series) -> None:
    recipe = {**series.recipe(), "base_model": f"{memory.address}/no-base"}
    with pytest.raises(RelexError, match="no-base does not exist"):
        relex_merge.extrapolate(recipe, f"{memory.address}/out", quiet=True)
    assert memory.names() == {}


def test_a_bucket_that_does_not_exist_is_told_before_the_run(
    s3: Store, series: Series, relex: Command, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yml", series.recipe())
    done = relex("run", "--yes", recipe, "s3://no-such-bucket-here/out")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1, done.err
    assert "s3://no-such-bucket-here/out cannot be written: there is no such bucket" in done.err


def test_a_file_is_no_out(memory: Store, series: Series) -> None:
    memory.files.pipe_file(memory.path("file"), b"x")
    with pytest.raises(RelexError, match="is a file"):
        relex_merge.extrapolate(series.recipe(), f"{memory.address}/file", quiet=True)


def test_a_second_run_on_this_machine_has_to_wait(memory: Store, series: Series) -> None:
    out = f"{memory.address}/out"

    def begin() -> Any:
        return staging_in_place(out, local_out(out), False)

    with begin():
        with pytest.raises(RelexError, match=f"another run is writing {out}"), begin():
            pass
        assert MARKER in memory.names("out"), "the first run goes on"


def test_file_addresses_are_folders(series: Series, relex: Command, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yml", series.recipe())
    done = relex("run", "--yes", recipe, (tmp_path / "my out").as_uri(), "--quiet")
    assert done.code == 0, done.err
    config = json.loads((tmp_path / "my out/config.json").read_text())
    assert config["model_type"] == "qwen2"


def test_push_to_needs_a_folder(series: Series, relex: Command, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yml", series.recipe())
    done = relex("run", "--yes", recipe, "memory://x/out", "--push-to", "org/name")
    assert done.code == 2
    assert "--push-to publishes a folder" in done.err

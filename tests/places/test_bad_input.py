"""What is wrong with an address is told in one line, soon, with what to do."""

from __future__ import annotations

import builtins
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relex_merge.checkpoints.locate import locate
from relex_merge.errors import RelexError
from relex_merge.places import filesystem
from relex_merge.places.address import place_or_path
from tests.support.models import Series, write_recipe
from tests.support.object_store import Store
from tests.support.terminal import Command


@pytest.fixture
def afresh() -> Iterator[None]:
    """No file system is known from before, nor afterwards."""
    from s3fs import S3FileSystem

    def forget() -> None:
        S3FileSystem.clear_instance_cache()
        filesystem._answered.clear()

    forget()
    yield
    forget()


def _refused(relex: Command, recipe: dict[str, Any], folder: Path) -> str:
    done = relex(
        "run", "--yes", write_recipe(folder / "recipe.yml", recipe), folder / "out", "--quiet"
    )
    assert done.code == 1, done.err
    assert done.out == ""
    assert len(done.err.splitlines()) == 1, done.err
    assert not (folder / "out").exists()
    return done.err.removeprefix("error: ")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s4://bucket/run/checkpoint-1", "no place is called s4://; known are s3, gs"),
        ("abfs://bucket/run/checkpoint-1", "adlfs"),
        ("https://example.org/run/checkpoint-1", "is a web address"),
        ("hf://org/model/checkpoint-1", "hf:// is for buckets, hf://buckets/owner/name/folder"),
        ("memory://run/a+b/checkpoint-1", "which recipes take for a revision or an adapter"),
        ("s3://", "names no folder; write s3://bucket/folder"),
    ],
)
def test_an_address_that_no_place_has(
    address: str, message: str, relex: Command, series: Series, tmp_path: Path
) -> None:
    if "+" in address:
        with pytest.raises(RelexError, match=message):
            locate([address])
        return
    recipe = series.recipe()
    recipe["models"][0] = {"model": address, "parameters": {"step": 1}}
    said = _refused(relex, recipe, tmp_path)
    assert address.rstrip("/") in said
    assert message in said


def test_the_extra_that_is_missing_is_named(
    relex: Command, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "gcsfs":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    recipe = {**series.recipe(), "base_model": "gs://bucket/base"}
    said = _refused(relex, recipe, tmp_path)
    assert "gs://bucket/base: to read it: pip install 'gcsfs>=2024.6'" in said


@pytest.mark.parametrize(
    ("below", "message"),
    [
        ("missing", "missing does not exist; in s3://"),
        ("run/checkpoint-1/config.json", "config.json is a file; give the folder"),
        ("run", "run has no files in it; it holds the folders checkpoint-1, checkpoint-2"),
    ],
)
def test_what_is_no_model_in_a_bucket(
    below: str, message: str, s3: Store, relex: Command, series: Series, tmp_path: Path
) -> None:
    for step in (1, 2):
        s3.files.pipe_file(s3.path("run", f"checkpoint-{step}", "config.json"), b"{}")
    said = _refused(relex, {**series.recipe(), "base_model": f"{s3.address}/{below}"}, tmp_path)
    assert message in said


def test_a_bucket_that_does_not_exist(
    s3: Store, relex: Command, series: Series, tmp_path: Path
) -> None:
    recipe = {**series.recipe(), "base_model": "s3://no-such-bucket/base"}
    said = _refused(relex, recipe, tmp_path)
    assert "s3://no-such-bucket/base does not exist" in said
    done = relex("recipe", "s3://no-such-bucket/run")
    assert done.code == 1
    assert "s3://no-such-bucket/run does not exist" in done.err


@pytest.mark.usefixtures("afresh", "s3_endpoint")
def test_no_credentials(
    relex: Command, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    said = _refused(relex, {**series.recipe(), "base_model": "s3://bucket/base"}, tmp_path)
    assert "s3://bucket/base cannot be read: access is refused" in said
    assert "AWS_PROFILE" in said


@pytest.mark.usefixtures("afresh", "s3_endpoint")
def test_a_store_that_does_not_answer_is_told_soon(
    relex: Command, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "FIRST_ANSWER", 0.2)  # seconds
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        said = _refused(relex, {**series.recipe(), "base_model": "s3://bucket/base"}, tmp_path)
    assert "s3://bucket/base cannot be read: no good answer came (no answer within 0.2 s)" in said
    assert "check the network" in said


def test_the_command_ends_although_the_store_is_away() -> None:
    """In a process of its own, whose threads must not keep it alive."""
    away = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_DEFAULT_REGION": "us-east-1"}
    away |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    program = "from relex_merge.places import filesystem; filesystem.FIRST_ANSWER = 0.5; "
    program += "from relex_merge.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "recipe", "s3://bucket/run"],
        env={**os.environ, **away},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "s3://bucket/run cannot be read: no good answer came" in done.stderr


def test_an_address_that_became_a_path_is_refused() -> None:
    with pytest.raises(RelexError, match="give it as text"):
        place_or_path(Path("s3://bucket/run"))

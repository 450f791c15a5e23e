"""Tasks of lm-eval: found by name, questions known by their content."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from relex_merge.errors import RelexError
from relex_merge.evaluation.split import choosing_part, position, reported_part
from relex_merge.evaluation.tasks import LoadedTask, dataset_of, load_tasks, resolve
from tests.support.lm_eval_tasks import write_task

DOCUMENTS = [{"q": f"{n}+1=", "a": str(n + 1)} for n in range(10)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tasks")
    write_task(root, "sums", [*DOCUMENTS, DOCUMENTS[3]])
    return write_task(root, "sums_back", DOCUMENTS[::-1], tag="arithmetic")


def test_questions_are_known_by_their_content(folder: Path) -> None:
    (sums,) = load_tasks(["sums"], include_path=folder)
    (back,) = load_tasks(["sums_back"], include_path=folder)
    assert sums.documents[:10] == back.documents[::-1]
    assert sums.documents[10] == f"{sums.documents[3]}#2"


def test_tags_and_wildcards_and_limits(folder: Path) -> None:
    assert [t.name for t in load_tasks(["arithmetic"], include_path=folder)] == ["sums_back"]
    both = load_tasks(["sums*"], include_path=folder, limit=4)
    assert [(t.name, len(t.documents)) for t in both] == [("sums", 4), ("sums_back", 4)]
    (share,) = load_tasks(["sums"], include_path=folder, limit=0.5)
    assert len(share.documents) == 6


def test_the_identity_is_the_tasks_and_survives_loading_again(folder: Path) -> None:
    (one,), (two,) = (load_tasks(["sums"], include_path=folder) for _ in range(2))
    (other,) = load_tasks(["sums_back"], include_path=folder)
    assert one.identity == two.identity != other.identity


def test_an_unknown_task_comes_with_near_names(folder: Path) -> None:
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    assert resolve(manager, ["sums"]) == ["sums"]
    with pytest.raises(RelexError, match="knows no task 'sumz'; near names: sums"):
        resolve(manager, ["sumz"])
    with pytest.raises(RelexError, match="knows no task 'sum'; near names: sums, sums_back"):
        resolve(manager, ["sums", "sum"])


def test_tasks_that_cannot_be_loaded(folder: Path, tmp_path: Path) -> None:
    write_task(tmp_path, "lost", DOCUMENTS)
    (tmp_path / "lost.jsonl").unlink()
    with pytest.raises(RelexError, match="task lost: lm-eval cannot load it: "):
        load_tasks(["lost"], include_path=tmp_path)
    with pytest.raises(RelexError, match=r"--include-path .*absent is not a folder"):
        load_tasks(["sums"], include_path=folder / "absent")
    with pytest.raises(RelexError, match="no tasks are named"):
        load_tasks([], include_path=folder)
    with pytest.raises(RelexError, match="limit is 0"):
        load_tasks(["sums"], include_path=folder, limit=0)


def test_without_lm_eval_the_line_that_installs_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(RelexError, match=r"not installed: pip install 'lm-eval\[math\]>=0"):
        load_tasks(["sums"], include_path=folder)


def test_the_split_is_a_fixed_quarter_by_content() -> None:
    documents = [f"{n:064x}" for n in range(4000)]
    choosing, reported = choosing_part("t", documents), reported_part("t", documents)
    assert sorted(choosing + reported) == documents
    assert 900 < len(choosing) < 1100
    # of other documents, in another order: the same answer for each
    few = documents[2000:][::-1]
    assert set(choosing_part("t", few)) == set(choosing) & set(few)
    assert choosing_part("t", documents[::-1]) == choosing
    assert set(choosing_part("u", documents)) != set(choosing)


def test_the_split_is_the_published_one() -> None:
    """Other checks compute it again: SHA-256 of task, newline, key."""
    assert position("gsm8k", "00ff") == int("a91e8d970154a51c", 16) / 2**64
    assert position("gsm8k", "00ff#2") == position("gsm8k", "00ff")


@pytest.mark.parametrize(
    ("config", "dataset"),
    [
        (
            {"dataset_path": "openai/gsm8k", "dataset_name": "main", "test_split": "test"},
            {"dataset": "openai/gsm8k", "config": "main", "split": "test"},
        ),
        (
            {"dataset_path": "org/words", "validation_split": "validation"},
            {"dataset": "org/words", "config": None, "split": "validation"},
        ),
        ({"dataset_path": "json", "test_split": "test"}, None),
        ({"dataset_path": "/data/questions"}, None),
        ({}, None),
    ],
)
def test_a_dataset_on_the_hub_is_named(config: Any, dataset: Any) -> None:
    task = LoadedTask("t", (), "", None, SimpleNamespace(dump_config=lambda: config))
    assert dataset_of(task) == (dataset or {"dataset": None, "config": None, "split": None})

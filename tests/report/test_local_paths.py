"""What leaves the machine names no folder of it: relative paths, users, and what looks like one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relex_merge.report.local_paths import local_names, scrub

SHA = "0" * 40


def clean(*sources: Any) -> list[Any]:
    names = local_names(*sources)
    return [scrub(source, names) for source in sources]


def report(*references: str, hub: tuple[str, ...] = ()) -> dict[str, Any]:
    local = [{"reference": r, "sha": None} for r in references]
    return {"checkpoints": [*local, *({"reference": r, "sha": SHA} for r in hub)]}


def recipe(*models: str) -> dict[str, Any]:
    return {"models": [{"model": model} for model in models]}


def models(recipe: dict[str, Any]) -> list[str]:
    return [entry["model"] for entry in recipe["models"]]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("../alice/run/checkpoint-5", "checkpoint-5"),
        ("./checkpoint-5/", "checkpoint-5"),
        ("..\\alice\\checkpoint-5", "checkpoint-5"),
        ("../../alice/a/../run/checkpoint-5", "checkpoint-5"),
        ("runs/alice/checkpoint-5", "checkpoint-5"),
        ("runs/(v1)/checkpoint-5", "checkpoint-5"),
        ("(v1)/checkpoint-5", "checkpoint-5"),
        ("org/name", "org/name"),
        ("org/name@step_5", "org/name@step_5"),
        ("org/name+../alice/lora", "org/name+lora"),
        ("../alice/model+org/lora", "model+org/lora"),
        ("runs/alice/model+runs/alice/lora", "model+lora"),
        ("checkpoint-5", "checkpoint-5"),
    ],
)
def test_a_relative_path_keeps_its_last_part(written: str, shown: str) -> None:
    (made,) = clean(recipe(written))
    assert models(made) == [shown]


def test_a_folder_that_looks_like_a_repo_is_one_where_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alice" / "checkpoint-5").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (made,) = clean(recipe("alice/checkpoint-5", "org/checkpoint-5"))
    assert models(made) == ["checkpoint-5", "org/checkpoint-5"]


def test_recipe_and_report_give_a_folder_one_name() -> None:
    """The recipe has it as it was written, the report as it was found."""
    written = ("../alice/a/checkpoint-5", "alice/b/checkpoint-5")
    found = report("/data/alice/a/checkpoint-5", "/data/alice/b/checkpoint-5")
    made, said = clean(recipe(*written), found)
    assert models(made) == ["a/checkpoint-5", "b/checkpoint-5"]
    assert [item["reference"] for item in said["checkpoints"]] == models(made)


def test_two_parts_are_local_where_the_report_says_so() -> None:
    made, _ = clean(recipe("alice/checkpoint-5", "org/run"), report("/data/alice/checkpoint-5"))
    assert models(made) == ["checkpoint-5", "org/run"]


def test_folders_of_repos_that_were_read_stay() -> None:
    read = report(hub=("org/run/ckpt/step_5@main",))
    made, said = clean(recipe("org/run/ckpt/step_5@main", "org/run/ckpt/step_90@main"), read)
    assert models(made) == ["org/run/ckpt/step_5@main", "org/run/ckpt/step_90@main"]
    assert said == read


@pytest.mark.parametrize("home", ["/home/alice", "/Users/alice", "C:\\Users\\alice", "/root"])
def test_the_folder_of_a_user_is_in_no_name(home: str) -> None:
    separator = "\\" if "\\" in home else "/"
    paths = [f"{home}{separator}checkpoint-5", f"{separator}data{separator}checkpoint-5", home]
    names = local_names({"models": paths})
    assert not any("alice" in name or "root" in name for name in names.values())
    assert names[home] == "local"


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("../alice/run: bad", "run: bad"),
        ("see /data/(v1)/alice/run, and (/opt/x/y)", "see run, and (y)"),
        ("(v1)/run and (v1)/run/x", "(v1)/run and (v1)/run/x"),
        ("1 ./ 2, a/b and …/c", "1 ./ 2, a/b and …/c"),
    ],
)
def test_paths_inside_sentences(sentence: str, shown: str) -> None:
    (made,) = clean({"reasons": [sentence]})
    assert made == {"reasons": [shown]}


def test_signed_urls_are_blanked() -> None:
    url = "https://cdn.org/x?Expires=9&Signature=abc~def&Key-Pair-Id=K1"
    assert clean(url) == ["https://cdn.org/x?Expires=9&Signature=***&Key-Pair-Id=***"]

"""Promises about steps in names, the choice of steps, and how a recipe is written down."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relex_merge.checkpoints.grouping import gaps
from relex_merge.checkpoints.names import compile_pattern, read_by, read_name
from relex_merge.checkpoints.observe import select
from relex_merge.checkpoints.series import Checkpoint
from relex_merge.checkpoints.steps import step_of
from relex_merge.errors import RelexError
from relex_merge.recipe.braces import expand_braces
from relex_merge.recipe.write import compact, entries

TEN = list(range(10, 101, 10))


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step_50", 50),
        ("step-000000050", 50),
        ("main-step-000000050", 50),
        ("v1.00-step-50", 50),
        ("global_step_50", 50),
        ("checkpoint-50", 50),
        ("ckpt/50", 50),
        ("iter_0000050", 50),
        ("stage1-step1000-tokens5B", 1000),
        ("global_step50_hf", 50),
        ("global_step_50/actor/huggingface", 50),
        ("global_steps_50/actor/huggingface", 50),
        ("runs/a/checkpoint-50", 50),
        ("Training in progress, step 500", 500),
        ("50", 50),
        ("000000050", 50),
        ("checkpoint-50-v2", 50),
        ("main", None),
        ("Qwen2.5-1.5B", None),
        ("v1.5", None),
        ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b", None),
    ],
)
def test_the_step_in_a_name(name: str, step: int | None) -> None:
    found = read_name(name)
    assert (found and found.step) == step
    assert found is None or not found.guessed


def test_a_number_that_does_not_say_what_it_is_is_a_guess() -> None:
    found = read_name("release-7")
    assert found is not None
    assert (found.step, found.guessed) == (7, True)


def test_a_pattern_decides_and_must_have_a_group_of_digits() -> None:
    found = read_by(compile_pattern(r"v(\d+)-step"), "v3-step-50")
    assert found is not None
    assert found.step == 3
    assert read_by(compile_pattern(r"epoch-(\d+)"), "v3-step-50") is None
    with pytest.raises(RelexError, match="has no group"):
        compile_pattern(r"step_\d+")
    with pytest.raises(RelexError, match="no regular expression"):
        compile_pattern(r"step_(\d+")
    with pytest.raises(RelexError, match=r"'v3' in v3-step-50, which is not a step number"):
        read_by(compile_pattern(r"^(\w+)-"), "v3-step-50")


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("10-40", [10, 20, 30, 40]),
        ("1-45", [10, 20, 30, 40]),
        ("10-100:30", [10, 40, 70, 100]),
        ("10,50,100", [10, 50, 100]),
        ("100, 10", [10, 100]),
        ("15%", [10, 20, 30]),
        ("7.5%", [10]),
        ("15%,100", [10, 20, 30, 100]),
        ("10-20,50-100:50", [10, 20, 50, 100]),
    ],
)
def test_observed_steps_are_ranges_strides_lists_and_shares_of_the_run(
    text: str, chosen: list[int]
) -> None:
    assert select(TEN, text, last_step=200) == chosen


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("15", "the nearest that it has: 10, 20"),
        ("1-9", "it has 10, 20, 30, 40, … 100"),
        ("1-100:10", "observe 1-100:10: the series has no such step"),
        ("1..75", "write 1-75, 1-75:5"),
        ("75-1", "a range goes up"),
        ("1-75:0", "strides of at least 1"),
        ("1%", "the series has no such step"),
        ("", "chooses nothing"),
        ("-5", "is no choice of steps"),
    ],
)
def test_what_chooses_no_step_is_refused(text: str, said: str) -> None:
    with pytest.raises(RelexError, match=re.escape(said)):
        select(TEN, text, last_step=200)


def test_gaps_are_those_of_a_series_that_is_regular_elsewhere() -> None:
    assert gaps([10, 20, 30, 50, 60, 90]) == ([40, 70, 80], 10)
    assert gaps([1, 2, 5, 10, 20, 50]) == ([], 1)
    assert gaps([7]) == ([], 0)


def series(*references: tuple[int, str]) -> list[Checkpoint]:
    return [Checkpoint(step, reference, "branches") for step, reference in references]


def test_a_recipe_is_written_in_brace_ranges() -> None:
    def models(template: str, *steps: int) -> list[object]:
        return [e["model"] for e in compact(series(*((s, template.format(s)) for s in steps)))]

    assert models("org/run@step_{}", *range(1, 76)) == ["org/run@step_{1..75}"]
    assert models("org/run@step_{}", *TEN) == ["org/run@step_{10..100..10}"]
    assert models("org/run@main-step-{:09d}", 50, 100, 150) == [
        "org/run@main-step-{000000050..000000150..50}"
    ]
    assert models("org/run/global_step_{}/actor/huggingface@main", 5, 10, 15) == [
        "org/run/global_step_{5..15..5}/actor/huggingface@main"
    ]
    assert models("/runs/10/checkpoint-{}", 10, 20, 30) == ["/runs/10/checkpoint-{10..30..10}"]
    assert models("org/run@step_{}", 1, 2) == ["org/run@step_1", "org/run@step_2"]
    assert models("org/run@step_{}", 10, 20, 40, 50, 60) == [
        "org/run@step_10",
        "org/run@step_20",
        "org/run@step_{40..60..10}",
    ]


def test_a_step_is_written_out_only_where_the_reference_does_not_say_it() -> None:
    sha = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"
    found = entries(series((5, f"org/run@{sha}"), (50, "org/run@50-v2"), (60, "org/run@step_60")))
    assert found == [
        {"model": f"org/run@{sha}", "parameters": {"step": 5}},
        {"model": "org/run@50-v2", "parameters": {"step": 50}},
        {"model": "org/run@step_60"},
    ]


@given(
    st.sets(st.integers(0, 400), min_size=1, max_size=40),
    st.sampled_from(["o/r@step_{}", "o/r@s-{:05d}", "/runs/12/checkpoint-{}", "o/r/c-{}@{:02d}"]),
)
def test_whatever_is_written_compactly_reads_as_the_same_checkpoints(
    steps: set[int], template: str
) -> None:
    listed = series(*((step, template.format(step, step)) for step in sorted(steps)))
    read = []
    for entry in compact(listed):
        own = entry.get("parameters")
        for reference in expand_braces(str(entry["model"])):
            step = own["step"] if isinstance(own, dict) else step_of(reference)
            read.append((step, reference))
    assert read == [(c.step, c.reference) for c in listed]

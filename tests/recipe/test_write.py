"""Promises about how the checkpoints of a series are written down in a recipe."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relex_merge.checkpoints.series import Checkpoint
from relex_merge.checkpoints.steps import step_of
from relex_merge.recipe.braces import expand_braces
from relex_merge.recipe.write import compact, entries

TEN = list(range(10, 101, 10))


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

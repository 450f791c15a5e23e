"""Evaluations made by hand: small, and whole as ``relex_merge.evaluate`` makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from relex_merge.report.candidates import BASE, LAST, Candidate
from relex_merge.report.evaluation import Evaluation

LINE, HALF = Candidate(20), Candidate(20, 0.5, "last")


def entry_of(candidate: Candidate) -> dict[str, Any]:
    """What names a candidate in all entries."""
    return {
        "model": candidate.name,
        "target_step": candidate.target_step,
        "scale": candidate.scale,
        "anchor": candidate.anchor,
    }


def scores(
    candidate: Candidate | str,
    score: float,
    interval: Sequence[float] | None = None,
    *,
    split: str = "reported",
    last: float = 0.5,
) -> dict[str, Any]:
    """An entry of a task with 100 questions, of which the last checkpoint answers half."""
    named = {"model": candidate} if isinstance(candidate, str) else entry_of(candidate)
    return {
        **named,
        "metric": "exact_match,none",
        "score": score,
        "stderr": 0.05,
        "n": 100,
        "repeats": 1,
        "difference": None if interval is None else score - last,
        "difference_stderr": None if interval is None else 0.05,
        "interval": None if interval is None else list(interval),
        "better": None,
        "would_tell": None,
        "split": split,
    }


def make_evaluation(
    *,
    series: str = "abc",
    last_step: float = 9.0,
    kl: float = 0.2,
    skill: float | None = 0.4,
    candidates: Sequence[Candidate] = (LINE, HALF),
    tasks: dict[str, list[dict[str, Any]]] | None = None,
) -> Evaluation:
    """An evaluation with a backtest for target 20; by default the function says yes.

    Args:
        series: fingerprint.
        last_step: of the last observed checkpoint.
        kl: of every candidate from the last observed checkpoint.
        skill: of the functional backtest at the ratio of target 20, None for none.
        candidates: the first is the one that the verdict is about.
        tasks: name → entries.
    """
    tests = [] if skill is None else [{"ratio": 20 / last_step, "skill": skill, "stderr": 0.05}]
    found = {
        "verdict": {
            "verdict": "caution",
            "reasons": ["By hand."],
            "evidence": "function",
            "statements": [
                {
                    "evidence": "function",
                    "verdict": "caution",
                    "says": ["By hand."],
                    "cannot_see": "Anything.",
                }
            ],
        },
        "function": {
            "tokens": 640,
            "prompts": 64,
            "text": "responses of the last observed checkpoint to prompts.jsonl",
            "backtests": tests,
            "candidates": [{**entry_of(c), "kl": kl, "stderr": 0.01} for c in candidates],
            "others": [{"model": BASE, "kl": 0.4, "stderr": 0.02}],
            "responses": [],
        },
        "tasks": tasks or {},
        "chosen": {**entry_of(candidates[-1]), "reasons": ["By hand."]},
        "series": series,
        "last_step": last_step,
        "sentences": [],
        "settings": {"recipe": "recipe.yml", "seed": 0},
        "versions": {"relex-merge": "0.1.0"},
    }
    return cast("Evaluation", found)


def sums(
    interval: Sequence[float] = (0.3, 0.5), score: float = 0.9, candidate: Candidate = LINE
) -> dict[str, list[dict[str, Any]]]:
    """One task on which a candidate is measured; by default it is much better than the last."""
    return {
        "sums": [
            scores(BASE, 0.1, (-0.5, -0.3)),
            scores(LAST, 0.5),
            scores(candidate, score, interval),
            scores(HALF, 0.7, (-0.2, 0.6), split="choosing"),
        ]
    }


def fingerprint(recipe: dict[str, Any]) -> str:
    """The fingerprint of a recipe's series, as an evaluation has it."""
    from mergekit.options import MergeOptions

    from relex_merge.pipeline.prepare import prepare
    from relex_merge.recipe.load import load_recipe
    from relex_merge.recipe.variant import Variant

    return prepare(load_recipe(recipe), [Variant()], MergeOptions()).fingerprint()

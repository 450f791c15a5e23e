"""The parts fit together: from prompts to a file that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from relex_merge.evaluation.assemble import About, TextResults, assemble
from relex_merge.evaluation.choice import choose_by_function
from relex_merge.evaluation.divergence import divergence, reference
from relex_merge.evaluation.estimates import skill
from relex_merge.evaluation.responses import describe
from relex_merge.evaluation.sampling import Sampling, end_tokens, sample_responses
from relex_merge.evaluation.text import read_prompts
from relex_merge.evaluation.tokens import longest, tokenise
from relex_merge.report.candidates import BASE, Candidate
from relex_merge.report.evaluation_file import read_evaluation, write_evaluation
from relex_merge.report.final_verdict import Geometry, decide
from relex_merge.report.functional import Backtest, Function, skill_at
from tests.evaluation.conftest import load
from tests.support.models import Series


def test_from_prompts_to_a_verdict(
    series: Series, base: Any, last: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """The last checkpoint but one stands for a prediction.

    It is nearer to the last one than the middle one is, so the backtest has skill, and everything
    lies inside the trust region.
    """
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"{n}+{n}=\n" for n in range(8)))
    items = tokenise(read_prompts(prompts), tokenizer, limit=longest(last, tokenizer))
    responses = sample_responses(
        last, tokenizer, items, Sampling(samples=2, max_new_tokens=8), name="step 9"
    )
    held, predicted = load(series.checkpoints[2]), load(series.checkpoints[3])
    ratio = series.steps[-1] / series.steps[2]
    with reference(last, responses, name="step 9") as known:
        near = divergence(known, predicted, name="predicted")
        tests = [Backtest(ratio, skill(near, divergence(known, held, name="step 4")))]
        own = Candidate(series.steps[-1] * ratio)
        function = {own: Function(near.mean(), ratio, skill_at(tests, ratio))}
        verdict = decide(Geometry("do not extrapolate", ["bf16"]), function[own])
        text = TextResults(
            str(prompts),
            known.tokens,
            len(items),
            tests,
            {own: near.mean()},
            {BASE: divergence(known, base, name="base").mean()},
            {"last observed": describe(responses, end_tokens(last, tokenizer))},
        )
    evaluation = assemble(
        About("series", series.steps[-1], {}, {}),
        verdict,
        text,
        {},
        choose_by_function(own, function),
    )
    write_evaluation(tmp_path / "evaluation.json", evaluation)
    found = read_evaluation(tmp_path / "evaluation.json", series="series")
    assert (found["verdict"]["verdict"], found["verdict"]["evidence"]) == (
        "extrapolate",
        "function",
    )
    assert found["chosen"]["target_step"] == own.target_step
    (entry,) = found["function"]["candidates"]
    (other,) = found["function"]["others"]
    assert 0 < entry["kl"] < other["kl"]
    assert np.isfinite(entry["stderr"] or np.nan)

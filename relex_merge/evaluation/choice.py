"""The rule of choice: which candidate is written instead of the last observed checkpoint.

With labels (paired differences on the questions that choose):

1. Candidates whose 95 % interval lies above zero are clearly better. Of these the one with the
   largest mean difference is chosen; at the same mean one that the functional figures support,
   then the one nearest to the last observed checkpoint (smallest KL).
2. Where none is clearly better the evidence is equal, and the functional figures must speak for a
   candidate too: of those whose mean difference is not negative and which the figures support
   (:attr:`relex_merge.report.functional.Function.supports`) the one with the largest mean
   difference is chosen, at the same mean the nearest.
3. Otherwise the last observed checkpoint stays.

The intervals are not widened for the number of candidates: the questions that are reported, which
had no part in the choice, tell afterwards what it is worth.

Without labels the recipe's own target is chosen where the functional figures support it, else the
supported candidate that goes furthest (largest KL that is still near), else the last observed
checkpoint stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from relex_merge.report.candidates import Candidate
from relex_merge.report.difference import Difference
from relex_merge.report.functional import Function


@dataclass(frozen=True)
class Choice:
    """chosen: None for the last observed checkpoint. reasons: sentences, the weightiest first."""

    chosen: Candidate | None
    reasons: Sequence[str]


def choose_by_labels(
    labels: Mapping[Candidate, Difference], function: Mapping[Candidate, Function]
) -> Choice:
    """Choose by the questions that choose (module text, rules 1 to 3).

    Args:
        labels: paired differences of the candidates that were asked all these questions.
        function: functional figures; a candidate without any is not supported by them.
    """
    near = {c: function[c].kl.value if c in function else float("inf") for c in labels}
    supported = {c: c in function and function[c].supports for c in labels}
    clear = [c for c in labels if labels[c].low > 0]
    if clear:
        best = max(clear, key=lambda c: (labels[c].mean, supported[c], -near[c]))
        return Choice(
            best,
            [
                f"{best.name} is clearly better than the last observed checkpoint on the questions "
                f"that choose: {_interval(labels[best])}.",
                _count(len(clear), len(labels), "clearly better"),
            ],
        )
    equal = [c for c in labels if labels[c].mean >= 0 and supported[c]]
    if equal:
        best = max(equal, key=lambda c: (labels[c].mean, -near[c]))
        return Choice(
            best,
            [
                "No candidate is clearly better than the last observed checkpoint on the "
                f"questions that choose; {best.name} is not worse ({_interval(labels[best])}) and "
                f"the functional figures support it: {_figures(function[best])}.",
            ],
        )
    best = max(labels, key=lambda c: labels[c].mean)
    return Choice(
        None,
        [
            "No candidate is clearly better than the last observed checkpoint on the questions "
            f"that choose, and none that is not worse has the functional figures behind it; the "
            f"best is {best.name} with {_interval(labels[best])}.",
        ],
    )


def choose_by_function(own: Candidate, function: Mapping[Candidate, Function]) -> Choice:
    """Choose without labels (module text).

    Args:
        own: the recipe's own target at scale 1.
        function: functional figures of all candidates.
    """
    supported = [c for c in function if function[c].supports]
    if own in supported:
        return Choice(own, [f"The functional figures support it: {_figures(function[own])}."])
    if supported:
        best = max(supported, key=lambda c: (function[c].kl.value, c))
        return Choice(
            best,
            [
                f"The functional figures do not support {own.name} "
                f"({_figures(function[own])}); of those that they support {best.name} goes "
                f"furthest: {_figures(function[best])}.",
            ],
        )
    return Choice(
        None,
        [
            f"The functional figures support none of {len(function)} candidates; {own.name}: "
            f"{_figures(function[own])}.",
        ],
    )


def _interval(d: Difference) -> str:
    return f"{d.mean:+.3f}, 95 % interval {d.low:+.3f} to {d.high:+.3f}, {d.n} questions"


def _figures(f: Function) -> str:
    skill = "no backtest" if f.skill is None else f"backtest skill {f.skill.value:+.2f}"
    return f"{skill}, KL {f.kl.value:.3g} nats a token ({f.place})"


def _count(some: int, all_: int, what: str) -> str:
    return f"{some} of {all_} finalists {'is' if some == 1 else 'are'} {what}."

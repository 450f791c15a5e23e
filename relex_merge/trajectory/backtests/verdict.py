"""The verdict: may this trajectory be extrapolated this far?

Two witnesses must agree: the backtest at the user's own ratio, and the skill that all backtests
together lead one to expect at the target (:mod:`relex_merge.trajectory.backtests.error_law`). Both
positive, the latter clearly so: ``extrapolate``. Both negative, the latter clearly so: ``do not
extrapolate``. Otherwise ``caution``: on runs of known truth, four in ten of those gained. Where
fewer than three checkpoints lie before the cut the first witness is missing, and only a clear no is
a verdict.

Where the files hold 16 bits a number the witnesses are heard only if they could have said yes: a
perfectly straight run, stored the same way, must pass
(:mod:`relex_merge.trajectory.backtests.rounding`). If not even that would, the verdict is ``weights
cannot tell``, whatever the witnesses said, held-out checkpoints included.

Of a sampled series every figure has a standard error. Where the sign of one that the word hangs on
is not clear, the verdict is ``sample too small to tell``
(:mod:`relex_merge.report.sampled`).

The rule, its threshold and how often it was right on runs of known truth are reported by
``tests/benchmarks/calibrate_verdict.py``; the threshold was fixed there on one set of seeds and
tested on another. ``tests/benchmarks/rounding_control.py`` reports what the control changes.
"""

from __future__ import annotations

from typing import get_args

import numpy as np

from relex_merge.trajectory.backtests.reasons import explain
from relex_merge.trajectory.backtests.results import STAY, Evidence, Verdict, Word

VERDICTS: tuple[Word, ...] = get_args(Word)
EXTRAPOLATE: Word = "extrapolate"
CAUTION: Word = "caution"
DO_NOT: Word = "do not extrapolate"
NOT_ENOUGH: Word = "not enough checkpoints to tell"
BLIND: Word = "weights cannot tell"
UNSETTLED: Word = "sample too small to tell"
NOTHING: Word = "nothing to extrapolate"

TINY = 1e-12  # error / standing still below which a prediction is perfect
CLEAR = 1.0  # standard deviations of the error law that make the sign of a skill clear


def decide(evidence: Evidence, *, clear: float = CLEAR) -> Verdict:
    """Return the verdict on ``evidence``, with its reasons.

    Args:
        evidence: What is known before extrapolating.
        clear: Standard deviations of the error law that make the sign of a skill clear (for the
            calibration).
    """
    word = _word(evidence, clear)
    supported = supported_target(evidence, clear)
    if word == EXTRAPOLATE:
        supported = max(supported or 0.0, evidence.target)
    return Verdict(word, explain(evidence, word, supported), supported)


def _word(evidence: Evidence, clear: float) -> Word:
    stays = evidence.predictor == STAY  # the last observed checkpoint is kept
    if evidence.ratio is None and not stays:
        return NOTHING  # the target was observed or lies between checkpoints
    word = DO_NOT if stays else _of_backtests(evidence, clear)
    return BLIND if word != NOT_ENOUGH and _blind(evidence, clear) else word


def _of_backtests(evidence: Evidence, clear: float) -> Word:
    law, ratio, tested = evidence.law, evidence.ratio or 0.0, evidence.same_ratio
    if _refuted(evidence):
        return DO_NOT
    if law is None:
        return NOT_ENOUGH
    if tested is None:
        return DO_NOT if law.skill(ratio, clear) < 0 else NOT_ENOUGH
    if tested > 0:
        return EXTRAPOLATE if law.skill(ratio, -clear) > 0 else CAUTION
    return DO_NOT if law.skill(ratio, clear) < 0 else CAUTION


def _blind(evidence: Evidence, clear: float) -> bool:
    """Return whether a straight run would not pass either, stored as these files are."""
    control, ratio = evidence.rounding, evidence.ratio
    if control is None or ratio is None:
        return False
    if control.skill is not None and control.skill <= 0:
        return True
    return control.law is not None and control.law.skill(ratio, -clear) <= 0


def margins(evidence: Evidence, clear: float = CLEAR) -> dict[str, float]:
    """Return the figures whose signs the word hangs on; the sign is that of the skill.

    A figure is −log(error / standing still), whose estimates scatter evenly to both sides, as those
    of a skill, which has no lower bound, do not.

    Args:
        evidence: What is known before extrapolating.
        clear: As for :func:`decide`.
    """
    ratio, law, control = evidence.ratio, evidence.law, evidence.rounding
    if ratio is None or evidence.predictor == STAY:
        return {}
    word, tested = _of_backtests(evidence, clear), evidence.same_ratio
    known = [skill for step, skill in evidence.held_out if step <= evidence.target]
    found = {"held_out": known[-1] if known else None}
    if control is not None:
        found["control"] = control.skill
        found["control_law"] = None if control.law is None else control.law.skill(ratio, -clear)
    if not _refuted(evidence) and law is not None and word != NOT_ENOUGH:
        found["backtest"] = tested
        found["law"] = law.skill(ratio, -clear if tested is not None and tested > 0 else clear)
    if _blind(evidence, clear):
        found = {key: found.get(key) for key in ("control", "control_law")}
    return {
        name: -float(np.log(max(1 - skill, TINY)))
        for name, skill in found.items()
        if skill is not None
    }


def _refuted(evidence: Evidence) -> bool:
    """Return whether standing still beat the prediction of a held-out checkpoint.

    The furthest one up to the target counts. Good held-out skill short of the target proves
    nothing about the target.
    """
    known = [skill for step, skill in evidence.held_out if step <= evidence.target]
    return bool(known) and known[-1] is not None and known[-1] < 0


def supported_target(evidence: Evidence, clear: float = CLEAR) -> float | None:
    """Return the furthest step up to which the expected skill is clearly positive.

    None where that is no step beyond the last observed one.
    """
    law = evidence.law
    if law is None:
        return None
    ratios = np.geomspace(law.narrowest, law.widest, 200)
    positive = [law.skill(float(ratio), -clear) > 0 for ratio in ratios]
    count = positive.index(False) if False in positive else len(positive)
    furthest = float(np.floor(evidence.last_step * ratios[count - 1])) if count else 0.0
    return furthest if furthest > evidence.last_step else None

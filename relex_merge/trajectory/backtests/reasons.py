"""The reasons for a verdict and for a choice, in words a practitioner understands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from relex_merge.formatting import cell
from relex_merge.trajectory.backtests.gaps import Gap
from relex_merge.trajectory.backtests.results import STAY, Candidate, Evidence, Word
from relex_merge.trajectory.gram import least_squares_rows
from relex_merge.trajectory.predictors import PREDICTORS
from relex_merge.trajectory.predictors.history import FEWEST_FITTED

COARSE = 0.05  # share of moved weights below which 16-bit files are called too coarse
HALF_PRECISION = ("bfloat16", "float16")
CROOKED = 0.5  # straightness below which a path is called poor
OFFSET = 3.0  # times the length of the path that lies between it and a suspicious base
CURVED = 2.0  # standard errors by which a quadratic must beat the line
STEADY = (0.8, 1.25)  # speed at the end of the window over its mean that still counts as even


def explain(evidence: Evidence, word: Word, supported: float | None) -> list[str]:
    """Return the verdict's reasons, the weightiest first; those that do not apply are left out.

    Args:
        evidence: What the verdict is decided on.
        word: The verdict.
        supported: The furthest step that the backtests support; None where there is none.
    """
    rounded = _explained_by_rounding(evidence, word)
    speed = "" if rounded else _speed(evidence)  # rounding bends coefficients too
    if evidence.predictor == STAY:
        sentences = [_standing_still(evidence), speed]
    elif evidence.ratio is None:
        sentences = [_within(evidence)]
    else:
        sentences = [
            _held_out(evidence),
            _same_ratio(evidence),
            _expectation(evidence),
            _furthest(evidence, supported),
            speed,
        ]
    first = _rounding(evidence, word) if rounded else _wrong_base(evidence)
    coarse = "" if rounded else _coarse(evidence)
    return [s for s in [first, *sentences, _spectrum(evidence, word), coarse] if s]


def _explained_by_rounding(e: Evidence, word: Word) -> bool:
    """Return whether rounding alone makes skill or straightness as poor as they are."""
    straight = e.figures["straightness"]
    if e.rounding is None or straight is None:
        return False
    no_skill = e.rounding.skill is not None and e.rounding.skill <= 0
    crooked = straight < CROOKED and e.rounding.straightness < CROOKED
    return word == "weights cannot tell" or no_skill or crooked


def _rounding(e: Evidence, word: Word) -> str:
    r = e.rounding
    assert r is not None  # only said where it explains something
    skill = "" if r.skill is None else f", and skill {r.skill:+.2f} in the backtest at your ratio"
    verdict = (
        "Weights cannot tell here: `relex-merge evaluate RECIPE` measures what the models do. "
        if word == "weights cannot tell"
        else ""
    )
    return (
        f"The files are {r.dtype}, and about {r.share:.0%} of what they show as movement is "
        f"rounding ({e.figures['moved']:.1%} of the weights differ from the base). A perfectly "
        f"straight run stored like this would show straightness {r.straightness:.2f}{skill}. "
        f"{verdict}Save the checkpoints in float32 if you can."
    )


def _wrong_base(e: Evidence) -> str:
    """Notice checkpoints whose distances from the base make no sense for a run that began there."""
    if len(e.distances) < 2 or e.distances[-1] == 0:
        return ""
    steps, distances = np.asarray(e.steps), np.asarray(e.distances)
    line = least_squares_rows(steps, steps[[0, -1]]) @ distances
    question = "Is the recipe's base_model really the model that this run started from?"
    if distances[0] > distances[-1] or line[0] > line[1]:
        return (
            f"The checkpoints come nearer to the base with the steps: their distance from it is "
            f"{distances[0]:.3g} at step {steps[0]:g} and {distances[-1]:.3g} at step "
            f"{steps[-1]:g}. {question}"
        )
    if steps[0] <= steps[-1] / 4 and distances[0] > OFFSET * e.path:
        return (
            f"The first checkpoint, step {steps[0]:g}, is {distances[0]:.3g} away from the base, "
            f"and the last one only {e.path:.3g} away from the first. {question}"
        )
    return ""


def _standing_still(e: Evidence) -> str:
    return f"The last observed checkpoint, step {e.last_step:g}, is kept as it is."


def _within(e: Evidence) -> str:
    return (
        f"Step {e.target:g} is not beyond the last observed step {e.last_step:g}: nothing is "
        "extrapolated."
    )


def _held_out(e: Evidence) -> str:
    """Speak of the furthest held-out checkpoint up to the target, or the nearest beyond it."""
    known = [(step, skill) for step, skill in e.held_out if skill is not None]
    if not known:
        return ""
    step, skill = max((k for k in known if k[0] <= e.target), default=known[0])
    return (
        f"Held-out checkpoint at step {step:g}: the prediction is {_better_or_worse(skill)} "
        f"(true skill {cell(skill, '+.2f')})."
    )


def _better_or_worse(skill: float) -> str:
    miss = float(np.sqrt(1 - skill))
    if skill > 0:
        return f"closer to the truth than the last fitted checkpoint, at {miss:.0%} of its distance"
    return f"{miss:.1f} times as far from the truth as simply keeping the last fitted checkpoint"


def _same_ratio(e: Evidence) -> str:
    skill, ratio = e.same_ratio, e.ratio or 0.0
    if skill is None and e.cut < FEWEST_FITTED:
        return (
            f"Your ratio of {ratio:.3g}× cannot be backtested: only {e.cut} of {e.checkpoints} "
            f"checkpoints lie before step {e.last_step / ratio:.3g}."
        )
    if skill is None and e.cut == e.checkpoints:
        return f"Your ratio of {ratio:.3g}× is too near to 1 for a backtest."
    if skill is None:
        return (
            f"The backtest at your ratio of {ratio:.3g}× says nothing: from step "
            f"{e.last_step / ratio:.3g} on no weight moved, or {e.cut} checkpoints before it are "
            "too few for this predictor."
        )
    return (
        f"Backtest at your ratio of {ratio:.3g}×: fitted on the first {e.cut} of {e.checkpoints} "
        f"checkpoints, the prediction of the last one is {_better_or_worse(skill)} "
        f"(skill {cell(skill, '+.2f')}; 1 is perfect, 0 is standing still)."
    )


def _expectation(e: Evidence) -> str:
    if e.law is None:
        return (
            f"{e.checkpoints} checkpoints allow too few backtests to say more; save checkpoints "
            "more often, or from earlier in the run."
        )
    ratio = e.ratio or 0.0
    if ratio > e.law.widest * 1.05:
        if e.same_ratio is not None:  # a perfect one is beyond the law, which takes logarithms
            return ""
        return (
            f"No backtest reached further than {e.law.widest:.3g}×; nothing that was measured "
            f"speaks for {ratio:.3g}×."
        )
    low, middle, high = (cell(e.law.skill(ratio, z), "+.2f") for z in (-1, 0, 1))
    return (
        f"All backtests together, which use the longer windows too, put the skill at step "
        f"{e.target:g} at {middle} (likely {low} to {high})."
    )


def _furthest(e: Evidence, supported: float | None) -> str:
    if e.law is None:
        return ""
    if supported is None:
        return "No target beyond the last observed step has clear support in the backtests."
    if supported >= e.target:
        return ""
    return (
        f"The backtests support targets up to about step {supported:g} "
        f"({supported / e.last_step:.3g}×)."
    )


def _speed(e: Evidence) -> str:
    speed, chance = e.figures["end_speed"], e.figures["curvature_chance"]
    if speed is None or chance is None or chance < CURVED:
        return ""
    if speed < STEADY[0]:
        return (
            f"The movement slows down: at the last checkpoint its speed is {max(speed, 0):.0%} of "
            f"the mean{', so a straight line overshoots' * (e.predictor == 'linear')}."
        )
    if speed > STEADY[1]:
        return (
            f"The movement speeds up: at the last checkpoint its speed is {speed:.0%} of the mean "
            "(a warm-up inside the window? Leave it out with `window`)."
        )
    return ""


def _spectrum(e: Evidence, word: Word) -> str:
    found, walk = e.figures["explained_variance"], e.walk["explained_variance"]
    if found is None:
        return "No weight moved at all."
    straight, random = e.figures["straightness"], e.walk["straightness"]
    text = (
        f"Explained variance {found:.3f} (a random walk of this length: {cell(walk, '.3f')}), "
        f"straightness {cell(straight, '.2f')} (a line 1, a random walk {cell(random, '.2f')})"
    )
    straighter = word == "extrapolate" or straight is None or random is None or straight > random
    # As many directions as checkpoints explain everything.
    if walk is not None and found <= walk < 1 - 1e-9 and not straighter:
        return f"{text}: the path is no straighter than a random walk's."
    return f"{text}."


def _coarse(e: Evidence) -> str:
    moved = e.figures["moved"]
    if moved >= COARSE or e.dtype not in HALF_PRECISION:
        return ""
    return (
        f"Only {moved:.1%} of the weights differ from the base at the last checkpoint: {e.dtype} "
        "files round small updates away. Save the checkpoints in float32 if you can."
    )


def too_few(T: int, fewest: int) -> str:
    """Say that T checkpoints are too few, since a choice needs ``fewest``."""
    return (
        f"{T} checkpoints are too few to choose by: a choice needs at least {fewest}. Observe "
        f"more, or name a predictor (one of {', '.join(PREDICTORS)})."
    )


def not_judged(gap: Gap) -> str:
    """Say of a predictor that its arithmetic failed, so that it could not be judged everywhere."""
    name = gap["part"].rpartition(".")[2]
    return f"{name} could not be judged at every cut: {gap['reason']}."


def nothing_supported(last: float, names: Sequence[str]) -> str:
    """Say that no step beyond ``last`` is supported under any predictor of ``names``."""
    which = f"predictor: {names[0]}" if len(names) == 1 else "any predictor"
    return (
        f"No step beyond the last observed one, {last:g}, has clearly positive predicted skill "
        f"under {which}: stop there."
    )


def refusal(
    candidates: Sequence[Candidate], widest: float | None, ratio: float, target: float
) -> str:
    """Say why standing still was chosen.

    Args:
        candidates: What it was chosen from.
        widest: The furthest ratio that was backtested; None where none was.
        ratio: target / s_T.
        target: The step.
    """
    known = [c for c in candidates if c.skill is not None]
    if not known:
        reach = "there are too few backtests" if widest is None else f"none reaches {ratio:.3g}×"
        return (
            f"Nothing that was backtested speaks for step {target:g} ({reach}): the last observed "
            "checkpoint is kept. Choose a nearer target, or name a predictor."
        )
    best = max(known, key=lambda c: c.skill or 0.0)
    return (
        f"No predictor is clearly expected to come closer to step {target:g} than the last "
        f"observed checkpoint (the best, {best.name}: {_figures(best)}): it is kept."
    )


def praise(best: Candidate, candidates: Sequence[Candidate], target: float) -> str:
    """Say why ``best`` was chosen among ``candidates`` for step ``target``."""
    text = f"{best.name} has the best backtests for step {target:g} ({_figures(best)})"
    line = next((c for c in candidates if c.name == "linear" and c.skill is not None), None)
    ahead = [c for c in candidates if (c.skill or -np.inf) > (best.skill or 0.0)]
    if best.name != "linear":
        return f"{text}; the line: {_figures(line)}." if line else f"{text}."
    if ahead:
        rival = max(ahead, key=lambda c: c.skill or 0.0)
        return (
            f"linear keeps its place for step {target:g} ({_figures(best)}): "
            f"{rival.name} ({_figures(rival)}) is not clearly better."
        )
    return f"{text}."


def _figures(candidate: Candidate) -> str:
    same = (
        ""
        if candidate.same_ratio is None
        else f", {candidate.same_ratio:+.2f} in the backtest at that ratio"
    )
    return f"expected skill {candidate.expected:+.2f}{same}"

"""The method's shared parameters as one checked value: which w is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relex_merge.errors import RelexError
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.predictors import (
    AUTO,
    PREDICTORS,
    RECONSTRUCTION,
    FitParameters,
    Predictor,
)
from relex_merge.trajectory.predictors.anchored import ANCHORS, anchored

MODES = ("extrapolate", "reconstruct")
SCOPES = ("model", "module", "tensor")


@dataclass(frozen=True)
class Parameters:
    """The shared parameters of the method for one tensor, checked.

    Attributes:
        target_step: The step that is predicted.
        rank: How many directions of the trajectory are kept.
        degree: Of the polynomial that continues the coefficients.
        window: How many of the last checkpoints enter the fit; None for all.
        mode: One of ``MODES``.
        predictor: One of ``PREDICTORS``, or "auto" until
            :mod:`relex_merge.trajectory.backtests.automatic` has chosen one, once for each
            ``scope``.
        scope: One of ``SCOPES``.
        auto_target: ``target_step`` is a place-holder until one is chosen.
        anchor: One of ``ANCHORS``: what the displacement starts from.
        scale: λ, by which the displacement from the last observed step is multiplied.

    Raises:
        RelexError: A parameter is out of its range.
    """

    target_step: float
    rank: int = 1
    degree: int = 1
    window: int | None = None
    mode: str = "extrapolate"
    predictor: str = "linear"
    scope: str = "model"
    auto_target: bool = False
    anchor: str = "line"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise RelexError(f"mode is {self.mode!r}; it can be {' or '.join(MODES)}")
        if self.predictor == "blend":
            raise RelexError(
                f"predictor: blend was removed; use {AUTO}, which picks by backtests, or name one "
                f"of {', '.join(PREDICTORS)}"
            )
        if self.predictor not in (AUTO, *PREDICTORS):
            raise RelexError(
                f"predictor is {self.predictor!r}; it can be {', '.join(PREDICTORS)} or {AUTO}"
            )
        if self.scope not in SCOPES:
            raise RelexError(f"scope is {self.scope!r}; it can be {', '.join(SCOPES)}")
        if self.mode == "reconstruct" and self.predictor != "linear":
            raise RelexError(
                f"predictor: {self.predictor} is for mode: extrapolate; leave one of them out"
            )
        if self.auto_target and self.mode == "reconstruct":
            raise RelexError("target_step: auto is for mode: extrapolate; name the step")
        if not np.isfinite(self.target_step) or self.target_step < 0:
            raise RelexError(f"target_step is {self.target_step}; it must be a step number ≥ 0")
        self._check_anchor()
        if self.degree < 1:
            raise RelexError(f"degree is {self.degree}; it must be at least 1 (a line)")
        if self.degree > 1 and self.predictor != "linear":
            raise RelexError(f"degree is for predictor: linear, not {self.predictor}; leave it out")

    def _check_anchor(self) -> None:
        if self.anchor not in ANCHORS:
            raise RelexError(f"anchor is {self.anchor!r}; it can be {', '.join(ANCHORS)}")
        if not np.isfinite(self.scale):
            raise RelexError(f"scale is {self.scale}; it must be a number, 1 for the plain method")
        if self.mode == "reconstruct" and (self.anchor != "line" or self.scale != 1):
            raise RelexError("anchor and scale are for mode: extrapolate; leave them out")
        if self.anchor == "average" and self.window is None:
            raise RelexError(
                "anchor: average is the mean of the last checkpoints; say how many with window"
            )

    @property
    def is_open(self) -> bool:
        """Whether something is still to be chosen from the Gram matrices."""
        return self.mode == "extrapolate" and (self.auto_target or self.predictor == AUTO)

    def check(self, steps: Array) -> None:
        """Check the parameters against a series of checkpoints.

        Args:
            steps: (T,) ascending.

        Raises:
            RelexError: They do not fit such a series.
        """
        T = len(steps)
        if T < 2:
            raise RelexError(
                f"a trajectory needs at least two checkpoints besides the base, not {T}"
            )
        if not 1 <= self.rank <= T:
            raise RelexError(f"rank is {self.rank}; with {T} checkpoints it must be 1 to {T}")
        if self.mode == "reconstruct":
            if self.target_step not in steps:
                raise RelexError(
                    f"mode: reconstruct needs a target_step that was observed; {self.target_step:g}"
                    f" was not (observed: {', '.join(f'{s:g}' for s in steps)})"
                )
            return
        self._check_predictor(steps)
        if self.degree >= T:
            raise RelexError(
                f"degree is {self.degree}; {T} checkpoints determine at most degree {T - 1}"
            )
        window = T if self.window is None else self.window
        if not self.degree + 1 <= window <= T:
            raise RelexError(
                f"window is {window}; a fit of degree {self.degree} over {T} checkpoints needs a "
                f"window from {self.degree + 1} to {T}"
            )

    def _check_predictor(self, steps: Array) -> None:
        predictor = PREDICTORS.get(self.predictor)
        if predictor is None:
            return
        if len(steps) < predictor.needs:
            raise RelexError(
                f"predictor: {predictor.name} needs at least {predictor.needs} checkpoints, there "
                f"are {len(steps)}; observe more, or take another predictor"
            )
        if not predictor.is_enough(steps):
            raise RelexError(
                f"predictor: {predictor.name} needs steps above 0, and the first checkpoint is at "
                f"step {min(steps):g}; leave it out, or take predictor: linear"
            )

    @property
    def fit(self) -> FitParameters:
        """How coefficients are fitted."""
        return FitParameters(self.rank, self.window, self.degree)

    def weights(self, gram: Array, steps: Array) -> Array:
        """Return w (T,) with θ̂ = θ₀ + Σ_t w_t δ_t, for G (T, T) at ``steps`` (T,) ascending.

        The predictor must have been chosen. A tensor that never moved gets 0, unless it is to stay
        at its last checkpoint, which is the base as well.
        """
        return self.rule.weights(gram, steps, self.target_step)

    @property
    def rule(self) -> Predictor:
        """The predictor with its fit, anchored and scaled. It must have been chosen."""
        if self.mode == "reconstruct":
            return RECONSTRUCTION.with_fit(self.fit)
        return anchored(PREDICTORS[self.predictor], self.anchor, self.scale).with_fit(self.fit)

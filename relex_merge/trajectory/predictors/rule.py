"""The form that every predictor has once its parameters are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.predictors.history import History

# (history of h checkpoints, target steps (J,)) → W (N, J, h); N is 1 where W does not depend on G
Rule: TypeAlias = Callable[[History, Array], Array]

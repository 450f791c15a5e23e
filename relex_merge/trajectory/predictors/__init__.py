"""Predictors: rules from the Gram matrix G, the steps and a target to a weight vector w.

:data:`PREDICTORS` names them all. They take many tensors at once
(:class:`~relex_merge.trajectory.predictors.history.History`), so that the trust report can try them
at every cut; :meth:`Predictor.weights` is the same for one tensor and one target.
"""

from __future__ import annotations

from relex_merge.trajectory.predictors.history import FitParameters
from relex_merge.trajectory.predictors.registry import AUTO, PREDICTORS, RECONSTRUCTION, Predictor

__all__ = ["AUTO", "PREDICTORS", "RECONSTRUCTION", "FitParameters", "Predictor"]

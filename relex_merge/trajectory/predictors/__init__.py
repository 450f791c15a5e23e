"""Continuations of a weight trajectory: each a function from G and the steps to weights w.

Every predictor is one file with its formula and source; :data:`PREDICTORS` names them all. They
take many tensors at once (:class:`~relex_merge.trajectory.predictors.history.History`), so that the
trust report can try them at every cut; :func:`weights` is the same for one tensor and one target.
"""

from __future__ import annotations

from relex_merge.trajectory.predictors.registry import AUTO, PREDICTORS, Entry, weights

__all__ = ["AUTO", "PREDICTORS", "Entry", "weights"]

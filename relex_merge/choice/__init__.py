"""``predictor: auto`` and ``target_step: auto``: what is chosen from the Gram matrices, and why.

:func:`choose` decides for a series, :func:`resolve` settles what a recipe leaves open.
"""

from __future__ import annotations

from relex_merge.choice.choose import CANDIDATES, FEWEST, choose
from relex_merge.choice.resolve import Resolved, resolve
from relex_merge.choice.results import Candidate, Choice, Group, Trial

__all__ = [
    "CANDIDATES",
    "FEWEST",
    "Candidate",
    "Choice",
    "Group",
    "Resolved",
    "Trial",
    "choose",
    "resolve",
]

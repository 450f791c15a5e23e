"""Scores of models on tasks, question by question."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from relex_merge.errors import RelexError
from relex_merge.evaluation.estimates import Array
from relex_merge.report.estimate import Estimate


@dataclass(frozen=True)
class TaskScores:
    """One model's scores on one task.

    values: question → score, the mean over ``repeats`` answers. metric: what the score is,
    ``metric,filter`` as in lm-eval. prompts: question → hash of what the model was asked; empty
    where that is not known.
    """

    values: Mapping[str, float]
    metric: str = "score"
    higher_is_better: bool = True
    prompts: Mapping[str, str] = field(default_factory=dict)
    repeats: int = 1

    def only(self, documents: Collection[str]) -> TaskScores:
        """Return the scores on some questions."""
        return replace(self, values={d: v for d, v in self.values.items() if d in set(documents)})

    def joined(self, other: TaskScores) -> TaskScores:
        """Return these scores and those on other questions together."""
        return replace(
            self,
            values={**self.values, **other.values},
            prompts={**self.prompts, **other.prompts},
        )

    def mean(self) -> Estimate:
        """Return the mean score and its standard error, s/√n over the questions."""
        values = np.array(list(self.values.values()))
        stderr = float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None
        return Estimate(float(values.mean()), stderr)


def differences(model: TaskScores, last: TaskScores, *, task: str, name: str) -> Array:
    """Return model minus last observed checkpoint, question by question.

    Args:
        model: scores of the model.
        last: scores of the last observed checkpoint.
        task: the task's name, for messages.
        name: the model's name, for messages.

    Returns:
        float64 (n,) over the questions that both answered, in a fixed order; positive is better,
        also where a low score is good.

    Raises:
        RelexError: the two were asked differently, or share no question.
    """
    shared = sorted(model.values.keys() & last.values.keys())
    if not shared:
        raise RelexError(f"{name} and the last observed checkpoint share no question of {task}")
    for document in shared:
        asked = (model.prompts.get(document), last.prompts.get(document))
        if None not in asked and asked[0] != asked[1]:
            raise RelexError(
                f"{task}: {name} was asked otherwise than the last observed checkpoint; use the "
                "same tokenizer, chat template and few-shot examples for both"
            )
    sign = 1.0 if model.higher_is_better else -1.0
    return np.array([sign * (model.values[d] - last.values[d]) for d in shared])

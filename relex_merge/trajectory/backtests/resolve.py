"""What a recipe leaves open, settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from relex_merge.errors import RelexError
from relex_merge.trajectory.backtests.automatic import CANDIDATES, choose
from relex_merge.trajectory.backtests.results import Choice
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.predictors import AUTO
from relex_merge.trajectory.statistics import SeriesStatistics


@dataclass(frozen=True)
class Resolved:
    """parameters: tensor → concrete parameters; choice: how they were found, None where the recipe
    left nothing open.
    """

    parameters: dict[str, Parameters]
    choice: Choice | None


def resolve(parameters: Mapping[str, Parameters], statistics: SeriesStatistics) -> Resolved:
    """Make ``auto`` concrete; parameters that leave nothing open stay as they are.

    parameters: tensor → what the recipe asks for; statistics: of the observed checkpoints of these
    tensors, however G was formed. With ``target_step: auto`` all tensors get one target. Raises
    RelexError as :func:`choose`, and where target and predictor are filtered in ways that no one
    choice can meet.
    """
    known = {name: p for name, p in parameters.items() if name in statistics.tensors}
    asked = {name: p for name, p in known.items() if p.is_open}
    if not asked:
        return Resolved(dict(parameters), None)
    shapes = {
        (p.predictor, p.rank, p.window, p.scope, p.auto_target, p.target_step)
        for p in asked.values()
    }
    if len(shapes) > 1:
        raise RelexError(
            "filters give the tensors different settings of what is chosen automatically; give "
            "predictor, rank, window, scope and target_step: auto without filters, or name the "
            "predictors"
        )
    first = next(iter(asked.values()))
    if first.auto_target and len(asked) < len(known):
        raise RelexError("target_step: auto is for the whole model; give it without filters")
    chosen_from = CANDIDATES if first.predictor == AUTO else (first.predictor,)
    own = replace(statistics, tensors={n: statistics.tensors[n] for n in asked})
    choice = choose(
        own,
        None if first.auto_target else first.target_step,
        rank=first.rank,
        window=first.window,
        candidates=chosen_from,
        scope=first.scope if first.predictor == AUTO else "model",
    )
    concrete = {
        name: replace(p, predictor=choice.names[name], target_step=choice.target, auto_target=False)
        for name, p in asked.items()
    }
    return Resolved({**parameters, **concrete}, choice)

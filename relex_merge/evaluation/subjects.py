"""Every model that an evaluation measures, each put into memory when its turn comes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from relex_merge.checkpoints.locate import locate
from relex_merge.evaluation.backends import HfBackend, Subject
from relex_merge.evaluation.live_model import LiveModel
from relex_merge.report.candidates import BASE, LAST, Candidate, Model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relex_merge.evaluation.request import EvaluationRequest
    from relex_merge.evaluation.series_models import SeriesModels
    from relex_merge.pipeline.prepare import Prepared


@dataclass(frozen=True)
class Subjects:
    """Puts models into memory by name.

    Attributes:
        load: model → what puts it into memory and returns it.
        identities: model → what it is, so that finished measurements are found again.
        tokenizer: of the series, used for all.
    """

    load: Mapping[Model, Callable[[], Any]]
    identities: Mapping[Model, str]
    tokenizer: Any

    def for_lm_eval(self, model: Model) -> Subject:
        """Return a model as the harness takes it."""
        name = model if isinstance(model, str) else model.name
        return Subject(
            name,
            self.identities[model],
            "hf",
            lambda: HfBackend(self.load[model](), self.tokenizer),
        )


def subjects_of(
    prepared: Prepared,
    models: SeriesModels,
    live: LiveModel,
    candidates: Sequence[Candidate],
    tokenizer: Any,
    request: EvaluationRequest,
) -> Subjects:
    """Return the base, the last checkpoint, candidates, observed checkpoints on the way, others.

    Raises:
        RelexError: one of ``request.also`` cannot be found.
    """
    load: dict[Model, Callable[[], Any]] = {}
    keys: dict[Model, Any] = {}
    series = prepared.fingerprint()

    def row(number: int) -> Callable[[], Any]:
        def put() -> Any:
            models.put_row(number)
            return live.model

        return put

    def candidate(which: Candidate) -> Callable[[], Any]:
        def put() -> Any:
            models.put_candidate(which)
            return live.model

        return put

    steps = prepared.plan.steps
    load[BASE], keys[BASE] = row(0), "row 0"
    load[LAST], keys[LAST] = row(len(steps)), f"row {len(steps)}"
    for which in candidates:
        load[which] = candidate(which)
        keys[which] = [which.target_step, which.scale, which.anchor, prepared.recipe.to_yaml()]
    for number in _on_the_way(steps, request.every):
        name = f"observed step {steps[number - 1]:g}"
        load[name], keys[name] = row(number), f"row {number}"
    cache = request.merge.transformers_cache
    others = locate(list(request.also), cache_dir=cache, stream=False) if request.also else []
    for snapshot in others:
        name = snapshot.reference
        load[name] = _other(snapshot.folder, name, live, request)
        keys[name] = [name, snapshot.pin.mark if snapshot.pin else _state(snapshot.folder)]
    identities = {
        model: hashlib.sha256(json.dumps([series, key], default=str).encode()).hexdigest()
        for model, key in keys.items()
    }
    return Subjects(load, identities, tokenizer)


def _on_the_way(steps: Any, every: int | None) -> list[int]:
    """Return the numbers (1 … T − 1) of the checkpoints whose steps are multiples of ``every``."""
    if every is None:
        return []
    return [int(i) + 1 for i in np.flatnonzero(np.mod(steps[:-1], every) == 0)]


def _other(
    folder: Path, name: str, live: LiveModel, request: EvaluationRequest
) -> Callable[[], Any]:
    def put() -> Any:
        other = LiveModel(
            folder,
            name,
            live.model.device,
            trust_remote_code=request.merge.trust_remote_code,
        )
        return other.model

    return put


def _state(folder: Path) -> list[list[Any]]:
    """Return names, sizes and times of the files of a folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]

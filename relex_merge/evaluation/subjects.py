"""Every model that an evaluation measures, each put into memory when its turn comes."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from relex_merge.checkpoints.files import require_weights
from relex_merge.checkpoints.locate import locate
from relex_merge.evaluation.backends import Backend, HfBackend, Subject, VllmBackend
from relex_merge.evaluation.live_model import LiveModel
from relex_merge.evaluation.shards import as_a_whole
from relex_merge.report.candidates import BASE, LAST, Candidate, Model

if TYPE_CHECKING:
    from relex_merge.checkpoints.locate import Snapshot
    from relex_merge.evaluation.request import EvaluationRequest
    from relex_merge.evaluation.series_models import Cut, SeriesModels


@dataclass(frozen=True)
class Source:
    """How a model gets into memory, and what it is.

    put: puts it there; what it returns is valid until another one is put. key: what it is, JSON
    values, so that finished measurements are found again. folder: where it lies as a whole model on
    this disk, None where it exists only in memory. apart: whether it takes memory of its own, and
    is not put into the place of the model before.
    """

    put: Callable[[], LiveModel]
    key: Any
    folder: Path | None = None
    apart: bool = False


@dataclass
class Subjects:
    """Puts models into memory by name, one at a time.

    Attributes:
        sources: model → how it gets into memory.
        series: fingerprint of the series.
        tokenizer: of the series, used for all.
        request: which backend of lm-eval, and for vLLM the device's own.
        scratch: where models are written for a backend that reads them from the disk.
        dtype: of the numbers in those files.
    """

    sources: Mapping[Model, Source]
    series: str
    tokenizer: Any
    request: EvaluationRequest
    scratch: Path
    dtype: torch.dtype
    _current: tuple[object, Any] | None = field(default=None, repr=False)
    _apart: bool = field(default=False, repr=False)

    def load(self, model: Model) -> Any:
        """Return a model, in memory until the next one is asked for."""
        source = self.sources[model]
        held = self._held(model, lambda: source.put().model)
        self._apart = source.apart
        return held

    def load_for(self, name: str, put: Callable[[], LiveModel]) -> Any:
        """Return a model that is none of the subjects, such as a backtest's prediction."""
        return self._held(("beside", name), lambda: put().model)

    def _held(self, key: object, make: Callable[[], Any]) -> Any:
        if self._current is None or self._current[0] != key:
            self.release()
            self._current = (key, make())
        return self._current[1]

    def release(self) -> None:
        """Let go of the model that was asked for last: two of them may not fit into memory."""
        held, self._current = self._current, None
        if held is not None and isinstance(held[1], VllmBackend):
            held[1].close()
        del held
        if self._apart:
            self._apart = False
            gc.collect()

    def for_lm_eval(self, model: Model) -> Subject:
        """Return a model as the harness takes it."""
        backend = self.request.backend
        text = json.dumps([self.series, self.sources[model].key], default=str)
        load = self._in_memory if backend.kind == "hf" else self._written
        return Subject(
            model if isinstance(model, str) else model.name,
            hashlib.sha256(text.encode()).hexdigest(),
            backend.kind,
            lambda: load(model),
            backend.args,
        )

    def _in_memory(self, model: Model) -> Backend:
        return HfBackend(self.load(model), self.tokenizer, self.request.backend.args)

    def _written(self, model: Model) -> Backend:
        """Return a backend that reads a folder, which is written now where there is none."""

        def make() -> VllmBackend:
            source = self.sources[model]
            folder = source.folder or source.put().save(
                self.scratch / "written", self.dtype, self.tokenizer
            )
            return VllmBackend(str(folder), self.request.backend.args)

        held: VllmBackend = self._held(("written", model), make)
        return held


def of_series(
    models: SeriesModels, snapshots: Sequence[Snapshot], candidates: Sequence[Candidate], mark: str
) -> dict[Model, Source]:
    """Return the base, the last observed checkpoint, and candidates, all in one live model.

    Args:
        models: of the series.
        snapshots: base first, then the checkpoints.
        candidates: those that the models were read for.
        mark: what the candidates are besides target, scale and anchor.
    """
    found: dict[Model, Source] = {
        BASE: Source(_row(models, 0), "row 0", _whole(snapshots[0])),
        LAST: Source(
            _row(models, models.rows), f"row {models.rows}", _whole(snapshots[models.rows])
        ),
    }
    for which in candidates:
        key = [which.target_step, which.scale, which.anchor, mark]
        found[which] = Source(_candidate(models, which), key)
    return found


def on_the_way(models: SeriesModels, steps: Any, every: int | None) -> dict[Model, Source]:
    """Return the observed checkpoints whose steps are multiples of ``every``, but not the last."""
    if every is None:
        return {}
    numbers = [int(i) + 1 for i in np.flatnonzero(np.mod(steps[:-1], every) == 0)]
    return {f"observed step {steps[n - 1]:g}": Source(_row(models, n), f"row {n}") for n in numbers}


def others(request: EvaluationRequest, device: torch.device, scratch: Path) -> dict[Model, Source]:
    """Return the models of ``--also``, brought to this disk.

    Args:
        request: names them.
        device: where each goes when its turn comes.
        scratch: a folder for those that are in shards.

    Raises:
        RelexError: one of them cannot be found, or is no model.
    """
    if not request.also:
        return {}
    cache = request.merge.transformers_cache
    found = locate(list(request.also), cache_dir=cache, stream=False)
    for snapshot in found:
        if snapshot.sharded is not None:
            continue
        require_weights(snapshot.files, snapshot.folder, snapshot.reference)
    return {s.reference: from_snapshot(s, request, device, scratch) for s in found}


def from_snapshot(
    snapshot: Snapshot,
    request: EvaluationRequest,
    device: torch.device,
    scratch: Path,
    *,
    key: Any = None,
) -> Source:
    """Return a model that transformers loads from its folder.

    Args:
        snapshot: on this disk.
        request: whether code that the model brings may run.
        device: where the model goes.
        scratch: a folder for a model that is in shards.
        key: what it is; by default its reference, with its commit or the state of its files.
    """
    trusted = request.merge.trust_remote_code

    def put() -> LiveModel:
        folder = as_a_whole(snapshot, scratch)
        return LiveModel(folder, snapshot.reference, device, trust_remote_code=trusted)

    shards = snapshot.sharded
    own = snapshot.folder if shards is None else shards.folder
    state = snapshot.pin.mark if snapshot.pin else state_of(own)
    return Source(put, key or [snapshot.reference, state], _whole(snapshot), apart=True)


def predicted(models: SeriesModels, cut: Cut) -> Callable[[], LiveModel]:
    """Return what puts a functional backtest's prediction into memory."""

    def put() -> LiveModel:
        models.put_backtest(cut)
        return models.live

    return put


def standing_still(models: SeriesModels, cut: Cut) -> Callable[[], LiveModel]:
    """Return what puts the last checkpoint before the cut into memory."""
    return _row(models, cut.fitted)


def _row(models: SeriesModels, number: int) -> Callable[[], LiveModel]:
    def put() -> LiveModel:
        models.put_row(number)
        return models.live

    return put


def _candidate(models: SeriesModels, which: Candidate) -> Callable[[], LiveModel]:
    def put() -> LiveModel:
        models.put_candidate(which)
        return models.live

    return put


def _whole(snapshot: Snapshot) -> Path | None:
    """Return the folder of a model that lies on this disk as a whole, None for any other."""
    in_parts = snapshot.streamed or snapshot.sharded is not None
    return None if in_parts or snapshot.is_adapter else snapshot.folder


def state_of(folder: Path) -> list[list[Any]]:
    """Return names, sizes and times of the files of a folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]

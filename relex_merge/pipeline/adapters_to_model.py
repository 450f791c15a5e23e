"""A series of adapters in, a full model out: the base plus Σ_t w_t δ_t, through the engine.

Once the Gram matrices are known, each target's model is one more source of rows, and the engine
writes it as it writes any other: base and K targets in, K models out.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from relex_merge.checkpoints import locate
from relex_merge.engine import kernels
from relex_merge.engine.factors import READERS, adapters_of, read_stack, split
from relex_merge.engine.plan import ModelPlan
from relex_merge.pipeline import models_to_model
from relex_merge.pipeline.companions import complete_model
from relex_merge.pipeline.grams import form_grams
from relex_merge.pipeline.writing import Written
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics
from relex_merge.weights.folder import open_folder
from relex_merge.weights.merged import OnBase, Product, wide
from relex_merge.weights.source import Read, Source, read_numbers

if TYPE_CHECKING:
    from relex_merge.pipeline.options import RunOptions
    from relex_merge.pipeline.prepare import Prepared
    from relex_merge.pipeline.writing import Job


def write(job: Job) -> Written:
    """Write the full model of every target."""
    statistics = job.known or form_grams(job.prepared, job.resources, job.progress)
    combined = _combined(job.prepared, _base_on_disk(job), statistics)
    numel = {t.name: t.out.numel for t in combined.plan.tensors if t.parameters}
    K = combined.plan.T
    # With G = 1 the reconstruction of "checkpoint" k is that row itself.
    rows = {n: TensorStatistics(np.eye(K), float("nan"), 0, d) for n, d in numel.items()}
    identity = SeriesStatistics(combined.plan.steps, rows, combined.fingerprint())
    models_to_model.write_weights(replace(job, prepared=combined, known=identity))
    complete_model(job.prepared, job.folders, job.options.merge)
    return Written(statistics)


def output_bytes(prepared: Prepared, options: RunOptions) -> int:
    """Return the bytes of one target's weights."""
    return models_to_model.output_bytes(prepared, options)


def _base_on_disk(job: Job) -> Source:
    """Return the base, downloaded if it was to be streamed: every target reads it once."""
    snapshot = job.prepared.snapshots[0]
    if not snapshot.streamed:
        return job.prepared.plan.sources[0]
    cache = job.options.merge.transformers_cache
    (found,) = locate.locate([snapshot.reference], cache_dir=cache, stream=False)
    return open_folder(found.folder, found.reference)


class CombinedSource(OnBase):
    """One target's model.

    Args:
        base: the weights that the adapters are on.
        plan: of the series of adapters.
        W: name of a weight of the base → w (T,).
    """

    def __init__(self, base: Source, plan: ModelPlan, W: Mapping[str, Array]) -> None:
        super().__init__(base, "the extrapolated model")
        self._series = plan.sources[1:]
        self._adapters = adapters_of(plan)
        self._W = W
        factored, _ = split(plan, self._adapters)
        self._factored = frozenset(plan.tensors[i].stored[0] for i in factored)
        self.tensors = {
            name: wide(info) if name in W else info for name, info in base.tensors.items()
        }

    def _has_product(self, name: str) -> bool:
        return name in self._factored

    def _product(self, name: str) -> Product:
        with ThreadPoolExecutor(READERS, "relex-adapters") as readers:
            stack = read_stack(self._adapters, name, readers)
        L, R = (part.to(self.tensors[name].dtype) for part in stack.weighted(self._W[name]))
        return Product(R.T, L.T) if stack.transposed else Product(L, R)

    def _read_other(self, wanted: Read) -> None:
        if wanted.name not in self._W:
            self._base.read([wanted])
            return
        out = torch.frombuffer(wanted.into, dtype=self.tensors[wanted.name].dtype)
        start, count = wanted.start // out.element_size(), len(out)
        rows = [read_numbers(s, wanted.name, start, count) for s in (self._base, *self._series)]
        W = torch.from_numpy(self._W[wanted.name])[None]
        dtype = kernels.compute_dtype(rows, self.tensors[wanted.name].numel)
        kernels.combine(rows, W, [out], dtype)

    def fingerprint(self) -> list[Any]:
        """Return the adapters' fingerprints and the weight vectors."""
        weights = {name: w.tolist() for name, w in self._W.items()}
        return [*(source.fingerprint() for source in self._series), weights]

    def check_unchanged(self) -> None:
        """Raise RelexError when a file of an adapter or of the base has changed."""
        for source in (self._base, *self._series):
            source.check_unchanged()


def _combined(prepared: Prepared, base: Source, known: SeriesStatistics) -> Prepared:
    """Return the run that is left: base and K targets as sources, each written as it is."""
    plan = prepared.plan
    K = plan.targets
    weights: list[dict[str, Array]] = [{} for _ in range(K)]
    tensors = []
    for tensor in plan.tensors:
        name = tensor.stored[0]
        seen = known.tensors.get(tensor.name)
        stored = (name,) * (K + 1)
        if seen is None or tensor.parameters is None:
            tensors.append(replace(tensor, stored=stored, parameters=None))
            continue
        for k, predictor in enumerate(tensor.parameters):
            weights[k][name] = predictor.weights(seen.gram, known.steps)
        copy = partial(Parameters, rank=K, mode="reconstruct")
        copies = tuple(copy(float(k)) for k in range(K))
        tensors.append(replace(tensor, stored=stored, parameters=copies))
    sources = (base, *(CombinedSource(base, plan, W) for W in weights))
    # Without a commit, so that it is the sources which say what is read.
    snapshots = tuple(locate.Snapshot(s.label, None, Path()) for s in sources)
    made = ModelPlan(sources, np.arange(K, dtype=np.float64), K, tuple(tensors))
    observed = np.ones(K, dtype=bool)
    return replace(prepared, plan=made, snapshots=snapshots, observed=observed)

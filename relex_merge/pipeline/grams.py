"""The Gram matrices of a series alone, without writing anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relex_merge.engine.engine import Collected, run_engine, schedule_for
from relex_merge.engine.factors import adapters_of
from relex_merge.pipeline.adapter_pass import AdapterPass
from relex_merge.trajectory.statistics import SeriesStatistics

if TYPE_CHECKING:
    from relex_merge.engine.engine import Progress
    from relex_merge.engine.resources import Resources
    from relex_merge.pipeline.prepare import Prepared


def form_grams(prepared: Prepared, resources: Resources, progress: Progress) -> SeriesStatistics:
    """Return G (T, T) of every extrapolated tensor, over all checkpoints that were prepared.

    Args:
        prepared: a series of full checkpoints, of adapters, or of both.
        resources: cores, device and memory.
        progress: shows how much was read.
    """
    plan = prepared.plan
    if adapters_of(plan):
        return AdapterPass(prepared, resources).run(progress)
    found = Collected()
    everything = range(len(plan.tensors))
    pieces = schedule_for(plan, everything, resources, combine=False)
    run_engine(plan, pieces, found, resources, progress, None)
    tensors = {
        plan.tensors[i].name: found.statistics[i] for i in everything if i in found.statistics
    }
    return SeriesStatistics(plan.steps, tensors, prepared.fingerprint())

"""A series read in part: how much of it, by which requests, and what the sample says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from relex_merge.engine.factors import adapters_of
from relex_merge.engine.sampled import Cost, SampleReader, sampled_tensors
from relex_merge.errors import RelexError
from relex_merge.formatting import size, table
from relex_merge.pipeline.inspection import Inspection, of_series
from relex_merge.pipeline.prepare import where_read
from relex_merge.report.sampled import LEAST_BLOCKS, LEAST_NUMBERS, is_enough, sample_entry
from relex_merge.trajectory.sampling.estimate import Sampled, with_true_numels
from relex_merge.trajectory.sampling.output_error import output_errors
from relex_merge.trajectory.sampling.plan import (
    REMOTE_CELLS,
    SMALLEST_CELL,
    Held,
    SamplePlan,
    draw_by_request,
    draw_by_tensor,
)
from relex_merge.trajectory.sampling.size import SampleSize, read_sample_size

if TYPE_CHECKING:
    from relex_merge.engine.engine import Progress
    from relex_merge.engine.resources import Resources
    from relex_merge.pipeline.options import Notify
    from relex_merge.pipeline.prepare import Prepared
    from relex_merge.report.contents import SampleEntry
    from relex_merge.trajectory.statistics import SeriesStatistics

WORTH_SAMPLING = 2**30  # bytes on the Hub from which on a sample is the default


@dataclass(frozen=True)
class Sampling:
    """A sample of a series, drawn and not yet read.

    Attributes:
        prepared: the series.
        size: what was asked for.
        plan: what is drawn.
        reader: reads it.
    """

    prepared: Prepared
    size: SampleSize
    plan: SamplePlan
    reader: SampleReader

    @property
    def cost(self) -> Cost:
        """What reading it takes."""
        return self.reader.cost(self.plan.drawn)

    def read(self, resources: Resources, progress: Progress) -> Sampled:
        """Read the sample.

        Args:
            resources: cores and memory.
            progress: shows how much was read.

        Raises:
            RelexError: as the engine does; tensor and checkpoint are named.
        """
        prepared = self.prepared
        found = Sampled(self.plan, prepared.plan.steps, prepared.fingerprint())
        self.reader.read(
            self.plan.drawn, found, resources, progress(self.reader.nbytes(self.plan.drawn))
        )
        return found

    def inspect(self, resources: Resources, progress: Progress, notify: Notify) -> Inspection:
        """Read the sample, twice as much again while it is to grow, and make the report.

        Args:
            resources: cores and memory.
            progress: shows how much was read.
            notify: called with a remark each time that the sample grows.
        """
        found = self.read(resources, progress)
        while True:
            inspection = of_series(self.prepared, found.statistics(), found)
            sample, plan = inspection.report["sample"], found.plan
            if sample["settled"] or not self.size.grows or plan.share >= self.size.most * 0.99:
                return inspection
            larger = plan.doubled(self.size.most)
            added = list(larger.beyond(plan))
            if not added:
                return inspection
            notify(
                f"a sample of {plan.share:.2%} leaves the verdict open; reading {larger.share:.2%}"
            )
            found.grow(larger)
            advance = progress(self.reader.nbytes(added))
            self.reader.read(added, found, resources, advance)

    def describe(self) -> str:
        """Return a table in plain text of what is read."""
        plan, cost = self.plan, self.cost
        steps = ", ".join(f"{step:g}" for step in self.prepared.plan.steps)
        grows = f", doubled up to {self.size.most:.2%} while the verdict is open"
        whole = sum(
            self.prepared.plan.stored_bytes(i) for i in range(len(self.prepared.plan.tensors))
        )
        return table(
            {
                "base": self.prepared.snapshots[0].reference,
                "checkpoints": f"{self.prepared.plan.T} at steps {steps}",
                "sample": f"{plan.share:.2%} of {plan.total:,} numbers, in {len(plan.drawn):,} "
                f"blocks{grows * self.size.grows}",
                "requests": f"{cost.requests:,} a checkpoint, besides those for headers"
                if any(s.streamed for s in self.prepared.snapshots)
                else f"{cost.requests:,} reads a checkpoint",
                "to read": f"{size(cost.traffic)} of {size(whole)} from "
                f"{where_read(self.prepared.snapshots)}",
            }
        )


def plan_sample(
    prepared: Prepared, asked: str | None, notify: Notify, *, by_tensor: bool = False
) -> Sampling | None:
    """Draw a sample of a series; None where everything is to be read.

    Args:
        prepared: the series.
        asked: what the user wrote; None leaves it to this function: a sample of a series that is
            on the Hub, not in the cache, and large.
        notify: told in one line what is sampled without having been asked for.
        by_tensor: whether every tensor has to be in the sample, whatever requests that takes.

    Raises:
        RelexError: ``asked`` is no size, or too small to say anything.
    """
    model = prepared.plan
    size_asked = SampleSize() if asked is None else read_sample_size(asked)
    remote = [i for i, s in enumerate(prepared.snapshots) if s.streamed]
    if asked is None and _bytes_of(prepared, remote) < WORTH_SAMPLING:
        return None
    if size_asked is None:
        return None
    if adapters_of(model):
        if asked is not None:
            notify(
                "the factors of the adapters are read whole: they are no more than a sample of the "
                "weights would be, and the figures are exact"
            )
        return None
    tensors = sampled_tensors(model)
    names, numels = [t.name for t in tensors], [t.out.numel for t in tensors]
    wanted = size_asked.numbers(sum(numels))
    if remote and not by_tensor:
        plan = draw_by_request(names, numels, wanted)
    else:
        plan = draw_by_tensor(names, numels, wanted, cells=REMOTE_CELLS if remote else None)
    _check(plan, wanted)
    sampling = Sampling(prepared, size_asked, plan, SampleReader(model, tensors))
    if asked is None:
        notify(
            f"sampled: {size(sampling.cost.traffic)} of {size(_bytes_of(prepared, remote))} are "
            f"read from {where_read(prepared.snapshots)}; --sample all reads everything"
        )
    return sampling


def estimates(sampled: Sampled) -> SeriesStatistics:
    """Return the estimated statistics of every tensor, with its true size."""
    plan = sampled.plan
    return with_true_numels(sampled.statistics(), dict(zip(plan.names, plan.numels, strict=True)))


def entry_of_output(sampled: Sampled, prepared: Prepared, target: int) -> SampleEntry:
    """Return what the report of an output says of the sample that its weight vectors come from.

    Args:
        sampled: the sample.
        prepared: the run, all of its parameters settled.
        target: which of the run's targets.
    """
    made = {t.name: t for t in prepared.plan.tensors if t.parameters and t.out.numel}
    found = output_errors(
        sampled,
        {name: tensor.parameters[target] for name, tensor in made.items() if tensor.parameters},
        {name: str(tensor.out.dtype).removeprefix("torch.") for name, tensor in made.items()},
    )
    entry = sample_entry(sampled.plan)
    entry["output_error"] = {
        "error": found.error,
        "update": found.update,
        "rounding": found.rounding,
    }
    return entry


def _bytes_of(prepared: Prepared, rows: list[int]) -> int:
    """Return the bytes of the extrapolated tensors in some of the sources."""
    model = prepared.plan
    return sum(
        model.sources[row].tensors[t.stored[row]].nbytes for row in rows for t in model.tensors
    )


def _check(plan: SamplePlan, wanted: int) -> None:
    """Raise RelexError where a sample is too small for any figure of the whole model."""
    held = sum(plan.held.values(), Held())
    needed = min(max(LEAST_NUMBERS, LEAST_BLOCKS * SMALLEST_CELL), plan.total)
    if is_enough(held) and wanted >= needed:
        return
    share = min(-(-needed * 1000 // max(plan.total, 1)) / 1000, 1.0)
    raise RelexError(
        f"a sample of {wanted:,} of {plan.total:,} numbers is too small for any figure; at least "
        f"{needed:,} in {LEAST_BLOCKS} blocks are needed: --sample {max(share, 0.001):.1%}, or "
        "--sample all"
    )

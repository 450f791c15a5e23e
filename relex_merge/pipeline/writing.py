"""What the four writers have in common: one job in, weights and configuration in its folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from relex_merge.engine.engine import Progress
    from relex_merge.engine.resources import Resources
    from relex_merge.pipeline.options import RunOptions
    from relex_merge.pipeline.prepare import Prepared
    from relex_merge.pipeline.staging import Staging
    from relex_merge.report.contents import AdapterEntry
    from relex_merge.trajectory.statistics import SeriesStatistics


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that a writer needs.

    Attributes:
        prepared: what is made from what.
        options: how the run was asked for.
        stage: the staging folder of OUT, which the writer begins.
        folders: where each target's files go.
        resources: cores, device and memory.
        progress: shows how much was read.
        known: statistics of an earlier pass over the same weights, so that G is not formed again.
    """

    prepared: Prepared
    options: RunOptions
    stage: Staging
    folders: Sequence[Path]
    resources: Resources
    progress: Progress
    known: SeriesStatistics | None = None


@dataclass(frozen=True)
class Written:
    """What a writer leaves besides files.

    Attributes:
        statistics: of every extrapolated tensor.
        adapters: what the report says of each target's adapter; empty for models.
    """

    statistics: SeriesStatistics
    adapters: tuple[AdapterEntry, ...] = ()


class Writer(Protocol):
    """One of the modules ``models_to_model``, ``models_to_adapter``, ``adapters_to_…``."""

    def write(self, job: Job) -> Written:
        """Write weights, configuration and tokenizer of every target into its folder."""

    def output_bytes(self, prepared: Prepared, options: RunOptions) -> int:
        """Return the bytes of one target's weights."""

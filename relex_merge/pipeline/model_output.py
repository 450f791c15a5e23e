"""Where the engine's results go: one model folder for each target, shard by shard."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from relex_merge.engine.plan import ModelPlan
from relex_merge.errors import disk_errors
from relex_merge.pipeline.staging import Staging
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics
from relex_merge.weights.writer import Shard, ShardFile, plan_shards, write_index


class ModelOutput:
    """A sink of the engine. All targets have one layout; a shard is finished when all have it.

    The statistics of a finished shard's tensors are kept with it, so that a run that goes on later
    can report on all tensors.
    """

    def __init__(
        self, plan: ModelPlan, stage: Staging, folders: Sequence[Path], shards: Sequence[Shard]
    ) -> None:
        self._plan = plan
        self._stage = stage
        self._folders = folders
        self._shards = shards
        self._shard_of = {name: i for i, s in enumerate(shards) for name in s.offsets}
        self._left = [len(shard.offsets) for shard in shards]
        self._files: dict[int, list[ShardFile]] = {}
        self._statistics: dict[str, TensorStatistics] = {}
        self._lock = threading.Lock()
        for folder in folders:
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)

    def unfinished(self) -> list[int]:
        """Return the indices of the tensors that are still to be made."""
        done = set(self._stage.finished)
        names = (tensor.name for tensor in self._plan.tensors)
        return [i for i, name in enumerate(names) if self._shard_of[name] not in done]

    def write(self, target: int, tensor: int, start: int, data: memoryview) -> None:
        """Write bytes of an output tensor for one target, from byte ``start`` on."""
        name = self._plan.tensors[tensor].name
        self._open(self._shard_of[name])[target].write(name, start, data)

    def finished(self, tensor: int, statistics: TensorStatistics | None) -> None:
        """Take note that a tensor is whole; with the last one of a shard, close the shard."""
        name = self._plan.tensors[tensor].name
        index = self._shard_of[name]
        with self._lock:
            if statistics is not None:
                self._statistics[name] = statistics
            self._left[index] -= 1
            if self._left[index]:
                return
            files = self._files.pop(index)
            seen = [n for n in self._shards[index].offsets if n in self._statistics]
        for file in files:
            file.sync()
            file.close()
        part = SeriesStatistics(self._plan.steps, {n: self._statistics[n] for n in seen})
        with disk_errors(self._part(index)):
            part.save(self._part(index))
        shard = self._shards[index].file
        with self._lock:
            self._stage.finish_shard(
                index, [self._part(index), *(folder / shard for folder in self._folders)]
            )

    def close(self) -> None:
        """Close what a stopped run has left open."""
        for files in self._files.values():
            for file in files:
                file.close()

    def complete(self) -> SeriesStatistics:
        """Write the indexes; return the statistics of all tensors, in the model's order."""
        seen: dict[str, TensorStatistics] = {}
        for index in range(len(self._shards)):
            seen.update(SeriesStatistics.load(self._part(index)).tensors)
        for folder in self._folders:
            with disk_errors(folder):
                write_index(folder, self._shards)
        ordered = {t.name: seen[t.name] for t in self._plan.tensors if t.name in seen}
        return SeriesStatistics(self._plan.steps, ordered)

    def _open(self, index: int) -> list[ShardFile]:
        with self._lock:
            if index not in self._files:
                self._files[index] = [ShardFile(f, self._shards[index]) for f in self._folders]
            return self._files[index]

    def _part(self, index: int) -> Path:
        return self._stage.folder / f"shard-{index}.safetensors"


def shards_of(plan: ModelPlan, max_bytes: int) -> list[Shard]:
    """Cut the plan's tensors into shards of at most ``max_bytes``."""
    return plan_shards({t.name: t.out for t in plan.tensors}, max_bytes)

"""A PEFT adapter folder being written: ``adapter_config.json`` and ``adapter_model.safetensors``.

Every module gets factors B A of the same rank with scaling 1 (α = r), balanced between the two. How
much of the update's energy ‖δ‖² did not fit into that rank is kept for the report.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from relex_merge.checkpoints.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from relex_merge.engine.truncated_svd import Truncated
from relex_merge.errors import disk_errors
from relex_merge.report.contents import AdapterEntry
from relex_merge.weights.names import PREFIX
from relex_merge.weights.source import TensorInfo
from relex_merge.weights.writer import ShardFile, layout

DISCARDED = 0.01  # share of the energy whose loss deserves a warning


@dataclass(frozen=True)
class Module:
    """One adapted module, δ = B A of shape (m, n).

    Attributes:
        path: of the module in the model.
        m: rows of δ.
        n: columns of δ.
        rank: of the factors, at most min(m, n): more would be zeros.
        transposed: whether the model stores δᵀ.
        embedding: whether it is an embedding, whose factors PEFT names differently.
    """

    path: str
    m: int
    n: int
    rank: int
    transposed: bool
    embedding: bool = False

    @property
    def names(self) -> tuple[str, str]:
        """The names of A and B in the file."""
        if self.embedding:
            return f"{PREFIX}{self.path}.lora_embedding_A", f"{PREFIX}{self.path}.lora_embedding_B"
        return f"{PREFIX}{self.path}.lora_A.weight", f"{PREFIX}{self.path}.lora_B.weight"


@dataclass
class _Energy:
    """‖δ‖² of one weight in all (``total``), and of the part that the adapter holds (``kept``)."""

    total: float
    kept: float


class AdapterOutput:
    """A sink for factors and for weights stored whole; one folder for each target.

    Args:
        folders: one for each target.
        modules: index of the plan's tensor → the module that is stored as factors.
        whole: index → name in the file, dtype and shape of a weight that is stored whole.
        dtype: of the factors.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        modules: Mapping[int, Module],
        whole: Mapping[int, tuple[str, TensorInfo]],
        dtype: torch.dtype,
    ) -> None:
        self.folders = folders
        self.modules = modules
        self._whole = whole
        self._dtype = dtype
        self._lock = threading.Lock()
        self._energy: list[dict[str, _Energy]] = [{} for _ in folders]
        self.nbytes = bytes_of(modules, whole, dtype)
        shard = layout(ADAPTER_WEIGHTS[0], _infos_of(modules, whole, dtype))
        for folder in folders:
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
        self._files = [ShardFile(folder, shard) for folder in folders]

    def put(self, target: int, index: int, found: Truncated, total: float) -> None:
        """Write the factors of one module for one target.

        Args:
            target: index of the target.
            index: of the plan's tensor.
            found: the factors B (m, rank) and A (rank, n).
            total: ‖δ‖² before the truncation.
        """
        module = self.modules[index]
        for name, factor in zip(module.names, (found.A, found.B), strict=True):
            raw = factor.to(self._dtype).cpu().contiguous().view(torch.uint8).numpy()
            self._files[target].write(name, 0, raw.reshape(-1).data)
        with self._lock:
            self._energy[target][module.path] = _Energy(total, found.kept)

    def write(self, target: int, tensor: int, start: int, data: memoryview) -> None:
        """Write bytes of a weight that is stored whole, from byte ``start`` on."""
        self._files[target].write(self._whole[tensor][0], start, data)

    def finished(self, tensor: int, statistics: object) -> None:
        """Do nothing: no part of the file waits for a single tensor."""

    def close(self) -> None:
        """Close the files, finished or not."""
        for file in self._files:
            file.close()

    def complete(self, config: Mapping[str, Any]) -> None:
        """Bring what was written to the disk, and the adapter's configuration beside it."""
        for folder, file in zip(self.folders, self._files, strict=True):
            file.sync()
            with disk_errors(folder):
                text = json.dumps(self._config(config), indent=2, sort_keys=True) + "\n"
                (folder / ADAPTER_CONFIG).write_text(text, encoding="utf-8")

    def _config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        ranks = {module.path: module.rank for module in self.modules.values()}
        most = max(ranks.values(), key=list(ranks.values()).count, default=int(config["r"]))
        other = {path: rank for path, rank in ranks.items() if rank != most}
        return {
            **config,
            "r": most,
            "lora_alpha": most,
            "rank_pattern": other,
            "alpha_pattern": dict(other),
            "use_rslora": False,
            "use_dora": False,
            "init_lora_weights": True,
            "target_modules": sorted(ranks),
            "inference_mode": True,
        }

    def energy(self, target: int, left_out: float = 0.0) -> AdapterEntry:
        """Return what the report says: the share of ‖δ‖² that a target's adapter does not hold.

        Args:
            target: index of the target.
            left_out: ‖δ‖² of the weights that are none of the adapter's modules.
        """
        found = dict(sorted(self._energy[target].items()))
        total = sum(e.total for e in found.values())
        lost = {path: _share(e.total, e.kept) for path, e in found.items()}
        return {
            "rank": max((module.rank for module in self.modules.values()), default=0),
            "bytes": self.nbytes,
            "discarded": _share(total + left_out, sum(e.kept for e in found.values())),
            "left_out": left_out / (total + left_out) if total + left_out > 0 else 0.0,
            "modules": lost,
        }


def bytes_of(
    modules: Mapping[int, Module], whole: Mapping[int, tuple[str, TensorInfo]], dtype: torch.dtype
) -> int:
    """Return the bytes of all numbers in an adapter's file."""
    return sum(info.nbytes for info in _infos_of(modules, whole, dtype).values())


def remarks(adapter: AdapterEntry) -> list[str]:
    """Return what a user should know of an adapter that does not hold all of the update.

    Args:
        adapter: what :meth:`AdapterOutput.energy` says of it.
    """
    found = []
    lossy = {path: lost for path, lost in adapter["modules"].items() if lost > DISCARDED}
    if lossy:
        worst = max(lossy, key=lambda path: lossy[path])
        found.append(
            f"warning: rank {adapter['rank']} leaves out more than {DISCARDED:.0%} of the update's "
            f"energy in {len(lossy)} of {len(adapter['modules'])} modules (most in {worst}: "
            f"{lossy[worst]:.1%}; {adapter['discarded']:.1%} of the whole); raise --lora-rank"
        )
    if adapter["left_out"] > DISCARDED:
        found.append(
            f"warning: {adapter['left_out']:.1%} of the update's energy is in embeddings, norms, "
            "biases or the output head, which the adapter leaves out; --as model keeps all of it"
        )
    return found


def _infos_of(
    modules: Mapping[int, Module], whole: Mapping[int, tuple[str, TensorInfo]], dtype: torch.dtype
) -> dict[str, TensorInfo]:
    """Return dtype and shape of everything in an adapter's file, by name."""
    infos = dict(whole.values())
    for module in modules.values():
        a, b = module.names
        infos[a] = TensorInfo(dtype, (module.rank, module.n))
        infos[b] = TensorInfo(dtype, (module.m, module.rank))
    return infos


def _share(total: float, kept: float) -> float:
    return max(1 - kept / total, 0.0) if total > 0 else 0.0

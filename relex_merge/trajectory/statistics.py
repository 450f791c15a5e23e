"""What one pass over the weights leaves behind, and its file ``relex_gram.safetensors``.

From these few megabytes every figure of the trust report, and the weight vector of every predictor,
can be computed again without the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from relex_merge.errors import RelexError
from relex_merge.trajectory.gram import Array, symmetric

LARGEST = 1e140  # of a G, in weight²: float32 files do not come near it
_PREFIX = "gram/"  # so that nobody takes the matrices for the weights of the same names


@dataclass(frozen=True)
class TensorStatistics:
    """One tensor's trajectory, summed over its d numbers in float64.

    Here G enters the arithmetic, so it is made symmetric here.

    Attributes:
        gram: (T, T), G_ij = ⟨δ_i, δ_j⟩ in weight², checkpoints in the order of their steps.
        base_squared_norm: ‖θ₀‖²; NaN where the base's weights were not read (series of adapters).
        moved: How many of the d numbers differ from the base at the last observed checkpoint.
        numel: d.
    """

    gram: Array
    base_squared_norm: float
    moved: int
    numel: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "gram", symmetric(self.gram))

    def __add__(self, other: TensorStatistics) -> TensorStatistics:
        """Return the statistics of two tensors (or two parts of one) as one long vector."""
        return TensorStatistics(
            self.gram + other.gram,
            self.base_squared_norm + other.base_squared_norm,
            self.moved + other.moved,
            self.numel + other.numel,
        )


@dataclass(frozen=True)
class SeriesStatistics:
    """Statistics of every extrapolated tensor of a series.

    Attributes:
        steps: (T,) step numbers, ascending.
        tensors: Name → statistics, in the model's order.
        fingerprint: Of the weights they were formed from; empty where it is not needed.
        sampled: Whether they are estimates from a part of the numbers.
    """

    steps: Array
    tensors: Mapping[str, TensorStatistics]
    fingerprint: str = ""
    sampled: bool = False

    def select(self, chosen: npt.NDArray[np.bool_]) -> SeriesStatistics:
        """Return the statistics of the checkpoints ``chosen`` (T,); ``moved`` stays as it is."""
        tensors = {
            name: replace(t, gram=t.gram[np.ix_(chosen, chosen)])
            for name, t in self.tensors.items()
        }
        return replace(self, steps=self.steps[chosen], tensors=tensors)

    def save(self, path: Path) -> None:
        """Write G (float64) of every tensor and, as metadata, the rest; a few MB for 75 × 340."""
        from safetensors.numpy import save

        rest = {
            n: [None if np.isnan(t.base_squared_norm) else t.base_squared_norm, t.moved, t.numel]
            for n, t in self.tensors.items()
        }
        arrays = {_PREFIX + name: np.ascontiguousarray(t.gram) for name, t in self.tensors.items()}
        about: dict[str, Any] = {
            "steps": self.steps.tolist(),
            "tensors": rest,
            "fingerprint": self.fingerprint,
        }
        if self.sampled:
            about["sampled"] = True
        # One entry, since safetensors writes several in an order that changes from run to run.
        path.write_bytes(save(arrays, metadata={"series": json.dumps(about)}))

    @staticmethod
    def load(path: Path) -> SeriesStatistics:
        """Read what :meth:`save` wrote.

        Raises:
            RelexError: The file is not such a file, or a number in it is no number.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads((file.metadata() or {})["series"])
                steps = np.asarray(about["steps"], dtype=np.float64)
                tensors = {
                    name: TensorStatistics(
                        file.get_tensor(_PREFIX + name),
                        float("nan") if norm is None else norm,
                        int(moved),
                        int(numel),
                    )
                    for name, (norm, moved, numel) in about["tensors"].items()
                }
            if any(t.gram.shape != (len(steps), len(steps)) for t in tensors.values()):
                raise ValueError("a matrix is not T × T")  # noqa: TRY301
            if not all(np.isfinite(t.gram).all() for t in tensors.values()):
                raise ValueError("a matrix holds NaN or Inf")  # noqa: TRY301
        except (
            OSError,
            SafetensorError,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
        ) as error:
            raise RelexError(
                f"{path} is not a file of Gram matrices written by relex-merge: {error}"
            ) from error
        sampled = about.get("sampled") is True
        return SeriesStatistics(steps, tensors, about.get("fingerprint", ""), sampled)


def at_rest_where_broken(statistics: SeriesStatistics) -> tuple[SeriesStatistics, list[str]]:
    """Put tensors that cannot be described at rest, so that they disturb no figure of the others.

    Returns:
        The statistics, with G = 0 and an unknown norm for tensors whose G is not finite, or so
        large that products overflow; and the names of those tensors.
    """
    broken = {
        name: replace(t, gram=np.zeros_like(t.gram), base_squared_norm=float("nan"))
        for name, t in statistics.tensors.items()
        if not np.all(np.abs(t.gram) < LARGEST)
    }
    return replace(statistics, tensors={**statistics.tensors, **broken}), list(broken)

"""The headers of local weights: whether the files are whole, and their dtype."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


class BrokenWeightsError(Exception):
    """A file is not a whole safetensors file; the message says which."""


def dtype_of(folder: Path, files: Sequence[str]) -> str | None:
    """The dtype of most numbers, as safetensors spells it (BF16); None for ``.bin`` files.

    Raises BrokenWeightsError for a file that is still being written, or broken.
    """
    from safetensors import SafetensorError, safe_open

    numbers: Counter[str] = Counter()
    for file in files:
        if not file.endswith(".safetensors"):
            continue
        try:
            with safe_open(folder / file, framework="numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118  # no mapping
                    tensor = tensors.get_slice(name)
                    numbers[tensor.get_dtype()] += math.prod(tensor.get_shape())
        except (SafetensorError, OSError) as error:
            raise BrokenWeightsError(f"{file} is not whole ({error})") from error
    return numbers.most_common(1)[0][0] if numbers else None

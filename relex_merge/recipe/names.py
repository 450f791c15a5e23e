"""Names that a relex recipe uses."""

from __future__ import annotations

from typing import Literal, TypeAlias

METHOD = "relex"
TargetStep: TypeAlias = "float | Literal['auto']"
ROLES = ("observed", "holdout")
DTYPES = ("bfloat16", "float16", "float32", "float64")

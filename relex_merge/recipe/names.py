"""Names that a relex recipe uses."""

from __future__ import annotations

METHOD = "relex"
ROLES = ("observed", "holdout")
DTYPES = ("bfloat16", "float16", "float32", "float64")

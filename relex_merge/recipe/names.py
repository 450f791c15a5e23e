"""Names that a relex recipe uses."""

from __future__ import annotations

METHOD = "relex"


ROLES = ("observed", "holdout")

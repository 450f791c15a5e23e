"""Series of checkpoints, found on a disk or on the Hub, however a trainer has named them.

:func:`find` looks at a folder or a repo and returns a :class:`Series`. What it is made of lies in
one file an idea: steps in names (``names``), what a folder's files say (``files``), the choice
among several layouts (``choose``), the layouts of the Hub (``refs``, ``commits``, ``subfolders``),
the base (``base``), and the steps that are observed (``observe``).
"""

from __future__ import annotations

from relex_merge.discovery.found import Base, Checkpoint, NothingFoundError, Series
from relex_merge.discovery.search import find

__all__ = ["Base", "Checkpoint", "NothingFoundError", "Series", "find"]

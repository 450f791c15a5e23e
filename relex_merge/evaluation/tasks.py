"""Tasks of lm-evaluation-harness, loaded once and measured on many models.

A question is known by the SHA-256 of its document, computed as lm-eval computes ``doc_hash``; a
second document of the same content is ``HASH#2``. So scores can be paired between models, and kept
for later runs, whatever the order of the documents.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from relex_merge.errors import RelexError, not_installed
from relex_merge.hub.references import hub_id
from relex_merge.report.evaluation import DatasetEntry

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of functions whose source is unknown


@dataclass(frozen=True)
class LoadedTask:
    """A task, ready to be measured.

    name: lm-eval's. documents: the key of every question in lm-eval's order, at most ``limit``.
    identity: SHA-256 of the task's configuration. manager, task: lm-eval's own objects.
    """

    name: str
    documents: tuple[str, ...]
    identity: str
    manager: Any
    task: Any


def load_tasks(
    names: Sequence[str], *, include_path: Path | None = None, limit: float | None = None
) -> list[LoadedTask]:
    """Load tasks, groups and tags by name; groups and tags become their tasks.

    Args:
        names: as lm-eval knows them; ``*`` is a wildcard.
        include_path: a folder with more task files (lm-eval's ``--include_path``).
        limit: only the first ``limit`` questions of each task, or that share when below 1.

    Raises:
        RelexError: lm-eval is not installed; a name is unknown (near names are listed); a task
            cannot be loaded, for want of its data, say.
    """
    require("lm_eval", "--tasks needs lm-evaluation-harness", "eval")
    if limit is not None and limit <= 0:
        raise RelexError(f"limit is {limit}; give a number of questions, or a share below 1")
    manager, known = _find(names, include_path)
    loaded: dict[str, Any] = {}
    for name in known:
        try:
            loaded |= manager.load([name])["tasks"]
        except Exception as error:  # tasks run code of their own
            raise RelexError(
                f"task {name}: lm-eval cannot load it: {type(error).__name__}: {error}"
            ) from error
    return [_loaded(name, task, manager, limit) for name, task in loaded.items()]


def require(module: str, who: str, extra: str) -> None:
    """Check that an optional package is installed; it belongs to an extra of this one.

    Raises:
        RelexError: with the line that installs it.
    """
    if find_spec(module) is None:
        raise not_installed(who, extra)


def _find(names: Sequence[str], include_path: Path | None) -> tuple[Any, list[str]]:
    """Return a manager that knows all names, and the names that wildcards stand for.

    Reading lm-eval's own 14,000 tasks takes ten seconds or more, so the user's folder comes first.
    """
    from lm_eval.tasks import TaskManager

    if not names:
        raise RelexError("no tasks are named; give --tasks NAME,NAME")
    if include_path is not None:
        if not include_path.is_dir():
            raise RelexError(f"--include-path {include_path} is not a folder")
        manager = TaskManager(include_path=str(include_path), include_defaults=False)
        if all(manager.match_tasks([name]) for name in names):
            return manager, resolve(manager, names)
    manager = TaskManager(include_path=None if include_path is None else str(include_path))
    return manager, resolve(manager, names)


def resolve(manager: Any, names: Sequence[str]) -> list[str]:
    """Return the names of tasks, groups and tags that ``names``, wildcards and all, stand for.

    Args:
        manager: lm-eval's ``TaskManager``.
        names: as the user wrote them.

    Raises:
        RelexError: a name stands for nothing; near names are listed.
    """
    found: dict[str, None] = {}
    for name in names:
        matches = manager.match_tasks([name])
        if not matches:
            raise RelexError(_unknown(name, manager.all_tasks))
        found |= dict.fromkeys(matches)
    return list(found)


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=8)
    near += [other for other in known if name.lower() in other.lower() and other not in near]
    listed = f"; near names: {', '.join(near[:8])}" if near else ""
    return f"lm-eval knows no task {name!r}{listed} (`lm-eval ls tasks` lists all)"


def _loaded(name: str, task: Any, manager: Any, limit: float | None) -> LoadedTask:
    try:
        documents = list(task.eval_docs)
    except Exception as error:  # tasks run code of their own
        raise RelexError(
            f"task {name}: lm-eval cannot read its questions: {type(error).__name__}: {error}"
        ) from error
    if not documents:
        raise RelexError(f"task {name} has no questions")
    keys = _numbered([_hash(document) for document in documents])
    if limit is not None:
        keys = keys[: math.ceil(len(keys) * limit) if limit < 1 else int(limit)]
    config = json.dumps(task.dump_config(), sort_keys=True, default=str)
    identity = hashlib.sha256(_ADDRESS.sub("", config).encode()).hexdigest()
    return LoadedTask(name, keys, identity, manager, task)


def dataset_of(task: LoadedTask) -> DatasetEntry:
    """Return the dataset on the Hub that a task's questions come from."""
    config = task.task.dump_config()
    path = config.get("dataset_path")
    if not isinstance(path, str) or "/" not in path or hub_id(path) is None or Path(path).exists():
        return {"dataset": None, "config": None, "split": None}
    split = config.get("test_split") or config.get("validation_split")
    return {"dataset": path, "config": config.get("dataset_name"), "split": split}


def _hash(document: Any) -> str:
    """Return lm-eval's ``doc_hash``."""
    from lm_eval.utils import handle_non_serializable, hash_string

    text = json.dumps(document, indent=2, default=handle_non_serializable, ensure_ascii=False)
    return str(hash_string(text))


def _numbered(hashes: Sequence[str]) -> tuple[str, ...]:
    seen: Counter[str] = Counter()
    keys = []
    for digest in hashes:
        seen[digest] += 1
        keys.append(digest if seen[digest] == 1 else f"{digest}#{seen[digest]}")
    return tuple(keys)

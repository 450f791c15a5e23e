"""Finished measurements are kept whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from relex_merge.errors import RelexError
from relex_merge.evaluation.store import Store


def test_what_was_kept_comes_back_for_the_same_key_only(tmp_path: Path) -> None:
    store = Store(tmp_path / "new")
    key = {"model": "abc", "settings": {"seed": 1, "limit": None}}
    assert store.get(key) is None
    store.put(key, {"x": 0.1})
    assert Store(tmp_path / "new").get(
        {"settings": {"limit": None, "seed": 1}, "model": "abc"}
    ) == {"x": 0.1}
    assert store.get({**key, "model": "abd"}) is None
    assert len(list(store.folder.iterdir())) == 1


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put({"a": 1}, 2)
    (file,) = tmp_path.iterdir()
    file.write_text('{"key": ')
    with pytest.raises(RelexError, match=r"\.json is broken; delete it"):
        store.get({"a": 1})

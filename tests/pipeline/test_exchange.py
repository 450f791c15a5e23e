"""Two folders change places in one step; where the system cannot, nothing is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from relex_merge.pipeline.exchange import exchange


def test_two_folders_change_places(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "ötherß"
    for folder in (one, other):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    if not exchange(one, other):
        pytest.skip("this system exchanges no folders")
    assert (one / "name").read_text() == "ötherß"
    assert (other / "name").read_text() == "one"


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    one, two, other = tmp_path / "one", tmp_path / "two", tmp_path / "other"
    one.mkdir()
    two.mkdir()
    if not exchange(one, two):
        pytest.skip("this system exchanges no folders")
    with pytest.raises(FileNotFoundError, match=str(other)):
        exchange(one, other)
    assert one.is_dir()

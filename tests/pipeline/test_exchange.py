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


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    try:
        done = exchange(tmp_path / "one", tmp_path / "other")
    except FileNotFoundError as error:
        assert str(tmp_path / "one") in str(error)
    else:
        assert not done
    assert (tmp_path / "one").is_dir()

"""The house keeps its shape: layers, rooms and mirrors (pyproject.toml, [tool.importlinter])."""

from __future__ import annotations

from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "relex_merge"
MOST_FILES_IN_ROOT = 8
MOST_ON_FIRST_LEVEL = 17


def test_imports_keep_to_the_rules(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every contract of [tool.importlinter]; the message names the arrow that breaks one."""
    monkeypatch.chdir(ROOT)
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_the_first_level_can_be_taken_in_at_a_glance() -> None:
    """Few files in the root of the package, few rooms beside them."""
    files = [path.name for path in PACKAGE.glob("*.py")]
    rooms = [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
    assert len(files) <= MOST_FILES_IN_ROOT, files
    modules = [name for name in files if name != "__init__.py"]
    assert len(modules) + len(rooms) <= MOST_ON_FIRST_LEVEL, (modules, rooms)


def test_tests_mirror_the_packages() -> None:
    """A folder below tests/ is named like a room, or is one of the four that serve all tests."""
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    assert folders - rooms <= {"benchmarks", "endurance", "fake_hub", "support"}

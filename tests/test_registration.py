"""Promises of ``import relex_merge``: mergekit knows the method, whoever is imported first."""

from __future__ import annotations

from tests.support.terminal import python


def test_importing_the_package_first_waits_for_mergekit_and_costs_nothing() -> None:
    script = """
import sys
import importlib.util
before = list(sys.meta_path)
import relex_merge
heavy = {"torch", "mergekit", "transformers", "huggingface_hub", "numpy"} & set(sys.modules)
assert not heavy, heavy
# Somebody may look for mergekit without importing it.
assert importlib.util.find_spec("mergekit.merge_methods")
from mergekit.merge_methods import get
assert get("relex").spec.name == "relex"
left = [f for f in sys.meta_path if f not in before and "relex" in type(f).__module__]
assert not left, left
"""
    python(script)


def test_importing_mergekit_first_registers_at_once() -> None:
    python(
        "from mergekit.merge_methods import get\nimport relex_merge\n"
        "assert get('relex').spec.name == 'relex'"
    )

"""The paper in miniature: a real RLVR run, its first steps observed, its end extrapolated.

A laboratory as well: ``tasks/`` takes further tasks, ``settings.py`` holds every hyper-parameter.
"""

from __future__ import annotations

from relex_merge.demo.run import run_demo
from relex_merge.demo.table import DemoResult, Row

__all__ = ["DemoResult", "Row", "run_demo"]

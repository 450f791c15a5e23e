"""The trust report: know before you extrapolate.

Computed from Gram matrices alone (:mod:`relex_merge.trajectory.statistics`), without another pass
over the weights. :func:`build_report` makes the dictionary that is ``relex_report.json``; the other
functions show it.
"""

from __future__ import annotations

from relex_merge.report.build import build_report
from relex_merge.report.coefficients import coefficients_csv, save_coefficients_plot
from relex_merge.report.html import save_html
from relex_merge.report.plot import save_plot
from relex_merge.report.terminal import print_report, render_text
from relex_merge.trajectory.backtests.results import Evidence, Verdict
from relex_merge.trajectory.backtests.verdict import VERDICTS, decide

__all__ = [
    "VERDICTS",
    "Evidence",
    "Verdict",
    "build_report",
    "coefficients_csv",
    "decide",
    "print_report",
    "render_text",
    "save_coefficients_plot",
    "save_html",
    "save_plot",
]

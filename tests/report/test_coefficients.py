"""Coefficients against step, in and out of sample, equal projections of the weights."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relex_merge.errors import RelexError
from relex_merge.report import coefficients_csv, save_coefficients_plot
from relex_merge.report.coefficients import project
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from tests.support.report_cases import make, report_of

STEPS = np.asarray([1.0, 2, 3, 5, 8, 13, 21, 34])
RUN = make(STEPS, walk=0.3)
NAME = "model.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("fitted", [4, 8])
def test_coefficients_are_projections_on_directions_of_the_first_checkpoints(
    fitted: int, rank: int
) -> None:
    M = RUN.deltas[NAME]
    found = project(M @ M.T, STEPS, fitted=fitted, rank=rank)
    c = M @ np.linalg.svd(M[:fitted], full_matrices=False)[2][:rank].T
    c *= np.sign(c[:fitted].sum(axis=0))
    np.testing.assert_allclose(found.coefficients, c, rtol=1e-7, atol=1e-12)
    captured = (c**2).sum(axis=1) / (M**2).sum(axis=1)
    np.testing.assert_allclose(found.captured, captured, rtol=1e-8)
    for k in range(rank):
        line = np.polynomial.Polynomial.fit(STEPS[:fitted], c[:fitted, k], 1)
        np.testing.assert_allclose(found.line[:, k], line(STEPS), rtol=1e-6, atol=1e-12)


def test_csv_has_one_row_per_tensor_step_and_rank() -> None:
    text = coefficients_csv(RUN.statistics(), fitted=5, rank=2)
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == len(RUN.deltas) * len(STEPS) * 2
    mine = [row for row in rows if row["tensor"] == NAME and row["rank"] == "1"]
    assert [float(row["step"]) for row in mine] == STEPS.tolist()
    assert [row["in_sample"] for row in mine] == ["1"] * 5 + ["0"] * 3
    found = project(RUN.deltas[NAME] @ RUN.deltas[NAME].T, STEPS, fitted=5, rank=2)
    assert [float(row["coefficient"]) for row in mine] == found.coefficients[:, 0].tolist()


def test_plot_has_a_panel_per_tensor(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "coefficients.svg"
    names = [NAME, "model.norm.weight"]
    save_coefficients_plot(RUN.statistics(), names, path, fitted=5, rank=2)
    assert path.read_text().count('id="axes_') == 2


def test_a_tensor_at_rest_has_coefficients_of_zero() -> None:
    found = project(np.zeros((8, 8)), STEPS, fitted=4)
    assert not found.coefficients.any()
    assert np.isnan(found.captured).all()


def test_bad_requests_name_culprit_and_remedy() -> None:
    statistics = RUN.statistics()
    with pytest.raises(RelexError, match=r"no tensor 'nope'.*model\.embed_tokens\.weight"):
        coefficients_csv(statistics, ["nope"])
    with pytest.raises(RelexError, match="there must be 2 to 8"):
        coefficients_csv(statistics, [NAME], fitted=9)
    with pytest.raises(RelexError, match="rank is 5; with 4 checkpoints"):
        coefficients_csv(statistics, [NAME], fitted=4, rank=5)


@pytest.mark.parametrize("predictor", ["linear", "sqrt", "stay"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"scale": 0.5},
        {"anchor": "last", "scale": 0.3},
        {"anchor": "average", "window": 3},
        {"window": 4, "rank": 2},
    ],
    ids=lambda how: "-".join(f"{k}-{v}" for k, v in how.items()) or "plain",
)
def test_the_models_prediction_is_where_the_written_weights_are(
    predictor: str, how: dict[str, Any]
) -> None:
    """model.predicted, the star of the figure, is the coefficient of what ``run`` writes."""
    parameters = Parameters(80.0, predictor=predictor, **how)
    entry = report_of(RUN.statistics(), 80.0, parameters)["model"]
    M = RUN.whole()
    v = np.linalg.svd(M, full_matrices=False)[2][0]
    v = v * np.sign((M @ v)[-1] * entry["coefficients"][-1])
    np.testing.assert_allclose(entry["coefficients"], M @ v, rtol=1e-7)
    written = np.concatenate([_continued(each, parameters) for each in RUN.deltas.values()])
    np.testing.assert_allclose(entry["predicted"], written @ v, rtol=1e-7)


def _continued(M: Array, p: Parameters) -> Array:
    """θ̂ − θ₀ of one tensor's deltas M (T, d), by SVD and least squares on explicit weights."""
    T, window = len(M), p.window or len(M)
    V = np.linalg.svd(M, full_matrices=False)[2][: p.rank]
    x, at = (STEPS, p.target_step) if p.predictor == "linear" else (STEPS**0.5, p.target_step**0.5)

    def line(where: float) -> Array:
        fit = np.polynomial.polynomial.polyfit(x[T - window :], (M @ V.T)[T - window :], 1)
        return np.asarray(np.polynomial.polynomial.polyval(where, fit) @ V)

    ahead, now = (M[-1], M[-1]) if p.predictor == "stay" else (line(at), line(x[-1]))
    start = {"line": now, "last": M[-1], "average": M[T - window :].mean(axis=0)}[p.anchor]
    return np.asarray(start + p.scale * (ahead - now))

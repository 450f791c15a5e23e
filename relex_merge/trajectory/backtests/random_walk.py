"""What a random walk would show: the yardstick for every figure of the report.

A walk θ_t = θ₀ + Σ ε of independent steps in d ≫ T dimensions has, to a relative error of order
1/√d, the Gram matrix G_ij ∝ min(s_i, s_j): the covariance of Brownian motion at the observed steps.
So the figures of a random walk are the ordinary figures of this one matrix, whatever the spacing of
the steps: explained variance, R², straightness, angle, backtest skill.

Its spectrum is the Karhunen-Loève expansion of Brownian motion that starts at 0 (Loève,
*Probability Theory*; eigenfunctions sin((k − ½)πt), eigenvalues 1/((k − ½)π)²), hence the share of
rank k is 8/((2k − 1)π)²: 81 %, 9 %, 3.2 % … An explained variance of 0.8 says nothing. Antognini &
Sohl-Dickstein, "PCA of high dimensional random walks with comparison to neural network training"
(NeurIPS 2018, arXiv 1806.08805), derive the centred case: PCA removes the mean over time, the
eigenfunctions are cosines and the shares are 6/(πk)²: 61 %, 15 %, 6.8 %. RELEX does not centre, its
deltas are from the base, so the uncentred kernel is the right yardstick here.
"""

from __future__ import annotations

import numpy as np

from relex_merge.trajectory.gram import Array, Steps


def random_walk_gram(steps: Steps) -> Array:
    """Return (T, T) min(s_i, s_j), the Gram matrix of a random walk from the base at step 0.

    The scale is arbitrary; no figure depends on it.
    """
    s = np.asarray(steps, dtype=np.float64)
    return np.minimum(s[:, np.newaxis], s[np.newaxis, :])

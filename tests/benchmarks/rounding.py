"""Would it help to correct G for the rounding of bfloat16 files? Measured; it would not.

    python -m tests.benchmarks.rounding [--cache DIR] [--seeds 0,1] [--synthetic 100]

The idea: a rounding error that is independent between checkpoints adds to the diagonal of G alone,
so estimate it there (second differences), subtract it, and predict from what is left. Tried on the
miniature runs, written to bfloat16 as a trainer writes them: float32 weights inside, bfloat16 files
outside, from a base that is itself a bfloat16 file ("published base") or that is rounded with the
rest ("rounded base"). Skill is that of the line at step 200 from the first 30 checkpoints, against
the checkpoint that was not rounded, relative to standing still on the rounded one. ``true
diagonal`` uses the noise itself, which nobody knows: no estimate of a diagonal can do better.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from relex_merge.trajectory.gram import Array, least_squares_rows, squared_error, unit
from relex_merge.trajectory.spectra import spectra
from tests.benchmarks.miniature import CACHE, OBSERVED, STEPS, MiniatureRun, keys, load_run, make
from tests.benchmarks.trajectories import RATIOS, draw

PUBLISHED, ROUNDED = "published base", "rounded base"


def noise_estimate(gram: Array, steps: Array) -> Array:
    """(T,): variance σ_t² of what a checkpoint has for itself, from second differences.

    ‖δ_t − α δ_{t−1} − β δ_{t+1}‖² = σ_t² + α² σ_{t−1}² + β² σ_{t+1}² for independent errors on a
    path that is straight between neighbours (α, β: linear interpolation).
    """
    s = np.asarray(steps)
    found = np.empty(len(s))
    for t in range(1, len(s) - 1):
        alpha = (s[t + 1] - s[t]) / (s[t + 1] - s[t - 1])
        w = np.zeros(len(s))
        w[t - 1], w[t + 1] = alpha, 1 - alpha
        found[t] = squared_error(gram, w, t) / (1 + alpha**2 + (1 - alpha) ** 2)
    found[0], found[-1] = found[1], found[-2]
    return found


def _projected(gram: Array, h: Array) -> Array:
    """W (T,): h in the leading direction of G."""
    return np.asarray(spectra(gram[np.newaxis]).project(h[np.newaxis], 1)[0, 0])


@dataclass(frozen=True)
class Effect:
    """One run in bfloat16.

    moved: share of weights that differ from the base at the last observed
    checkpoint; noise: ‖error‖² / ‖movement‖² there; correlation: of its error with that of the
    checkpoint one and ten steps before; estimated: noise estimate / true noise there. exact … :
    skill from unrounded files, rounded ones, with the estimated and the true diagonal subtracted,
    and of per-weight least squares on rounded files.
    """

    moved: float
    noise: float
    correlation_1: float
    correlation_10: float
    estimated: float
    exact: float
    rounded: float
    corrected: float
    true_diagonal: float
    per_weight: float


def rounding_effect(run: MiniatureRun, kind: str) -> Effect:
    """Round ``run`` and predict its last step from its first ``OBSERVED`` checkpoints."""
    T, s = OBSERVED, run.steps[:OBSERVED]
    h = least_squares_rows(s, [STEPS])[0]
    totals: dict[str, float] = dict.fromkeys(
        ("still", "exact", "rounded", "corrected", "true_diagonal", "per_weight", "estimate"), 0.0
    )
    noise_gram, movement, moved, numel = np.zeros((T, T)), 0.0, 0, 0
    for rows in run.weights.values():
        X, Y = _deltas(rows, kind)
        error = Y[:T] - X[:T]
        exact, rounded, noise = X[:T] @ X[:T].T, Y[:T] @ Y[:T].T, error @ error.T
        estimate = noise_estimate(rounded, s)
        noise_gram += noise
        movement += float(exact[-1, -1])
        moved, numel = moved + int(np.count_nonzero(Y[T - 1])), numel + Y.shape[1]

        def missed(w: Array, D: Array, truth: Array = X[-1]) -> float:
            return float(((w @ D[:T] - truth) ** 2).sum())

        totals["estimate"] += float(estimate[-1])
        totals["still"] += missed(unit(T, T - 1), Y)
        totals["exact"] += missed(_projected(exact, h), X)
        totals["rounded"] += missed(_projected(rounded, h), Y)
        totals["corrected"] += missed(_projected(rounded - np.diag(estimate), h), Y)
        true_diagonal = np.diag(np.diag(noise))
        totals["true_diagonal"] += missed(_projected(rounded - true_diagonal, h), Y)
        totals["per_weight"] += missed(h, Y)
    scale = np.sqrt(np.diag(noise_gram))
    correlation = noise_gram / np.outer(scale, scale)
    skill = {name: 1 - total / totals["still"] for name, total in totals.items()}
    return Effect(
        moved=moved / numel,
        noise=float(noise_gram[-1, -1]) / movement,
        correlation_1=float(correlation[-1, -2]),
        correlation_10=float(correlation[-1, -11]),
        estimated=totals["estimate"] / float(noise_gram[-1, -1]),
        exact=skill["exact"],
        rounded=skill["rounded"],
        corrected=skill["corrected"],
        true_diagonal=skill["true_diagonal"],
        per_weight=skill["per_weight"],
    )


def _deltas(rows: torch.Tensor, kind: str) -> tuple[Array, Array]:
    """(S, d) float64 twice: movements from the base as trained, and as read from bfloat16 files."""
    base = rows[0].to(torch.bfloat16).float()
    trained = rows if kind == ROUNDED else base + (rows - rows[0])
    saved = trained.to(torch.bfloat16).double()
    exact = trained.double()
    return (exact[1:] - exact[0]).numpy(), (saved[1:] - saved[0]).numpy()


def synthetic_effect(family: str, seeds: int) -> tuple[float, float, float]:
    """(median skill as it is, corrected, share of runs that gain) over lengths and ratios.

    Against the later checkpoints as they are in the files.
    """
    plain, corrected = [], []
    for seed in range(seeds):
        T = (10, 20, 40)[seed % 3]
        run = draw(family, T, seed)
        s = run.statistics.steps
        for j in range(T, T + len(RATIOS)):
            h = np.zeros(T + len(RATIOS))
            h[:T] = least_squares_rows(s[:T], [s[j]])[0]
            errors = np.zeros(3)
            for tensor in run.statistics.tensors.values():
                G = tensor.gram
                seen = G[:T, :T]
                less = seen - np.diag(noise_estimate(seen, s[:T]))
                for i, each in enumerate((seen, less)):
                    w = np.zeros(len(G))
                    w[:T] = _projected(each, h[:T])
                    errors[i] += squared_error(G, w, j)
                errors[2] += squared_error(G, unit(len(G), T - 1), j)
            plain.append(1 - errors[0] / errors[2])
            corrected.append(1 - errors[1] / errors[2])
    gains = float(np.mean(np.asarray(corrected) > np.asarray(plain)))
    return float(np.median(plain)), float(np.median(corrected)), gains


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cache", type=Path, default=CACHE, help="where runs are kept")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--synthetic", type=int, default=100, help="synthetic runs per law")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    wanted = keys([int(seed) for seed in options.seeds.split(",")])
    make(wanted, options.cache, workers=2)
    names = list(Effect.__dataclass_fields__)
    for kind in (PUBLISHED, ROUNDED):
        effects = {key: rounding_effect(load_run(key, options.cache), kind) for key in wanted}
        print(f"\n{kind}\n{'':<44}" + "".join(f"{name[:13]:>15}" for name in names))
        for key, effect in effects.items():
            print(f"{key!s:<44}" + "".join(f"{getattr(effect, n):>15.3f}" for n in names))
        medians = [np.median([getattr(e, n) for e in effects.values()]) for n in names]
        print(f"{'median':<44}" + "".join(f"{value:>15.3f}" for value in medians))
    print(f"\n{'synthetic':<20}{'as it is':>10}{'corrected':>10}{'gain in':>10}")
    for family in ("line", "power law", "rotating"):
        plain, corrected, gains = synthetic_effect(f"bf16 {family}", options.synthetic)
        print(f"{'bf16 ' + family:<20}{plain:>10.3f}{corrected:>10.3f}{gains:>10.0%}")


if __name__ == "__main__":
    main()

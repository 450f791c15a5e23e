"""Synthetic training runs whose law, and therefore whose end, is known.

Every run is explicit weights of a few tensors: a mean movement by the family's law, a random walk
(optimizer noise that adds up), and white noise (what one checkpoint has and the next has not), all
in d ≫ T dimensions; one family is rounded to bfloat16 on top. Levels are drawn log-uniformly, so
that runs range from hopeless to exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics

D = 2000
TENSORS = 3
RATIOS = (1.5, 2.0, 4.0, 20 / 3, 40 / 3)  # the last two are the paper's


@dataclass(frozen=True)
class Run:
    """A made-up run.

    family: the law; statistics: over the observed checkpoints and, after them, the true ones at
    each of ``RATIOS`` × the last observed step; observed: T. dtype: of the checkpoints.
    """

    family: str
    statistics: SeriesStatistics
    observed: int
    dtype: str


# (generator, x = s/s_T) → position (len(x), k) in k orthogonal directions, 1 where x is 1
Law = Callable[[np.random.Generator, Array], Array]


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _line(rng: np.random.Generator, x: Array) -> Array:
    return x[:, np.newaxis]


def _power(rng: np.random.Generator, x: Array) -> Array:
    return np.asarray(x ** rng.uniform(0.35, 0.9))[:, np.newaxis]


def _saturating(rng: np.random.Generator, x: Array) -> Array:
    return (1 - np.exp(-x / _log_uniform(rng, 0.2, 20)))[:, np.newaxis]


def _warm_up(rng: np.random.Generator, x: Array) -> Array:
    end = rng.uniform(0.05, 1.0)  # the learning rate rises linearly until here
    return np.asarray(np.where(x < end, x**2 / (2 * end), x - end / 2))[:, np.newaxis]


def _rotating(rng: np.random.Generator, x: Array) -> Array:
    turn = np.radians(_log_uniform(rng, 5, 180))  # of the velocity, over the observed window
    return np.stack([np.sin(turn * x) / turn, (1 - np.cos(turn * x)) / turn], axis=1)


def _random_walk(rng: np.random.Generator, x: Array) -> Array:
    return np.zeros((len(x), 1))


LAWS: dict[str, Law] = {
    "line": _line,
    "power law": _power,
    "saturating": _saturating,
    "warm-up": _warm_up,
    "rotating": _rotating,
    "random walk": _random_walk,
    "bf16 line": _line,
}


def _round_bf16(x: Array) -> Array:
    import torch

    return np.asarray(torch.from_numpy(x).to(torch.bfloat16).to(torch.float64).numpy())


def draw_steps(rng: np.random.Generator, T: int) -> Array:
    """(T,) ascending: every step, every tenth, from the middle of a run, or at random places."""
    kind = rng.integers(4)
    if kind == 0:
        return np.arange(1.0, T + 1)
    if kind == 1:
        return 10 * np.arange(1.0, T + 1)
    if kind == 2:
        return np.arange(1.0, T + 1) + T // 4
    return np.sort(rng.choice(np.arange(1.0, 3 * T + 1), T, replace=False))


def draw(family: str, T: int, seed: int) -> Run:
    """One run of ``family`` with T observed checkpoints.

    family: a key of ``LAWS``, or "bf16 " and a key: the same law in files rounded to bfloat16.
    """
    rng = np.random.default_rng([seed, T, *family.encode()])
    observed = draw_steps(rng, T)
    steps = np.append(observed, observed[-1] * np.asarray(RATIOS))
    x = steps / observed[-1]
    walk, white = _log_uniform(rng, 0.02, 2), _log_uniform(rng, 0.003, 0.5)
    movement = 0.02 / 128 * _log_uniform(rng, 0.003, 1)  # bfloat16 spacing at the weights' scale
    rounded = family.startswith("bf16 ")
    law = LAWS[family.removeprefix("bf16 ")]
    tensors = {}
    for i in range(TENSORS):
        position = law(rng, x)
        deltas = movement * (
            position @ rng.standard_normal((position.shape[1], D))
            + walk * _brownian(rng, x)
            + white * rng.standard_normal((len(x), D))
        )
        base = 0.02 * rng.standard_normal(D)
        if rounded:
            deltas = _round_bf16(base + deltas) - _round_bf16(base)
        tensors[f"model.layers.{i}.mlp.up_proj.weight"] = TensorStatistics(
            deltas @ deltas.T, float(base @ base), int(np.count_nonzero(deltas[T - 1])), D
        )
    dtype = "bfloat16" if rounded else "float32"
    return Run(family, SeriesStatistics(steps, tensors), T, dtype)


def _brownian(rng: np.random.Generator, x: Array) -> Array:
    """(len(x), D): a random walk from 0 at x = 0, of variance x."""
    intervals = np.diff(np.append(0.0, x))
    return np.asarray(
        (np.sqrt(intervals)[:, np.newaxis] * rng.standard_normal((len(x), D))).cumsum(axis=0)
    )

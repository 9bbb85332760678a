"""Keyed random numbers: one stream for NumPy and torch, uniform, independent, the same for ever."""

from itertools import combinations

import numpy as np
import pytest
import torch

from mmrobust import keyed

KEYS = np.array([0, 1, 2, -1, 2**62, 2**63 - 1, -(2**63)])
N = 50_000


@pytest.mark.parametrize("salts", [(), (0,), (-3, "draw", 2**40), ("missing", "train")])
def test_numpy_and_torch_agree_bit_for_bit(salts: tuple[int | str, ...]) -> None:
    hashed, uniform = (
        keyed.hashed(torch.from_numpy(KEYS), *salts),
        keyed.uniform(torch.from_numpy(KEYS), *salts),
    )
    assert hashed.dtype == torch.int64
    assert uniform.dtype == torch.float64
    np.testing.assert_array_equal(hashed.numpy(), keyed.hashed(KEYS, *salts))
    np.testing.assert_array_equal(uniform.numpy(), keyed.uniform(KEYS, *salts))


def test_values_never_change() -> None:
    """A run from last year must be repeatable: another hash would change every mask and every order."""
    assert keyed.hashed(KEYS[:4], 0).tolist() == [
        6235967106033911276,
        132316291454871238,
        -4211426737692889662,
        -8807323227567747167,
    ]
    assert keyed.uniform(KEYS[:2], 0, "draw", 7).tolist() == [0.959254705258577, 0.19216919730086424]
    assert keyed.uniforms(2, 1, "x").tolist() == [0.035284073579979425, 0.22827429481159833]
    assert keyed.seed_of(0, "order", 5) == 3336208499609948863


def test_a_key_does_not_depend_on_its_neighbours() -> None:
    keys = np.arange(60).reshape(3, 4, 5)
    together = keyed.uniform(keys, 5, "stream")
    assert together.shape == keys.shape
    alone = [keyed.uniform(np.array([key]), 5, "stream")[0] for key in keys.flat]
    assert together.ravel().tolist() == alone


@pytest.mark.parametrize("first", [0, 10**12, -N])
def test_uniform(first: int) -> None:
    draws = keyed.uniform(np.arange(first, first + N), 0, "stream")
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.bincount((draws * 256).astype(int), minlength=256)
    chi2 = ((counts - N / 256) ** 2 / (N / 256)).sum()
    assert abs(chi2 - 255) < 5 * np.sqrt(2 * 255)
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 5 / np.sqrt(N)


def test_streams_are_independent() -> None:
    """Seeds, names, epochs, and which of the salts a number is: each gives a stream of its own."""
    salts = [(0,), (1,), (-1,), ("a",), ("b",), (0, "a", 0), (0, "a", 1), (1, "a", 0), (0, "b", 0), ("a", 0)]
    streams = [keyed.uniform(np.arange(N), *s) for s in salts]
    for (a, x), (b, y) in combinations(zip(salts, streams, strict=True), 2):
        cells = np.bincount((x * 8).astype(int) * 8 + (y * 8).astype(int), minlength=64)
        chi2 = ((cells - N / 64) ** 2 / (N / 64)).sum()
        assert abs(chi2 - 63) < 5 * np.sqrt(2 * 63), f"{a} and {b}"


def test_hashes_do_not_collide() -> None:
    hashes = np.concatenate([keyed.hashed(np.arange(N), 0, "draw", epoch) for epoch in range(4)])
    assert len(np.unique(hashes)) == len(hashes)


def test_seeds_fit_a_generator() -> None:
    seeds = {keyed.seed_of(seed, "order", epoch) for seed in range(50) for epoch in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)

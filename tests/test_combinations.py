"""Combinations of modalities: names, codes, drawing one."""

import pytest
import torch

from mmrobust.combinations import (
    all_combinations,
    combination_code,
    combination_masks,
    combination_name,
    draw_combinations,
    sample_combinations,
)

N = 40_000


THREE = ("rgb", "depth", "ir")


def test_a_sample_has_the_ends_is_the_same_and_grows() -> None:
    names = [f"m{i}" for i in range(10)]
    combinations = all_combinations(names)
    assert sample_combinations(names, None) == sample_combinations(names, 1023) == combinations
    small, large = sample_combinations(names, 30), sample_combinations(names, 100)
    assert (len(small), len(large)) == (30, 100)
    assert {c for c in combinations if len(c) in (1, 9, 10)} < {*small} < {*large} < {*combinations}
    assert large == [c for c in combinations if c in {*large}]
    # other sizes in proportion
    assert 105 <= sum(len(c) == 5 for c in sample_combinations(names, 521)) <= 146


def test_combinations_and_their_names() -> None:
    found = [combination_name(c) for c in all_combinations(THREE)]
    assert found == ["rgb", "depth", "ir", "rgb+depth", "rgb+ir", "depth+ir", "rgb+depth+ir"]
    codes = combination_code(combination_masks(all_combinations(THREE), THREE))
    assert codes.tolist() == [1, 2, 4, 3, 5, 6, 7]
    assert len(all_combinations("abcdef")) == 63


@pytest.mark.parametrize(
    "present",
    [(1, 1), (0, 1), (1, 1, 1), (1, 0, 1), (0, 1, 0), (1,) * 6, (1, 0, 1, 1, 0, 1), (0, 0, 1, 1, 1, 1)],
)
def test_drawn_combinations_are_uniform_over_what_is_available(present: tuple[int, ...]) -> None:
    available = torch.tensor(present).bool().expand(N, -1)
    drawn = draw_combinations(available, torch.arange(N), 0, "draw", 3)
    assert not (drawn & ~available).any()
    choices = 2 ** sum(present) - 1
    counts = combination_code(drawn).bincount(minlength=2 ** len(present))
    assert counts[0] == 0
    seen = counts[counts > 0].double()
    assert len(seen) == choices
    expected = N / choices
    assert ((seen - expected).abs() < 4.5 * (expected * (1 - 1 / choices)) ** 0.5 + 1e-9).all()


def test_a_draw_depends_on_the_sample_alone() -> None:
    index = torch.arange(100)
    available = draw_combinations(torch.ones(100, 3).bool(), index, 9)  # some of them incomplete
    together = draw_combinations(available, index, 0, "draw", 1)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw_combinations(available[order], index[order], 0, "draw", 1), together[order])
    assert not torch.equal(draw_combinations(available, index, 0, "draw", 2), together)
    assert not torch.equal(draw_combinations(available, index, 1, "draw", 1), together)

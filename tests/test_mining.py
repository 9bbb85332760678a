"""Mining hard combinations: the largest variances, whatever a batch lacks; explicit choices; state."""

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from mmrobust.errors import UserError
from mmrobust.mining import VarianceMining
from mmrobust.missing import all_combinations, combination_masks, combination_name

TWO, THREE = ("audio", "visual"), ("rgb", "depth", "ir")


def mining(modalities: tuple[str, ...] = TWO, **keys: object) -> VarianceMining:
    return VarianceMining(modalities, **({"epochs": 2, "hard": None, "batch_means": False} | keys))  # type: ignore[arg-type]


def observed(modalities: tuple[str, ...], variances: Mapping[str, float]) -> tuple[Tensor, Tensor]:
    """A batch with one sample of each combination that has the given variance: drawn, log_variance (B, 4)."""
    drawn = combination_masks([name.split("+") for name in variances], modalities)
    return drawn, torch.tensor(list(variances.values())).log()[:, None].expand(-1, 4)


def everything(modalities: tuple[str, ...]) -> Tensor:
    return combination_masks(all_combinations(modalities), modalities)


def hard_after(
    miner: VarianceMining, modalities: tuple[str, ...], *batches: Mapping[str, float]
) -> list[str]:
    for batch in batches:
        miner.update(*observed(modalities, batch), epoch=0)
    drawn = everything(modalities)
    found = miner.update(drawn, torch.zeros(len(drawn), 4), epoch=2).tolist()
    names = [combination_name(c) for c, hard in zip(all_combinations(modalities), found, strict=True) if hard]
    assert names == miner.hard_names
    return names


@pytest.mark.parametrize("hardest", TWO)
def test_two_modalities_have_one_hard_combination(hardest: str) -> None:
    variances = {"audio": 1.0, "visual": 1.0, "audio+visual": 9.0} | {hardest: 2.0}
    assert hard_after(mining(), TWO, variances) == [hardest]


def test_three_modalities_have_three_hard_combinations() -> None:
    variances = {
        "rgb": 3,
        "depth": 1,
        "ir": 5,
        "rgb+depth": 2,
        "rgb+ir": 4,
        "depth+ir": 0.5,
        "rgb+depth+ir": 9,
    }
    assert hard_after(mining(THREE), THREE, variances) == ["rgb", "ir", "rgb+ir"]


def test_means_are_over_samples_not_batches() -> None:
    """Visual's variance is 1, 1, 1 and 9, a mean of 3 (of the batches' means: 5); audio's is 4."""
    drawn, log_variance = observed(TWO, {"visual": 1.0})
    miner = mining()
    miner.update(drawn.repeat(3, 1), log_variance.repeat(3, 1), epoch=0)
    assert hard_after(miner, TWO, {"visual": 9.0, "audio": 4.0}) == ["audio"]


def test_a_batch_may_lack_combinations() -> None:
    batches = {"audio": 3.0}, {"audio+visual": 9.0}, {"visual": 1.0}, {"audio": 2.0}
    assert hard_after(mining(), TWO, *batches) == ["audio"]


def test_the_mean_over_a_map_counts() -> None:
    miner = mining()
    log_variance = torch.tensor([[[0.0, 0.0]], [[1.0, -3.0]]])  # (2, 1, 2): means of exp 1 and 1.38
    miner.update(torch.tensor([[True, False], [False, True]]), log_variance, epoch=0)
    assert hard_after(miner, TWO) == ["visual"]


def test_nothing_is_hard_while_mining_nor_mined_afterwards() -> None:
    miner = mining()
    for epoch in (0, 1):
        drawn, log_variance = observed(TWO, {"audio": 2.0, "visual": 1.0})
        assert not miner.update(drawn, log_variance, epoch=epoch).any()
    drawn, log_variance = observed(TWO, {"audio": 1.0, "visual": 100.0})
    assert miner.update(drawn, log_variance, epoch=2).tolist() == [True, False]
    assert miner.update(drawn, log_variance, epoch=3).tolist() == [True, False]


def test_mining_has_no_gradient() -> None:
    drawn, log_variance = observed(TWO, {"audio": 2.0, "visual": 1.0})
    miner = mining()
    miner.update(drawn, log_variance.clone().requires_grad_(), epoch=0)
    assert not miner.total.requires_grad


@pytest.mark.parametrize(
    ("modalities", "hard", "expected"),
    [
        (TWO, ["visual"], ["visual"]),
        (TWO, ["visual+audio", "audio"], ["audio", "audio+visual"]),  # the order does not matter
        (THREE, ["ir", "rgb+depth"], ["ir", "rgb+depth"]),
    ],
)
def test_explicit_combinations_are_hard_from_the_start(
    modalities: tuple[str, ...], hard: list[str], expected: list[str]
) -> None:
    miner = mining(modalities, hard=hard)
    drawn = everything(modalities)
    names = [combination_name(c) for c in all_combinations(modalities)]
    found = miner.update(drawn, torch.randn(len(drawn), 4), epoch=0).tolist()
    assert [name for name, is_hard in zip(names, found, strict=True) if is_hard] == expected
    assert miner.hard_names == expected
    assert not miner.count.any()


# As released


def test_batch_means_averages_batches() -> None:
    drawn, log_variance = observed(TWO, {"visual": 1.0, "audio": 4.0})
    miner = mining(batch_means=True)
    miner.update(drawn[[0, 0, 0, 1]], log_variance[[0, 0, 0, 1]], epoch=0)
    assert hard_after(miner, TWO, {"visual": 9.0, "audio": 4.0}) == ["visual"]  # (1 + 9) / 2 > (4 + 4) / 2


@pytest.mark.parametrize("lacking", TWO)
def test_batch_means_takes_the_second_once_a_batch_lacks_one(lacking: str) -> None:
    whole = {"audio": 5.0, "visual": 1.0}
    spoilt = {m: x for m, x in whole.items() if m != lacking}
    assert hard_after(mining(batch_means=True), TWO, whole, whole) == ["audio"]
    assert hard_after(mining(batch_means=True), TWO, whole, spoilt, whole) == ["visual"]


# State


def test_state_continues_where_it_was_saved() -> None:
    first, second = mining(THREE), mining(THREE)
    variances = {combination_name(c): 1.0 + i for i, c in enumerate(all_combinations(THREE))}
    first.update(*observed(THREE, variances), epoch=0)
    second.load_state_dict(first.state_dict())
    assert second.hard_names == first.hard_names
    more = {"rgb": 100.0}
    assert hard_after(second, THREE, more) == hard_after(first, THREE, more)
    assert "rgb" in first.hard_names


def test_a_combination_that_never_occurs_is_not_hard() -> None:
    assert hard_after(mining(THREE), THREE, {"rgb": 3.0, "rgb+depth": 1.0}) == ["rgb", "rgb+depth"]


@pytest.mark.parametrize(
    ("modalities", "keys", "message"),
    [
        (("audio",), {}, "at least two modalities"),
        (THREE, {"batch_means": True}, "released for two modalities only"),
        (TWO, {"hard": ["audi"]}, "'audi' is none of audio, visual, audio\\+visual"),
    ],
)
def test_errors(modalities: tuple[str, ...], keys: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        mining(modalities, **keys)


def test_extreme_variances_are_ordered() -> None:
    miner = mining()
    log_variance = torch.tensor([[100.0] * 4, [10.0] * 4])  # exp(100) is no float32
    miner.update(torch.tensor([[True, False], [False, True]]), log_variance, epoch=0)
    assert math.isinf(miner.total.max().item())
    assert hard_after(miner, TWO) == ["audio"]

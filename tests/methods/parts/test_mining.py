"""Mining hard combinations: the largest variances, whatever a batch lacks; explicit choices; state."""

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from mmrobust.combinations import all_combinations, combination_masks, combination_name
from mmrobust.errors import UserError
from mmrobust.evaluation.combinations import Results
from mmrobust.methods.parts.mining import HardMining, PredictionMining

TWO, THREE = ("audio", "visual"), ("rgb", "depth", "ir")


def mining(modalities: tuple[str, ...] = TWO, **keys: object) -> HardMining:
    return HardMining(modalities, **({"epochs": 2, "hard": None, "batch_means": False} | keys))  # type: ignore[arg-type]


def observed(modalities: tuple[str, ...], variances: Mapping[str, float]) -> tuple[Tensor, Tensor]:
    """A batch with one sample of each combination that has the given variance: drawn, variances (B,)."""
    drawn = combination_masks([name.split("+") for name in variances], modalities)
    return drawn, torch.tensor(list(variances.values()))


def everything(modalities: tuple[str, ...]) -> Tensor:
    return combination_masks(all_combinations(modalities), modalities)


def hard_after(miner: HardMining, modalities: tuple[str, ...], *batches: Mapping[str, float]) -> list[str]:
    for batch in batches:
        miner.update(*observed(modalities, batch), epoch=0)
    drawn = everything(modalities)
    found = miner.update(drawn, torch.zeros(len(drawn)), epoch=2).tolist()
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
    drawn, variance = observed(TWO, {"visual": 1.0})
    miner = mining()
    miner.update(drawn.repeat(3, 1), variance.repeat(3), epoch=0)
    assert hard_after(miner, TWO, {"visual": 9.0, "audio": 4.0}) == ["audio"]


def test_a_batch_may_lack_combinations() -> None:
    batches = {"audio": 3.0}, {"audio+visual": 9.0}, {"visual": 1.0}, {"audio": 2.0}
    assert hard_after(mining(), TWO, *batches) == ["audio"]


def test_nothing_is_hard_while_mining_nor_mined_afterwards() -> None:
    miner = mining()
    for epoch in (0, 1):
        drawn, variance = observed(TWO, {"audio": 2.0, "visual": 1.0})
        assert not miner.update(drawn, variance, epoch=epoch).any()
    drawn, variance = observed(TWO, {"audio": 1.0, "visual": 100.0})
    assert miner.update(drawn, variance, epoch=2).tolist() == [True, False]
    assert miner.update(drawn, variance, epoch=3).tolist() == [True, False]


def test_mining_has_no_gradient() -> None:
    drawn, variance = observed(TWO, {"audio": 2.0, "visual": 1.0})
    miner = mining()
    miner.update(drawn, variance.clone().requires_grad_(), epoch=0)
    assert not miner.total.requires_grad


@pytest.mark.parametrize(
    ("modalities", "hard", "expected"),
    [
        (TWO, ["visual"], ["visual"]),
        (TWO, ["visual+audio", "audio"], ["audio", "audio+visual"]),  # the order does not matter
        (THREE, ["ir", "rgb+depth"], ["ir", "rgb+depth"]),
    ],
)
def test_explicit_combinations_are_hard_after_the_same_epochs(
    modalities: tuple[str, ...], hard: list[str], expected: list[str]
) -> None:
    miner = mining(modalities, hard=hard)
    drawn = everything(modalities)
    names = [combination_name(c) for c in all_combinations(modalities)]
    for epoch in (0, 1):
        assert not miner.update(drawn, torch.randn(len(drawn)), epoch=epoch).any()
    found = miner.update(drawn, torch.randn(len(drawn)), epoch=2).tolist()
    assert [name for name, is_hard in zip(names, found, strict=True) if is_hard] == expected
    assert miner.hard_names == expected
    assert not miner.count.any()


# As released


def test_batch_means_averages_batches() -> None:
    drawn, variance = observed(TWO, {"visual": 1.0, "audio": 4.0})
    miner = mining(batch_means=True)
    miner.update(drawn[[0, 0, 0, 1]], variance[[0, 0, 0, 1]], epoch=0)
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
    variance = torch.tensor([100.0, 10.0]).exp()  # exp(100) is no float32
    miner.update(torch.tensor([[True, False], [False, True]]), variance, epoch=0)
    assert math.isinf(miner.total.max().item())
    assert hard_after(miner, TWO) == ["audio"]


# MMANet's mining


def prediction_mining(modalities: tuple[str, ...] = TWO, **keys: object) -> PredictionMining:
    defaults = {"first": 1, "epochs": 2, "weak": None, "distance": "histogram", "softmax": False}
    return PredictionMining(modalities, **(defaults | keys))  # type: ignore[arg-type]


def validated(
    modalities: tuple[str, ...],
    shares: Mapping[str, tuple[float, ...]],
    metric: Mapping[str, float] | None = None,
) -> Results:
    """Results whose predicted classes have these shares, those of the full combination where none are given."""
    combinations, confusion = {}, {}
    full = shares[combination_name(modalities)]
    for name in (combination_name(c) for c in all_combinations(modalities)):
        predicted = torch.tensor(shares.get(name, full)) * 1000
        confusion[name] = torch.stack([predicted, 2 * predicted]).long()
        combinations[name] = {"n": 1000, "metrics": {"miou": (metric or {}).get(name)}}
    return Results("miou", combinations, {}, confusion)  # type: ignore[arg-type]


def test_histogram_distance_by_hand() -> None:
    """KL((.9, .1) || (.7, .3)) is 0.116, and 0.018 once both have gone through a softmax."""
    results = validated(TWO, {"audio": (0.9, 0.1), "audio+visual": (0.7, 0.3)})
    for softmax, expected in ((False, 0.1163), (True, 0.0181)):
        miner = prediction_mining(softmax=softmax)
        miner.observe(results, 1)
        assert miner.total.tolist() == pytest.approx([expected, 0], abs=5e-4)
        assert miner.weak_names == ["audio"]


def test_an_empty_class_is_no_infinity() -> None:
    miner = prediction_mining()
    miner.observe(validated(TWO, {"audio": (0.5, 0.5), "visual": (0.0, 1.0), "audio+visual": (1.0, 0.0)}), 1)
    assert miner.total.isfinite().all()
    assert miner.weak_names == ["visual"]


@pytest.mark.parametrize(
    ("strays", "expected"),
    [("rgb+depth", ["rgb", "depth", "rgb+depth"]), ("depth+ir", ["depth", "ir", "depth+ir"])],
)
def test_the_weakest_pair_and_its_parts_are_weak(strays: str, expected: list[str]) -> None:
    miner = prediction_mining(THREE)
    single = {"rgb": (1.0, 0.0)}  # single ones are no candidates
    miner.observe(validated(THREE, {strays: (0.8, 0.2), "rgb+depth+ir": (0.5, 0.5)} | single), 1)
    assert miner.weak_names == expected


def test_distances_add_up_over_the_mining_epochs_alone() -> None:
    miner = prediction_mining()
    audio = validated(TWO, {"audio": (0.9, 0.1), "audio+visual": (0.5, 0.5)})
    visual = validated(TWO, {"visual": (0.8, 0.2), "audio+visual": (0.5, 0.5)})
    names = []
    for epoch, results in enumerate([audio, visual, visual, audio, audio]):
        miner.observe(results, epoch)
        names.append(miner.weak_names)
    assert names == [[], *4 * [["visual"]]]


def test_metric_distance() -> None:
    miner = prediction_mining(distance="metric")
    metric = {"audio": 0.5, "visual": 0.2, "audio+visual": 0.6}
    miner.observe(validated(TWO, {"audio": (0.9, 0.1), "audio+visual": (0.5, 0.5)}, metric), 1)
    assert miner.total.tolist() == pytest.approx([0.01, 0.16])
    assert miner.weak_names == ["visual"]


def test_conditional_distance_where_classes_are_balanced() -> None:
    """Both predict each class as often, but audio errs: KL((.6, .4) || (.9, .1)) = 0.311 in either true class."""
    confusion = {
        "audio": torch.tensor([[60, 40], [40, 60]]),
        "visual": torch.tensor([[90, 10], [10, 90]]),
        "audio+visual": torch.tensor([[90, 10], [10, 90]]),
    }
    results = Results("accuracy", {name: {"n": 200, "metrics": {}} for name in confusion}, {}, confusion)  # type: ignore[arg-type]
    plain, miner = prediction_mining(), prediction_mining(distance="conditional")
    plain.observe(results, 1)
    miner.observe(results, 1)
    assert plain.weak_names == []
    assert miner.total.tolist() == pytest.approx([0.3112, 0], abs=5e-4)
    assert miner.weak_names == ["audio"]


def test_nothing_measured_is_nothing_mined() -> None:
    miner = prediction_mining()
    miner.observe(validated(TWO, {"audio": (0.0, 0.0), "audio+visual": (0.5, 0.5)}), 1)
    miner.observe(validated(TWO, {"audio": (0.9, 0.1), "audio+visual": (0.0, 0.0)}), 2)
    assert miner.weak_names == []


def test_mined_combinations_survive_a_restart() -> None:
    first, second = prediction_mining(), prediction_mining()
    first.observe(validated(TWO, {"audio": (0.9, 0.1), "audio+visual": (0.5, 0.5)}), 1)
    second.load_state_dict(first.state_dict())
    assert second.weak_names == ["audio"]
    visual = validated(TWO, {"visual": (0.8, 0.2), "audio+visual": (0.5, 0.5)})
    for miner in (first, second):
        miner.observe(visual, 2)
    assert torch.equal(first.total, second.total)
    assert second.weak_names == ["audio"]


def test_weak_combinations_may_be_given() -> None:
    miner = prediction_mining(THREE, weak=["depth+rgb", "ir"])
    miner.observe(validated(THREE, {"depth+ir": (0.8, 0.2), "rgb+depth+ir": (0.5, 0.5)}), 1)
    assert miner.weak_names == ["ir", "rgb+depth"]
    with pytest.raises(UserError, match="weak combination 'audi' is none of audio, visual"):
        prediction_mining(weak=["audi"])
    with pytest.raises(UserError, match="at least two modalities"):
        prediction_mining(("audio",))
    with pytest.raises(UserError, match="='kl' is not known; choose histogram, conditional, metric"):
        prediction_mining(distance="kl")

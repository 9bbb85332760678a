"""The synthetic dataset: its best possible accuracies are the truth that other tests rely on."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from mmrobust.combinations import all_combinations, combination_name
from mmrobust.data.kinds import decode_text
from mmrobust.data.noise import Clean
from mmrobust.data.spec import KINDS
from mmrobust.data.split import Key
from mmrobust.data.synthetic import Synthetic, halves
from mmrobust.errors import UserError
from mmrobust.missing import Complete
from mmrobust.tasks.families import ranking_metrics

YAML = Path(__file__).parents[2] / "conf/data/synthetic.yaml"


def make(**keys: Any) -> Synthetic:
    """A small dataset; the keys that are not given are those of the YAML."""
    values = {k: v for k, v in yaml.safe_load(YAML.read_text()).items() if k not in ("defaults", "_target_")}
    values |= {
        "run_seed": 0,
        "noise": {"train": Clean(), "test": Clean(), "seed": 0},
        "corrupt": "error",
        "missing": {"train": Complete(), "test": Complete(), "seed": 0},
    }
    values |= {"num_train": 64, "num_val": 16, "num_test": 16}
    return Synthetic(**{**values, **keys})


def decoded(data: Synthetic, split: str) -> dict[str, np.ndarray]:
    """The group that each modality of each sample shows: that of the nearest pattern."""
    shown = {}
    for channel in data.channels.members:
        patterns = torch.from_numpy(channel.patterns(data.seed)).flatten(2).flatten(0, 1)
        nearest = torch.cdist(data.splits[split].inputs[channel.name].flatten(1), patterns).argmin(1)
        shown[channel.name] = (nearest // channel.variants).numpy()
    return shown


def accuracies(data: Synthetic, split: str) -> dict[str, float]:
    """Of an ideal decoder that picks the most likely class."""
    shown, target, found = decoded(data, split), np.array(data.splits[split].targets), {}
    for combination in all_combinations(data.names):
        counts = [c.num_groups for c in data.channels.members if c.name in combination]
        code = np.ravel_multi_index([shown[m] for m in combination], counts)
        found[combination_name(combination)] = float(
            (data.channels.likelihood(combination).argmax(0)[code] == target).mean()
        )
    return found


@pytest.mark.parametrize("shared", [0, 0.5, 1])
@pytest.mark.parametrize("num_modalities", [2, 3])
def test_bayes_accuracy_is_what_an_ideal_decoder_reaches(num_modalities: int, shared: float) -> None:
    data = make(
        num_modalities=num_modalities,
        kinds="vector",
        clarity=[0.8, 0.6],
        variants=[1, 2],
        shared=shared,
        num_test=30_000,
    )
    data.setup()
    measured = accuracies(data, "test")
    for name, bayes in data.bayes.items():
        assert abs(measured[name] - bayes) < 4 * np.sqrt(bayes * (1 - bayes) / 30_000), name


@pytest.mark.parametrize("task", ["regression", "multilabel"])
@pytest.mark.parametrize("num_classes", [5, 8])
def test_the_best_score_is_what_an_ideal_decoder_reaches(task: str, num_classes: int) -> None:
    """It names the median of what the class may be, or ranks by the probability of each digit."""
    keys = {"num_classes": num_classes, "clarity": [0.8, 0.6], "variants": [1, 2], "num_test": 20_000}
    data = make(task=task, num_modalities=2, kinds="vector", **keys)
    data.setup()
    assert data.spec.num_classes == len(data.spec.classes) == (1 if task == "regression" else 3)
    target, shown = np.array(data.splits["test"].targets), decoded(data, "test")
    for name, best in data.bayes.items():
        counts = [c.num_groups for c in data.channels.members if c.name in name.split("+")]
        code = np.ravel_multi_index([shown[m] for m in name.split("+")], counts)
        posterior = data.channels.likelihood(name.split("+"))[:, code]
        posterior = posterior / posterior.sum(0)  # (C, N)
        if task == "regression":
            median = (posterior.cumsum(0) < 0.5 - 1e-9).sum(0)
            error = np.abs(median - target[:, 0])
            assert abs(error.mean() - best) < 4 * error.std() / np.sqrt(len(error)), name
        else:
            digit = np.arange(num_classes)[:, None] >> np.arange(3) & 1
            found = ranking_metrics((posterior.T @ digit).round(9), target, None)["map"]
            assert found == pytest.approx(best, abs=0.02), name


def test_the_best_absolute_error_by_hand() -> None:
    """Two classes, shown with 0.9: one in ten is off by one. Of three that nothing tells apart, the one between."""
    two = {"task": "regression", "num_modalities": 1, "clarity": 0.8, "variants": 1}
    assert make(**two, num_classes=2, groups=[[0, 1]]).bayes == pytest.approx({"m1": 0.1})
    assert make(**two, num_classes=3, groups=[[0, 0, 0]]).bayes == pytest.approx({"m1": 2 / 3})


def test_likelihood_is_the_frequency_of_what_is_shown() -> None:
    data = make(
        num_modalities=2, num_classes=3, kinds="vector", clarity=[0.7, 0.4], variants=1, num_test=30_000
    )
    data.setup()
    expected = data.channels.likelihood(data.names)
    np.testing.assert_allclose(expected.sum(1), 1)
    shown, target = decoded(data, "test"), np.array(data.splits["test"].targets)
    code = np.ravel_multi_index([shown[m] for m in data.names], [c.num_groups for c in data.channels.members])
    for label, row in enumerate(expected):
        mine = code[target == label]
        frequency = np.bincount(mine, minlength=len(row)) / len(mine)
        assert (np.abs(frequency - row) < 4.5 * np.sqrt(row * (1 - row) / len(mine)) + 1e-9).all()


def test_bayes_accuracy_by_hand() -> None:
    two = {"num_classes": 2, "clarity": 0.8, "variants": 1}
    assert make(**two, num_modalities=1, groups=[[0, 1]]).bayes == pytest.approx({"m1": 0.9})  # 0.8 + 0.2 / 2
    # The classes show themselves with 0.9. Two such witnesses are no better than one (a tie when they differ) ...
    pair = {**two, "num_modalities": 2, "groups": [[0, 1], [0, 1]]}
    assert make(**pair, shared=0).bayes["m1+m2"] == pytest.approx(0.9)
    # ... and when they are disturbed in common they are one witness.
    assert make(**pair, shared=1).bayes["m1+m2"] == pytest.approx(0.9)
    # Three: two of them right is enough, 0.9^3 + 3 × 0.9^2 × 0.1.
    three = {**two, "num_modalities": 3, "groups": [[0, 1]] * 3}
    assert make(**three, shared=0).bayes["m1+m2+m3"] == pytest.approx(0.972)
    assert make(**three, shared=1).bayes["m1+m2+m3"] == pytest.approx(0.9)


@pytest.mark.parametrize("shared", [0, 0.3, 1])
def test_another_modality_never_lowers_the_bayes_accuracy(shared: float) -> None:
    data = make(num_modalities=4, clarity=[0.9, 0.3, 0.6], shared=shared)
    for small, large in combinations(all_combinations(data.names), 2):
        if set(small) < set(large):
            assert data.best(small) <= data.best(large) + 1e-12


def test_a_modality_cannot_tell_merged_classes_apart() -> None:
    groups = [[0, 0, 1, 1, 2, 2, 3, 3], [5, 5, 5, 5, 9, 9, 9, 9]]
    data = make(groups=groups, clarity=1.0)
    assert data.bayes == pytest.approx({"m1": 4 / 8, "m2": 2 / 8, "m1+m2": 4 / 8})
    data.setup()
    shown, target = decoded(data, "train"), np.array(data.splits["train"].targets)
    assert (shown["m1"] == target // 2).all()
    assert (shown["m2"] == target // 4).all()


@pytest.mark.parametrize("num_classes", [3, 4, 5, 8, 11])
@pytest.mark.parametrize("num_modalities", [2, 3, 4, 5, 6])
def test_default_groups_merge_classes_alone_and_none_together(num_modalities: int, num_classes: int) -> None:
    groups = halves(num_modalities, num_classes)
    assert all(len(set(group)) < num_classes for group in groups)
    assert len(set(zip(*groups, strict=True))) == num_classes


def test_the_default_tells_a_story() -> None:
    bayes = make().bayes
    assert bayes["m2"] < bayes["m1"] < 0.7 < 0.9 < bayes["m1+m2"] < 0.95


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, again, other = make(), make(), make(seed=1)
    for data in (first, again, other):
        data.setup()
    for split in ("train", "val", "test"):
        for name, rows in first.splits[split].inputs.items():
            assert torch.equal(rows, again.splits[split].inputs[name])
            assert not torch.equal(rows, other.splits[split].inputs[name])
        assert first.splits[split].targets == again.splits[split].targets != other.splits[split].targets
    assert not torch.equal(first.splits["val"].inputs["m1"], first.splits["test"].inputs["m1"])


def test_more_samples_and_modalities_leave_the_others_as_they_are() -> None:
    groups = halves(3, 8)
    small, large = make(groups=groups[:2]), make(num_modalities=3, num_train=100, groups=groups)
    small.setup()
    large.setup()
    for name, rows in small.splits["train"].inputs.items():
        assert torch.equal(rows, large.splits["train"].inputs[name][:64])


def test_the_fingerprint_covers_what_the_inputs_are_made_of() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"seed": 1},
        {"clarity": 0.7},
        {"variants": 2},
        {"shared": 0.1},
        {"size": 24},
    ]
    changes += [{"kinds": "image"}, {"num_train": 65}, {"groups": [[0, 1, 2, 3] * 2] * 2}]
    prints = []
    for change in changes:
        data = make(**change)
        data.setup()
        prints.append(data.fingerprint)
    assert len(set(prints)) == len(prints)
    again = make(run_seed=7)
    again.setup()
    assert again.fingerprint == prints[0]


@pytest.mark.parametrize("num_modalities", [1, 2, 3, 4, 5, 6, 7])
def test_samples_are_as_declared(num_modalities: int) -> None:
    data = make(num_modalities=num_modalities, kinds=list(KINDS), clarity=0.9, variants=2)
    data.setup()
    assert list(data.spec.modalities) == data.names == [f"m{m + 1}" for m in range(num_modalities)]
    assert [m.kind for m in data.spec.modalities.values()] == [*KINDS, "image"][:num_modalities]
    axes = {"image": 3, "depth": 3, "spectrogram": 3, "sequence": 2, "video": 4, "vector": 1, "text": 1}
    assert all(len(m.shape) == axes[m.kind] for m in data.spec.modalities.values())
    sample = data.splits["train"][Key(0, 3)]
    assert 0 <= sample.target < data.num_classes
    for name, modality in data.spec.modalities.items():
        x = sample.inputs[name]
        assert isinstance(x, torch.Tensor)
        assert x.shape == modality.shape
        assert x.dtype == (torch.int64 if modality.kind == "text" else torch.float32)
        assert x.isfinite().all()
    assert len(data.bayes) == 2**num_modalities - 1
    batch = next(iter(data.train_dataloader()))
    assert batch.available.all()
    assert batch.target.tolist() == [data.splits["train"].targets[i] for i in batch.index.tolist()]


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.noisy])
def test_patterns_are_orthogonal_and_as_large_as_each_other(kind: str) -> None:
    (channel,) = make(num_modalities=1, kinds=kind, variants=3, size=8).channels.members
    patterns = channel.patterns(seed=0).reshape(channel.num_groups * 3, -1)
    np.testing.assert_allclose(patterns @ patterns.T / patterns.shape[1], np.eye(len(patterns)), atol=1e-5)


def test_sentences_have_no_word_in_common() -> None:
    (channel,) = make(num_modalities=1, kinds="text", variants=3, size=8).channels.members
    patterns = channel.patterns(seed=0).reshape(-1, 32)
    words = [decode_text(torch.from_numpy(row)).split() for row in patterns]
    assert {len(row) for row in words} == {6}
    assert len({word for row in words for word in row}) == 6 * len(patterns)


def test_all_errors_come_at_once() -> None:
    wrong = make(
        kinds=["image", "smell"],
        clarity=[0.5, 1.3],
        shared=-1,
        groups=[[0, 1]],
        size=4,
        num_val=0,
        variants=0,
    )
    with pytest.raises(UserError) as error:
        wrong.setup()
    for part in (
        "size=4, expected at least 8",
        "num_val=0, expected at least 1",
        "shared=-1, expected a share in [0, 1]",
        "groups has length 1, expected 2 lists",
        "groups of m1 has length 2, expected 8 classes",
        "variants of m1=0, expected 1 to",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"kinds": "smell"},
            "kinds has 'smell', expected image, depth, spectrogram, sequence, video, vector, text",
        ),
        ({"clarity": [0.5, 1.3]}, r"clarity has 1.3, expected probabilities in \[0, 1\]"),
        ({"variants": [1, 99]}, "variants of m2=99, expected 1 to 22; larger sizes allow more"),
        ({"groups": [0, 1]}, "groups of m1 has length 1, expected 8 classes"),
        ({"clarity": []}, "kinds, clarity or variants is an empty list"),
        ({"num_modalities": 0}, "num_modalities=0, expected at least 1"),
        ({"size": 7}, "size=7, expected at least 8"),
        (
            {"task": "scene"},
            "task=scene, expected classification or segmentation or regression or multilabel",
        ),
        ({"num_modalities": -2}, "num_modalities=-2, expected at least 1"),
    ],
)
def test_an_error_says_what_was_found_and_expected(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**change).setup()
    with pytest.raises(UserError, match=message):
        make(**change).best([])


def test_bayes_accuracy_refuses_what_it_cannot_do() -> None:
    with pytest.raises(UserError, match="no modality is called 'audio', only m1, m2"):
        make().best(["audio"])
    huge = make(num_modalities=9, num_classes=16, variants=1)
    with pytest.raises(UserError, match=r"16 classes × 9 × 9 .*limit"):
        huge.best(huge.names)

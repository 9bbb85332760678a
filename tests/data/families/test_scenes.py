"""Rendered scenes: what each modality shows and hides is exact, so that claims about methods can rest on it."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.data.base import DataModule
from mmrobust.data.families import scenes
from mmrobust.data.families.scenes import VOID, RenderedScenes, Scenes
from mmrobust.data.files.images import normalised
from mmrobust.data.split import Key
from mmrobust.errors import UserError
from mmrobust.testing import check_dataset
from tests.data.test_synthetic import make

NAMES = ("rgb", "depth", "infrared")


def scenes_of(num_modalities: int = 3, num_classes: int = 8, seed: int = 0) -> Scenes:
    return Scenes(NAMES[:num_modalities], num_classes, 32, seed)


def render(**keys: Any) -> RenderedScenes:
    return scenes_of(**keys).generate("train", 24)


@pytest.mark.parametrize("num_modalities", [1, 2, 3])
def test_the_command_line_gives_a_dataset(num_modalities: int) -> None:
    keys = [
        "data=synthetic",
        "data.task=segmentation",
        f"data.num_modalities={num_modalities}",
        "data.num_classes=7",
    ]
    small = ["data.num_train=32", "data.num_val=4", "data.num_test=4", "data.batch_size=4"]
    data: DataModule = construct(compose_config([*keys, *small]).data)
    check_dataset(data)
    assert list(data.spec.modalities) == list(NAMES[:num_modalities])
    assert [m.kind for m in data.spec.modalities.values()] == ["image", "depth", "image"][:num_modalities]
    assert [m.shape for m in data.spec.modalities.values()] == [(3, 48, 48), (1, 48, 48), (1, 48, 48)][
        :num_modalities
    ]
    assert (data.spec.task, data.spec.ignore_index, len(data.spec.classes)) == ("segmentation", 255, 7)
    batch = next(iter(data.train_dataloader()))
    assert batch.target.shape == (4, 48, 48)


def test_classes_are_dealt_out_to_the_modalities() -> None:
    assert scenes_of(2).classes == ("wall", "red", "bump", "green", "dent", "blue", "step", "violet")
    assert scenes_of(2).separated == {"rgb": [1, 3, 5, 7], "depth": [2, 4, 6]}
    assert scenes_of(3).separated == {"rgb": [1, 4, 7], "depth": [2, 5], "infrared": [3, 6]}


@pytest.mark.parametrize(
    ("changed", "looks"),
    [
        ("rgb", {"COLOURS": dict.fromkeys(scenes.COLOURS, (0.5, 0.5, 0.5))}),
        ("depth", {"RELIEFS": dict.fromkeys(scenes.RELIEFS, scenes.RELIEFS["flat"])}),
        ("infrared", {"TEMPERATURES": dict.fromkeys(scenes.TEMPERATURES, 30.0)}),
    ],
)
def test_a_look_is_seen_in_its_modality_alone(changed: str, looks: dict[str, Any]) -> None:
    """Without the differences of a modality's looks, everything else is the same to the bit."""
    before = render()
    with patch.multiple(scenes, **looks):
        after = render()
    np.testing.assert_array_equal(after.label, before.label)
    for m in NAMES:
        assert np.array_equal(after.raw[m], before.raw[m]) == (m != changed)


def test_the_common_look_is_that_of_all_classes_of_the_other_modalities() -> None:
    """The mean pixel in each modality, over many scenes, class by class."""
    found, dataset = scenes_of(), scenes_of().generate("train", 1500)
    for m, own in found.separated.items():
        values = dataset.raw[m].reshape(*dataset.label.shape, -1).astype(float)
        means = {c: values[dataset.label == c].mean(0) for c in range(1, 8)}
        common = np.mean([mean for c, mean in means.items() if c not in own], 0)
        distance = {c: np.abs(mean - common).max() / values.std() for c, mean in means.items()}
        assert all(distance[c] < 0.12 for c in means if c not in own), m
        if m != "depth":  # where the mean is that of the places
            assert all(distance[c] > 0.4 for c in own), m


def test_reliefs_differ_by_more_than_the_noise() -> None:
    u, v = np.random.default_rng(0).uniform(-1, 1, (2, 400))
    shapes = [relief(u, v) - relief(u, v).mean() for relief in scenes.RELIEFS.values()]
    for i, a in enumerate(shapes):
        assert all(np.std(a - b) > 3 * 0.02 for b in shapes[:i])


def test_labels_are_void_on_outlines_alone() -> None:
    label = render().label
    assert label.dtype == np.uint8
    assert set(np.unique(label)) == {*range(8), VOID}
    inner, void = label[:, :-1, :-1], label[:, :-1, :-1] == VOID
    right, below = label[:, :-1, 1:], label[:, 1:, :-1]
    edge = (inner != right) | (inner != below)
    assert not (edge & ~void & (right != VOID) & (below != VOID)).any()  # none crosses without void between
    assert 0.02 < (label == VOID).mean() < 0.2


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, again, other, test = (
        render(),
        render(),
        render(seed=1),
        scenes_of().generate("test", 24),
    )
    for m in NAMES:
        assert first.raw[m].tobytes() == again.raw[m].tobytes()
        assert first.raw[m].tobytes() not in (other.raw[m].tobytes(), test.raw[m].tobytes())
    assert np.array_equal(first.label, again.label)


def test_more_scenes_leave_the_others_as_they_are() -> None:
    small, large = render(), scenes_of().generate("train", 150)  # more than are rendered at a time
    for m in NAMES:
        np.testing.assert_array_equal(small.raw[m], large.raw[m][:24])
    np.testing.assert_array_equal(small.label, large.label[:24])


def test_a_sample_is_what_was_rendered_normalised() -> None:
    split = render()
    sample = split[Key(0, 3)]
    assert torch.equal(sample.inputs["rgb"], normalised(split.raw["rgb"][3]))  # type: ignore[arg-type]
    metres = 3.0 + 0.7 * sample.inputs["depth"].numpy()[0]  # type: ignore[union-attr]
    np.testing.assert_allclose(metres, split.raw["depth"][3], atol=1e-5)
    assert 1 < metres.min() < metres.max() < 5
    np.testing.assert_array_equal(sample.target, split.label[3])


def test_the_fingerprint_covers_the_scenes() -> None:
    prints = set()
    for change in (
        {},
        {"seed": 1},
        {"size": 12},
        {"num_classes": 7},
        {"num_train": 65},
        {"num_modalities": 3},
    ):
        data = make(task="segmentation", **change)  # type: ignore[arg-type]
        data.setup()
        prints.add(data.fingerprint)
    assert len(prints) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_modalities": 4}, "num_modalities=4, expected at most 3 with task=segmentation"),
        ({"num_classes": 14}, "num_classes=14, expected at most 13 for scenes of 2 modalities"),
        ({"num_classes": 1, "size": 4}, "num_classes=1, expected at least 2; size=4, expected at least 8"),
    ],
)
def test_an_error_says_what_was_found_and_expected(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(task="segmentation", **change).setup()


def test_scenes_have_no_bayes_accuracy() -> None:
    with pytest.raises(UserError, match="not known with task=segmentation"):
        make(task="segmentation").best(["rgb"])

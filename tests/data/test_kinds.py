"""Kinds: what stands where nothing is, made-up samples, text as code points, noise that leaves text alone."""

from __future__ import annotations

import pytest
import torch

from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.data.base import DataModule
from mmrobust.data.kinds import KINDS, Kind, decode_text, encode_text
from mmrobust.data.spec import Modality
from mmrobust.data.split import Key
from mmrobust.reporting.cells import DRAWINGS
from mmrobust.testing import check_dataset


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_a_kind_is_whole(kind: Kind) -> None:
    assert kind.drawing in DRAWINGS
    assert len(kind.example) == kind.axes
    blank = Modality(kind.name, kind.example).blank(3)
    assert blank.shape == (3, *kind.example)
    assert not blank.any()
    made_up = kind.made_up(3, kind.example, torch.Generator().manual_seed(0))
    assert made_up.shape == blank.shape
    assert made_up.dtype == blank.dtype == kind.dtype


@pytest.mark.parametrize("text", ["", "It was fun.", "Größe 😀", "a" * 99])
def test_text_goes_there_and_back(text: str) -> None:
    points = encode_text(text, 20)
    assert points.shape == (20,)
    assert points.dtype == torch.int64
    assert decode_text(points) == text[:20]


def synthetic(*overrides: str) -> DataModule:
    keys = ["data=synthetic", "data.num_train=12", "data.num_val=4", "data.num_test=6", "data.batch_size=4"]
    data: DataModule = construct(compose_config(["data.kinds=[text,vector]", *keys, *overrides]).data)
    return data


@pytest.mark.parametrize("noise", ["none", "udml_v1", "udml_v2"])
def test_noise_never_touches_text(noise: str) -> None:
    clean, noisy = (
        synthetic(),
        synthetic(f"noise={noise}", *([] if noise == "none" else ["noise.train.start=0"])),
    )
    check_dataset(noisy)
    clean.setup()
    changed = []
    for index in range(12):
        a, b = (data.splits["train"][Key(0, index)] for data in (clean, noisy))
        assert torch.equal(a.inputs["m1"], b.inputs["m1"])
        assert (b.noise_level or {"m1": 0})["m1"] == 0
        changed.append(not torch.equal(a.inputs["m2"], b.inputs["m2"]))
    assert any(changed) == (noise != "none")

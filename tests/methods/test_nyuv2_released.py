"""The published recipes on NYUv2: steps of the released networks on real frames, smaller than published."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from mmrobust.evaluation.results import read_results
from mmrobust.methods.base import Method
from mmrobust.methods.dmrnet import DMRNet
from mmrobust.methods.mmanet import MMANet
from mmrobust.methods.osmd import OSMD
from mmrobust.methods.parts.translated_trunk import TranslatedTrunk
from mmrobust.models.decoder import Decoder
from mmrobust.models.trunks import ESANet
from mmrobust.run import main
from mmrobust.training.session import open_trained

DATA = Path(os.environ.get("MMROBUST_DATA", "data"))
SMALL = ["encoder.pretrained=false", "data.image_size=[96,128]", "data.batch_size=2", "data.workers=0"]
SHORT = [
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "trainer.log_every_n_steps=1",
]


def check_decoder(decoder: nn.Module) -> None:
    """ESANet's: 512, 256 and 128 channels, three blocks each, outputs at 1/32, 1/16, 1/8 and, enlarged twice, in full."""
    assert isinstance(decoder, Decoder)
    assert [side.in_channels for side in decoder.side] == [512, 256, 128]  # type: ignore[union-attr]
    assert [len(level) - 1 for level in decoder.levels] == [3, 3, 3]  # type: ignore[arg-type]
    assert len(decoder.enlarge) == 2


def check_esanet(method: Method) -> None:
    """Two ResNet-50s, the depth stem of one channel, gates at five levels, 512 channels of context."""
    assert isinstance(method.fusion, ESANet)
    assert [gate.gates[0].in_features for gate in method.fusion.own_gates] == [64, 256, 512, 1024, 2048]  # type: ignore[index, union-attr]
    assert [len(e.stages) for e in method.encoders.values()] == [1, 5]  # type: ignore[arg-type]
    stem = next(m for m in method.encoders["depth"].modules() if isinstance(m, nn.Conv2d))
    assert stem.weight.shape == (64, 1, 7, 7)
    assert (method.fusion.width, method.fusion.context.bins) == (512, (1, 5))
    check_decoder(method.head)


def check_mmanet(method: Method) -> None:
    """The regularisation network shares all but its decoder."""
    assert isinstance(method, MMANet)
    check_esanet(method)
    assert method.regularizer is None
    check_decoder(method.regularizer_head)


def check_dmrnet(method: Method) -> None:
    """Gaussians behind the context module, place by place; the hard combinations have a decoder of their own."""
    assert isinstance(method, DMRNet)
    check_esanet(method)
    for head in (method.mean, method.log_variance):
        assert head.linear.weight.shape == (512, 512)
        assert head.linear.bias is not None
        assert isinstance(head.norm, nn.BatchNorm2d)
    assert method.auxiliary_head is not method.head
    check_decoder(method.auxiliary_head)
    assert method.mining.hard_names == ["rgb", "depth"]


def check_osmd(method: Method) -> None:
    """Translation at five levels of ResNet-34, depth restored from colours by an encoder of its own, three decoders."""
    assert isinstance(method, OSMD)
    trunk, joint = method.fusion, method.joint_adaptation
    assert isinstance(trunk, TranslatedTrunk)
    assert [b.merge.out_channels for b in trunk.blocks] == [64, 64, 128, 256, 512]  # type: ignore[union-attr]
    assert [[slot.out_channels for slot in b.slots] for b in trunk.blocks] == [  # type: ignore[union-attr]
        [w // 2] * 2 for w in (64, 64, 128, 256, 512)
    ]
    chain: Any = joint.hallucinations["rgb"].chains["depth"]  # type: ignore[union-attr, index]
    assert next(m for m in chain.modules() if isinstance(m, nn.Conv2d)).in_channels == 3
    assert len(chain.stages) == 5
    for decoder in (method.head, joint.restored_heads["depth"], joint.branch_heads["depth"]):
        check_decoder(decoder)
    assert method.restored_weight == 0


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(
    not (DATA / "nyuv2/train.txt").is_file(), reason=f"{DATA}/nyuv2 is absent; set MMROBUST_DATA"
)
@pytest.mark.parametrize(
    ("recipe", "sooner", "check", "terms", "combinations"),
    [
        (
            "mmanet_nyuv2",
            ["method.distillation_from=0", "method.warm_up=0", "method.weak=[rgb,depth]"],
            check_mmanet,
            {"task", "distillation", "regularization"},
            3,
        ),
        (
            "dmrnet_nyuv2",
            ["method.mining_epochs=0"],
            check_dmrnet,
            {"task", "kl", "hard"},
            3,
        ),
        ("osmd_nyuv2", [], check_osmd, {"task", "translation", "branch", "adaptation"}, 1),
    ],
    ids=["mmanet", "dmrnet", "osmd"],
)
def test_a_recipe_takes_steps(
    recipe: str, sooner: list[str], check: Any, terms: set[str], combinations: int, tmp_path: Path
) -> None:
    """What begins after some epochs begins at once: all terms act, and all combinations that the method serves are
    tested."""
    folders = [f"paths.data={DATA}", f"paths.outputs={tmp_path}", f"paths.run={tmp_path / 'run'}"]
    assert main([f"experiment={recipe}", *SMALL, *SHORT, *folders, *sooner]) == 0
    with (tmp_path / "run/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for term in terms:
        assert any(float(row.get(f"train/loss/{term}") or 0) > 0 for row in rows), term
    tested = read_results(tmp_path / "run")["combinations"].values()
    assert sum(found is not None for found in tested) == combinations
    check(open_trained(tmp_path / "run").method)

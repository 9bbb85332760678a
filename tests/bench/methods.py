"""What a training step of a method costs over what its networks alone would."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from mmrobust.batch import Batch
from mmrobust.config.compose import compose_config
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.methods.base import Method, tensors
from mmrobust.testing import make_batch
from mmrobust.training.session import build_method

METHODS = ("dmrnet", "mmanet", "osmd", "udml")
SIZES = {
    "cpu": {"pixels": 64, "batch": 16, "rounds": 11},
    "cuda": {"pixels": 112, "batch": 128, "rounds": 15},
}
Networks = list[tuple[nn.Module, str, bool]]  # a network, the modality that it reads, whether it learns
Timed = Callable[[Callable[[], Any], str], float]


def step_seconds(
    name: str, device: str, quick: bool, timed: Timed
) -> tuple[list[float], list[float], dict[str, Any]]:
    """Seconds of steps, and of the forward and backward passes of the networks that the method's description asks
    for: one encoder for each modality, and those in `extra`. The optimizer is on neither side."""
    sizes = SIZES[device]
    config = compose_config([f"method={name}", "encoder=resnet18", "fusion=concat"])
    names = ("m1", "m2")
    shape = (3, sizes["pixels"], sizes["pixels"])
    spec = DataSpec("classification", 8, 1024, {m: Modality("image", shape) for m in names})
    with tempfile.TemporaryDirectory() as folder:
        method = prepared(config, spec, Path(folder)).to(device).train()
        batch = make_batch(spec, sizes["batch"]).to(device)
        extra = extra_networks(method, batch)
    networks: Networks = [(method.encoders[m], m, True) for m in names]

    def step() -> None:
        method.zero_grad()
        torch.stack(list(method.losses(batch).values())).sum().backward()

    def alone() -> None:
        method.zero_grad()
        for network, modality, learns in networks + extra:
            with torch.set_grad_enabled(learns):
                features = network(batch.inputs[modality])
            if learns:
                torch.stack([x.sum() for x in tensors(features)]).sum().backward()

    ours, theirs = [], []
    for turn in range(1 + (1 if quick else sizes["rounds"])):
        for side in (0, 1) if turn % 2 else (1, 0):
            (ours, theirs)[side].append(timed((step, alone)[side], device))
    conditions = {
        **sizes,
        "method": name,
        "modalities": len(names),
        "extra": f"{sum(learns for *_, learns in extra)} trained, {sum(not learns for *_, learns in extra)} frozen",
    }
    return ours[1:], theirs[1:], conditions


def prepared(config: DictConfig, spec: DataSpec, folder: Path) -> Method:
    """The method past its warm-up; its teacher, where it has one, is loaded and has random weights."""
    if config.method.get("teacher"):
        teacher = compose_config([f"method={config.method.teacher.method}", "encoder=resnet18"])
        checkpoint: dict[str, Any] = {}
        trained = build_method(teacher, spec)
        trained.on_save_checkpoint(checkpoint)
        (folder / "checkpoints").mkdir()
        torch.save(checkpoint | {"state_dict": trained.state_dict()}, folder / "checkpoints/best.ckpt")
        OmegaConf.save(teacher, folder / "config.yaml", resolve=True)
        config.method.teacher.run = str(folder)
    method = build_method(config, spec)
    type(method).current_epoch = 10**6  # type: ignore[assignment,method-assign]
    return method


def extra_networks(method: Method, batch: Batch) -> Networks:
    """What the description asks for beside one encoder for each modality."""
    teacher = getattr(method, "teacher", None)
    if teacher:
        teacher(batch)  # loads it
        return [(network, m, False) for m, network in teacher._method.encoders.items()]
    if hasattr(method, "joint_adaptation"):  # from each source, one for each target
        return [(network, m, True) for m, network in method.joint_adaptation.hallucinations.items()]
    return []

"""The published recipe of DMRNet on CREMA-D: its first steps against a plain loop, and that it learns at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models import resnet34

from mmrobust import keyed
from mmrobust.config.compose import compose_config
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.evaluation.results import read_results
from mmrobust.run import main
from mmrobust.testing import make_batch
from mmrobust.training.session import build_method
from tests.data.digit_clips import make_digit_clips

STEPS = 3


class Released(nn.Module):
    """The released network, written out: two ResNet-34 without heads, masks, means over places, one Gaussian."""

    def __init__(self) -> None:
        super().__init__()
        self.audio, self.visual = resnet34(), resnet34()
        self.audio.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        self.audio.fc = self.visual.fc = nn.Identity()  # what is left ends with the mean over places
        self.mean, self.log_variance = (
            nn.Sequential(nn.Linear(1024, 1024), nn.BatchNorm1d(1024)) for _ in range(2)
        )
        self.head = nn.Linear(1024, 6)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.audio(audio) * mask[:, :1], self.visual(visual) * mask[:, 1:]
        fused = torch.cat(features, dim=1)
        mean, log_variance = self.mean(fused), self.log_variance(fused)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.head(z), mean, log_variance


def as_released(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names of the weights as those of `Released`."""
    names = {
        "encoders.audio.network.": "audio.",
        "encoders.visual.encoder.network.": "visual.",
        "mean.linear.": "mean.0.",
        "mean.norm.": "mean.1.",
        "log_variance.linear.": "log_variance.0.",
        "log_variance.norm.": "log_variance.1.",
        "head.": "head.",
    }
    return {
        theirs + key.removeprefix(ours): value.clone()
        for key, value in weights.items()
        for ours, theirs in names.items()
        if key.startswith(ours)
    }


class Recorded(Callback):
    """The losses and gradients of every step."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []
        self.gradients: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(
        self, trainer: Trainer, method: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.losses.append({name: float(term) for name, term in method.last_terms.items()})
        found = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
        self.gradients.append(as_released(found))


def test_first_steps_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    """Same weights, same batches, same masks and noise: the same losses, gradients and weights after each step."""
    modalities = {"audio": Modality("spectrogram", (1, 65, 40)), "visual": Modality("video", (3, 1, 32, 32))}
    spec = DataSpec("classification", 6, 24, modalities, tuple("abcdef"))
    config = compose_config(["experiment=dmrnet_cremad", "method.mining_epochs=0", "method.hard=[audio]"])
    method = build_method(config, spec)
    plain = Released()
    plain.load_state_dict(as_released(method.state_dict()))
    batches = [make_batch(spec, size=8, seed=i) for i in range(STEPS)]
    masks = [method.draw(batch).float() for batch in batches]

    recorded = Recorded()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[recorded],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(method, DataLoader(batches, batch_size=None))

    optimizer = torch.optim.SGD(plain.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    for step, (batch, mask) in enumerate(zip(batches, masks, strict=True)):
        torch.manual_seed(keyed.seed_of(config.seed, "step", 0, step))
        logits, mean, log_variance = plain(batch.inputs["audio"], batch.inputs["visual"][:, :, 0], mask)
        cross_entropy = F.cross_entropy(logits, batch.target)
        kl = 0.5 * (log_variance.exp() + mean**2 - log_variance - 1).sum(1).mean()
        hard = (mask[:, 0] * (1 - mask[:, 1])).sum()
        losses = {"task": cross_entropy, "kl": 1e-3 * kl, "hard": 0.2 * hard * cross_entropy}
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        expected = {name: loss.item() for name, loss in losses.items()}
        assert recorded.losses[step] == pytest.approx(expected, rel=1e-4)
        gradients = {name: p.grad for name, p in plain.named_parameters()}
        assert recorded.gradients[step].keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(
                recorded.gradients[step][name],
                gradient,
                rtol=1e-3,
                atol=1e-4,
                msg=lambda m, n=name: f"{n}: {m}",
            )
        optimizer.step()
    torch.testing.assert_close(as_released(method.state_dict()), plain.state_dict(), rtol=1e-4, atol=1e-5)


# The recipe at a size that one core trains in a minute: fewer pixels and layers, twice the learning rate.
SMALL = [
    "encoder=resnet18",
    "optimizer.lr=2e-3",
    "trainer.max_epochs=30",
    "trainer.accelerator=cpu",
    "data.image_size=48",
    "data.n_fft=256",
    "data.hop=2048",
    "data.batch_size=32",
    "data.validation=0",
    "data.workers=0",
    "selection=last",
    "threads=1",
    "keep=none",
]


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("init", "learns"), [("kaiming", True), ("default", False)])
def test_the_recipe_leaves_chance_behind(
    init: str, learns: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On 300 clips; chance is 1/6. With the released initial weights it learns, with each network's own it does not."""
    source = make_digit_clips(tmp_path / "cremad")
    paths = [f"paths.data={tmp_path}", f"paths.run={tmp_path / 'run'}"]
    assert main(["experiment=dmrnet_cremad", f"init={init}", *SMALL, *paths]) == 0
    capsys.readouterr()
    combinations = read_results(tmp_path / "run")["combinations"]
    accuracy = {name: row["metrics"]["accuracy"] for name, row in combinations.items()}
    mean = sum(accuracy.values()) / len(accuracy)
    assert (mean > 0.3) == learns, f"{source} clips: {accuracy}"

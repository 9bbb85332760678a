"""Speed as ratios, which hardly depend on the machine: `make bench`, or `python -m tests.bench --only NAME`.

Every line that is printed is a JSON object: name, value, unit, against (what the value is a ratio to) and
conditions, with the goal and the spread. Both sides take turns in one process, so that what else the machine
does hits them alike. On the CPU one thread; with a CUDA device the same lines again, ending in `_cuda`.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader

from mmrobust.batch import Batch
from mmrobust.checkpoints import build_method
from mmrobust.config import compose_config
from mmrobust.data.base import DataSpec, Modality
from mmrobust.evaluation.combinations import CombinationScores
from mmrobust.methods.base import Method
from mmrobust.missing import all_combinations
from mmrobust.testing import make_batch
from mmrobust.training import build_trainer


@dataclass(frozen=True)
class Sizes:
    """How much is measured on a kind of device."""

    batch: int  # of the evaluation
    batches: int  # of one validation pass
    passes: dict[int, int]  # M -> rounds of one pass of each side
    train_batch: int
    train_pixels: int
    train_steps: int  # of a round; a multiple of every logging interval
    train_turn: int  # steps before the other side's turn; on CUDA several, for steps overlap
    train_rounds: int


SIZES = {
    "cpu": Sizes(32, 1, {2: 15, 3: 11, 6: 9}, 4, 64, 10, 1, 20),
    "cuda": Sizes(128, 20, {2: 15, 3: 15, 6: 15}, 128, 112, 50, 10, 15),
}
PIXELS = 112
GOALS = {2: 1.05, 3: 1.10, 6: 1.25}


def evaluation(modalities: int, device: str, method_name: str, quick: bool) -> dict[str, Any]:
    """Validation of all combinations against validation of the full one, metrics included."""
    sizes = SIZES[device]
    config = compose_config([f"method={method_name}", "encoder=resnet18", "fusion=concat"])
    method, batches = make(config, modalities, device, PIXELS, sizes.batch, sizes.batches)
    method.eval()

    def validate(served: Sequence[Sequence[str]]) -> Callable[[], None]:
        scores = CombinationScores(method.task, method.modalities, served)

        def one_pass() -> None:
            with torch.inference_mode(), autocast(device):
                for batch in batches:
                    scores.update(method, batch)
                scores.finish()

        return one_pass

    every = all_combinations(method.modalities)
    sides = validate(every), validate(every[-1:])
    ours, theirs = [], []
    for turn in range(1 + (1 if quick else sizes.passes[modalities])):
        for which in (0, 1) if turn % 2 else (1, 0):
            seconds = timed(sides[which], device)
            if turn:  # the first warms up
                (ours, theirs)[which].append(seconds)
    return line(
        f"eval_combinations_ratio_m{modalities}",
        device,
        (ours, theirs),
        against="the same validation pass serving the full combination alone",
        goal=GOALS[modalities],
        method=method_name,
        encoder="resnet18",
        fusion="concat, pooled features",
        modalities=modalities,
        combinations=len(every),
        pixels=PIXELS,
        batch=sizes.batch,
        batches_a_pass=sizes.batches,
    )


def training(device: str, quick: bool) -> dict[str, Any]:
    """Steps of DMRNet by Lightning's Trainer, as `run` builds it, against a plain PyTorch loop."""
    sizes = SIZES[device]
    rounds = 1 if quick else sizes.train_rounds
    steps = (rounds + 1) * sizes.train_steps + 1  # a round to warm up; the last step closes the last round
    with tempfile.TemporaryDirectory() as folder:
        config = compose_config(
            ["method=dmrnet", "encoder=resnet18", "trainer.limit_val_batches=0", "trainer.max_epochs=1"]
            + [f"trainer={'gpu' if device == 'cuda' else 'cpu'}", f"paths.run={folder}", "logger=csv"]
        )
        method, batches = make(config, 2, device, sizes.train_pixels, sizes.train_batch, 4, on_device=False)
        plain, _ = make(config, 2, device, sizes.train_pixels, sizes.train_batch, 0)
        check_same_work(method, plain, batches[0].to(device))
        turns = TakingTurns(plain_steps(plain, batches, config, device), sizes.train_turn, device)
        with redirect_stdout(Terminal()), redirect_stderr(Terminal()):  # a progress bar, which nobody sees
            trainer = build_trainer(config, Path(folder), method)
            trainer.callbacks.append(turns)
            trainer.fit(
                method, DataLoader([batches[i % len(batches)] for i in range(steps)], batch_size=None)
            )  # type: ignore[arg-type]
    return line(
        "train_overhead_ratio",
        device,
        turns.rounds(sizes.train_steps // sizes.train_turn),
        against="a hand-written PyTorch loop: same model, losses, batches and optimizer, nothing logged",
        goal=1.05,
        method="dmrnet",
        encoder="resnet18",
        fusion="concat, pooled features",
        optimizer="adamw",
        modalities=2,
        pixels=sizes.train_pixels,
        batch=sizes.train_batch,
        steps_a_round=sizes.train_steps,
        step_ms=round(1e3 * min(turns.theirs[1:]) / sizes.train_steps, 1),
        ours_has="CSV logger, progress bar, checkpoint callback, losses logged by step and epoch",
    )


class TakingTurns(Callback):
    """Stops the Trainer after each turn of a few steps, and lets the plain loop take as many."""

    def __init__(self, plain_step: Callable[[], None], turn: int, device: str) -> None:
        self.plain_step, self.turn, self.device = plain_step, turn, device
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self.since: float | None = None

    def on_train_batch_start(
        self, trainer: Trainer, method: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if batch_idx % self.turn:
            return
        now = clock(self.device)
        if self.since is not None:
            self.ours.append(now - self.since)
        self.theirs.append(timed(lambda: [self.plain_step() for _ in range(self.turn)], self.device))
        self.since = clock(self.device)

    def rounds(self, turns: int) -> tuple[list[float], list[float]]:
        """Seconds of each side in rounds of so many turns, without the first round, which warms up."""
        count = len(self.ours) // turns * turns
        ours, theirs = (
            [sum(seconds[i : i + turns]) for i in range(turns, count, turns)]
            for seconds in (self.ours, self.theirs)
        )
        return ours, theirs


def plain_steps(net: Any, batches: Sequence[Batch], config: DictConfig, device: str) -> Callable[[], None]:
    """One step of training as one would write it by hand; of ours it uses the networks alone."""
    data = [(dict(batch.inputs), batch.target) for batch in batches]
    settings = {key: value for key, value in config.optimizer.items() if not str(key).startswith("_")}
    optimizer = torch.optim.AdamW(net.parameters(), **settings)
    mined = {name: torch.zeros(2 ** len(net.encoders), device=device) for name in ("total", "count")}
    done = 0

    def step() -> None:
        nonlocal done
        inputs, target = data[done % len(data)]
        inputs = {name: x.to(device, non_blocking=True) for name, x in inputs.items()}
        target = target.to(device, non_blocking=True)
        code = torch.randint(1, 2 ** len(inputs), (len(target), 1), device=device)
        mask = (code >> torch.arange(len(inputs), device=device)) & 1 == 1
        optimizer.zero_grad()
        with autocast(device):
            loss = plain_loss(net, inputs, target, mask, mined)
        loss.backward()
        optimizer.step()
        done += 1

    net.train()
    return step


def plain_loss(
    net: Any, inputs: dict[str, Tensor], target: Tensor, mask: Tensor, mined: dict[str, Tensor]
) -> Tensor:
    """DMRNet's loss in its first epochs: predicts from a sample, observes variances, regularises nothing yet."""
    features = [net.encoders[name](x).flatten(2).mean(2) for name, x in inputs.items()]
    fused = torch.cat([torch.where(mask[:, i, None], x, 0) for i, x in enumerate(features)], 1)
    mean, log_variance = net.mean(fused), net.log_variance(fused).clamp(-10, 10)
    z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
    losses = F.cross_entropy(net.head(z), target, reduction="none")
    kl = 0.5 * (log_variance.exp() + mean**2 - log_variance - 1).sum(1).mean()
    code = (mask * 2 ** torch.arange(len(inputs), device=mask.device)).sum(1)
    mined["total"].index_add_(0, code, log_variance.detach().float().exp().mean(1))
    mined["count"].index_add_(0, code, torch.ones_like(code, dtype=torch.float32))
    hard = torch.zeros_like(losses)
    return losses.mean() + 1e-3 * kl + (hard * losses).mean()


def check_same_work(method: Method, plain: Any, batch: Batch) -> None:
    """Both sides, with the same weights and random numbers, give the same loss."""
    mined = {
        name: torch.zeros(2 ** len(batch.inputs), device=batch.target.device) for name in ("total", "count")
    }
    with torch.no_grad():
        torch.manual_seed(0)
        ours = torch.stack(list(method.train().losses(batch).values())).sum()
        torch.manual_seed(0)
        theirs = plain_loss(plain.train(), batch.inputs, batch.target, method.draw(batch), mined)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def make(
    config: DictConfig,
    modalities: int,
    device: str,
    pixels: int,
    size: int,
    count: int,
    on_device: bool = True,
) -> tuple[Method, list[Batch]]:
    """A method with the seed's weights, and batches of random images in memory; on CUDA channels come last."""
    names = [f"m{i + 1}" for i in range(modalities)]
    spec = DataSpec("classification", 8, 1, {name: Modality("image", (3, pixels, pixels)) for name in names})
    method = build_method(config, spec).to(device)
    batches = [make_batch(spec, size, seed=i) for i in range(count)]
    if device == "cuda":
        method = method.to(memory_format=torch.channels_last)
        for batch in batches:
            batch.inputs = {
                m: x.contiguous(memory_format=torch.channels_last) for m, x in batch.inputs.items()
            }
        batches = [batch.to(device) if on_device else batch.pin_memory() for batch in batches]
    return method, batches


class Terminal(io.TextIOBase):
    """A terminal that nobody looks at."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


def autocast(device: str) -> Any:
    return torch.autocast("cuda", torch.bfloat16) if device == "cuda" else nullcontext()


def clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(work: Callable[[], Any], device: str) -> float:
    started = clock(device)
    work()
    return clock(device) - started


def line(
    name: str, device: str, seconds: tuple[list[float], list[float]], *, against: str, **conditions: Any
) -> dict[str, Any]:
    ours, theirs = seconds
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    est = {
        "min": min(ours) / min(theirs),
        "med": statistics.median(ours) / statistics.median(theirs),
        "medratio": statistics.median(ratios),
    }
    machine = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, 1 thread"
    return {
        "name": name + ("_cuda" if device == "cuda" else ""),
        "value": est,
        "r": ratios,
        "unit": "ratio",
        "against": against,
        "conditions": conditions
        | {
            "rounds": len(ratios),
            "device": machine,
            "precision": "bf16" if device == "cuda" else "float32",
            "torch": torch.__version__,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME", help="run just this line")
    parser.add_argument("--quick", action="store_true", help="one round of everything: does it run?")
    parser.add_argument("--method", default="dmrnet", help="evaluated method (default: dmrnet)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        jobs = {
            f"eval_combinations_ratio_m{m}": lambda m=m: evaluation(m, device, options.method, options.quick)
            for m in GOALS
        }
        jobs["train_overhead_ratio"] = lambda: training(device, options.quick)
        for name, job in jobs.items():
            if options.only in (None, name):
                print(json.dumps(job()), flush=True)


if __name__ == "__main__":
    main()

"""Speed as ratios, which hardly depend on the machine: `make bench`, or `python -m tests.bench --only NAME`.

Every line that is printed is a JSON object: name, value, unit, against (what it is a ratio to), conditions. Both
sides take turns in one process, so that what else the machine does hits them alike; the value is the median over
rounds of their ratio, `spread` its quartiles. On the CPU one thread computes; with a CUDA device the same lines
come again, ending in `_cuda`.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import json
import logging
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from mmrobust.batch import Batch
from mmrobust.combinations import all_combinations
from mmrobust.config.compose import compose_config
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.evaluation.combinations import CombinationScores
from mmrobust.methods.base import Method
from mmrobust.testing import make_batch
from mmrobust.training.session import build_method
from mmrobust.training.trainer import build_trainer
from tests.bench import segmentation
from tests.bench.methods import METHODS, step_seconds
from tests.bench.plain import autocast, plain_loss, plain_steps
from tests.bench.predict import predict_rows_per_second_ratio
from tests.bench.run import cli_error_seconds, peak_memory_ratio, resume_overhead_ratio
from tests.bench.sweep import sweep_memory_growth, sweep_overhead

MODEL = {"encoder": "resnet18", "fusion": "concat, pooled features", "data": "in memory"}
GOALS = {2: 1.05, 3: 1.10, 6: 1.25}  # modalities -> all combinations over the full one
EVALUATION = {  # of one pass; `rounds` by number of modalities
    "cpu": {"pixels": 112, "batch": 32, "batches": 1, "rounds": {2: 15, 3: 11, 6: 9}},
    "cuda": {"pixels": 112, "batch": 128, "batches": 20, "rounds": {2: 15, 3: 15, 6: 15}},
}
TRAINING = {  # `turn`: steps until it is the other side's turn; several on CUDA, where steps overlap
    "cpu": {"pixels": 48, "batch": 4, "steps": 10, "turn": 1, "rounds": 25},
    "cuda": {"pixels": 112, "batch": 128, "steps": 50, "turn": 10, "rounds": 15},
}


def evaluation(modalities: int, device: str, method_name: str, quick: bool) -> dict[str, Any]:
    """Validation of all combinations against validation of the full one, metrics included."""
    sizes: dict[str, Any] = EVALUATION[device]
    config = compose_config([f"method={method_name}", "encoder=resnet18", "fusion=concat"])
    method, batches = make(config, modalities, device, sizes["pixels"], sizes["batch"], sizes["batches"])
    conditions = {"goal": GOALS[modalities], "method": method_name, "modalities": modalities} | sizes
    rounds = sizes["rounds"][modalities]
    return combinations(
        f"eval_combinations_ratio_m{modalities}", device, method, batches, rounds, quick, conditions
    )


def layout(name: str, device: str, quick: bool) -> dict[str, Any]:
    """The same for segmentation, and for fusions that begin inside the encoders."""
    sizes, chosen = segmentation.EVALUATION[device], segmentation.LAYOUTS[name]
    config = compose_config(["method=dropout", "encoder=resnet18", f"fusion={chosen['fusion']}"])
    method, batches = make(
        config, chosen["modalities"], device, sizes["pixels"], sizes["batch"], sizes["batches"],
        task=chosen["task"],
    )  # fmt: skip
    conditions = {**chosen, "method": "dropout", "classes": method.task.num_classes, **sizes}
    if chosen["task"] == "segmentation":
        conditions["decoder"] = OmegaConf.to_container(config.encoder.decoder, resolve=True)
    name = f"eval_combinations_ratio_{name}"
    return combinations(name, device, method, batches, sizes["rounds"], quick, conditions)


def combinations(
    name: str,
    device: str,
    method: Method,
    batches: list[Batch],
    rounds: int,
    quick: bool,
    conditions: dict[str, Any],
) -> dict[str, Any]:
    method.eval()
    every = all_combinations(method.modalities)
    scores = [CombinationScores(method.task, method.modalities, served) for served in (every, every[-1:])]

    def validate(which: int) -> None:
        with torch.inference_mode(), autocast(device):
            for batch in batches:
                scores[which].update(method, batch)
            scores[which].finish()

    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(1 + (1 if quick else rounds)):
        for which in (0, 1) if turn % 2 else (1, 0):
            seconds[which].append(timed(lambda which=which: validate(which), device))  # type: ignore[misc]
    return line(
        name,
        device,
        (seconds[0][1:], seconds[1][1:]),  # the first of each warms up
        against="the same validation pass serving the full combination alone",
        conditions=conditions | {"combinations": len(every), "rounds": rounds},
    )


def training(device: str, quick: bool, task: str = "classification") -> dict[str, Any]:
    """Steps of DMRNet, in segmentation of modality dropout, by Lightning's Trainer, as `run` builds it, against a
    plain PyTorch loop."""
    maps = task == "segmentation"
    sizes: dict[str, Any] = (segmentation.TRAINING if maps else TRAINING)[device]
    name, encoder, fusion, by_hand = (
        ("dropout", "tiny", "pyramid", segmentation.plain_loss)
        if maps
        else ("dmrnet", "resnet18", "concat", plain_loss)
    )
    steps = (1 + (1 if quick else sizes["rounds"])) * sizes["steps"]  # a round to warm up
    with tempfile.TemporaryDirectory() as folder:
        choices = [
            f"method={name}",
            f"encoder={encoder}",
            f"fusion={fusion}",
            "optimizer=adamw",
            "logger=csv",
        ]
        choices += [f"trainer={'gpu' if device == 'cuda' else 'cpu'}", "trainer.limit_val_batches=0"]
        config = compose_config([*choices, "trainer.max_epochs=1", f"paths.run={folder}"])
        method, batches = make(config, 2, device, sizes["pixels"], sizes["batch"], 4, pinned=True, task=task)
        plain, _ = make(config, 2, device, sizes["pixels"], sizes["batch"], 0, task=task)
        check_same_work(method, plain, batches[0].to(device), by_hand)
        keys = {key: value for key, value in config.optimizer.items() if not str(key).startswith("_")}
        turns = TakingTurns(plain_steps(plain, batches, keys, device, by_hand), sizes["turn"], device)
        loader = DataLoader([batches[i % len(batches)] for i in range(steps + 1)], batch_size=None)  # type: ignore[arg-type,var-annotated]
        with redirect_stdout(Terminal()), redirect_stderr(Terminal()):
            trainer = build_trainer(config, Path(folder), method)
            trainer.callbacks.append(turns)  # type: ignore[attr-defined]
            trainer.fit(method, loader)
    each = sizes["steps"] // sizes["turn"]
    ours, theirs = (
        [sum(seconds[i : i + each]) for i in range(each, steps // sizes["turn"], each)]
        for seconds in (turns.ours, turns.theirs)
    )
    return line(
        "segmentation_train_overhead_ratio" if maps else "train_overhead_ratio",
        device,
        (ours, theirs),
        against="a hand-written PyTorch loop: same model, losses, batches and optimizer, nothing logged",
        conditions={
            "goal": 1.05,
            "step_ms": round(1e3 * statistics.median(theirs) / sizes["steps"], 1),
            "method": name,
            "encoder": encoder,
            "fusion": fusion,
            "optimizer": "adamw",
            "modalities": 2,
            **sizes,
            "ours_has": "CSV logger, progress bar, run's callbacks, losses logged by step and epoch",
        },
    )


def method_step(name: str, device: str, quick: bool) -> dict[str, Any]:
    """A method's step against its networks alone."""
    ours, theirs, conditions = step_seconds(name, device, quick, timed)
    return line(
        f"train_step_ratio_{name}",
        device,
        (ours, theirs),
        against="forward and backward passes of the encoders and of the extra networks that the method has",
        conditions=conditions,
    )


class TakingTurns(Callback):
    """Stops the Trainer after each turn of a few steps, and lets the plain loop take as many."""

    def __init__(self, plain_step: Callable[[], None], turn: int, device: str) -> None:
        self.plain_step, self.turn, self.device = plain_step, turn, device
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self.since = 0.0

    def on_train_batch_start(
        self, trainer: Trainer, method: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % self.turn == 0:
            now = clock(self.device)
            if batch_idx:
                self.ours.append(now - self.since)
            self.theirs.append(timed(lambda: [self.plain_step() for _ in range(self.turn)], self.device))
            self.since = clock(self.device)


def check_same_work(method: Method, plain: Any, batch: Batch, by_hand: Callable[..., torch.Tensor]) -> None:
    """Raises: AssertionError: with the same weights and random numbers, the two sides' losses differ."""
    mined = torch.zeros(2, 2 ** len(batch.inputs), device=batch.target.device)
    with torch.no_grad():
        torch.manual_seed(0)
        ours = torch.stack(list(method.train().losses(batch).values())).sum()
        torch.manual_seed(0)
        theirs = by_hand(plain.train(), batch.inputs, batch.target, method.draw(batch), mined)
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)


def make(
    config: DictConfig,
    modalities: int,
    device: str,
    pixels: int,
    size: int,
    count: int,
    pinned: bool = False,
    task: str = "classification",
) -> tuple[Method, list[Batch]]:
    """A method with the seed's weights, and batches of random images; on CUDA channels last, and either on the
    device or in pinned memory."""
    names = [f"m{i + 1}" for i in range(modalities)]
    classes = segmentation.CLASSES if task == "segmentation" else 8
    spec = DataSpec(task, classes, 1, {name: Modality("image", (3, pixels, pixels)) for name in names})
    method = build_method(config, spec)
    batches = [make_batch(spec, size, seed=i) for i in range(count)]
    if device == "cuda":
        method = method.to(device).to(memory_format=torch.channels_last)
        for batch in batches:
            batch.inputs = {m: x.to(memory_format=torch.channels_last) for m, x in batch.inputs.items()}
        batches = [batch.pin_memory() if pinned else batch.to(device) for batch in batches]
    return method, batches


class Terminal(io.TextIOBase):
    """A terminal that nobody looks at: the progress bar is drawn as in a real one."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


def clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(work: Callable[[], Any], device: str) -> float:
    started = clock(device)
    work()
    return clock(device) - started


def keep_memory() -> None:
    """Have malloc keep what is freed. Else luck with the heap's layout decides whether the gradients' memory goes
    back to the system, to return page by page in the next step: up to 40 % of a step, on either side."""
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_threshold = -1, -3
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_threshold, 2**25)


def line(
    name: str, device: str, seconds: Sequence[Sequence[float]], *, against: str, conditions: dict[str, Any]
) -> dict[str, Any]:
    ratios = [ours / theirs for ours, theirs in zip(*seconds, strict=True)]
    low, middle, high = statistics.quantiles(ratios) if len(ratios) > 1 else ratios * 3
    places: dict[str, dict[str, Any]] = {
        "cpu": {"device": platform.machine(), "threads": 1, "precision": "float32", "malloc": "keeps memory"},
        "cuda": {"device": "", "precision": "bfloat16 autocast", "memory_format": "channels last"},
    }
    if device == "cuda":
        places["cuda"]["device"] = torch.cuda.get_device_name()
    measured: dict[str, Any] = {
        "rounds": len(ratios),
        "spread": [round(low, 4), round(high, 4)],
        "seconds_a_round": [round(statistics.median(side), 4) for side in seconds],
    }
    return {
        "name": name + ("_cuda" if device == "cuda" else ""),
        "value": round(middle, 4),
        "unit": "ratio",
        "against": against,
        "conditions": MODEL | conditions | measured | places[device] | {"torch": torch.__version__},
    }


def main() -> None:
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    kinds = [(f"eval_combinations_ratio_m{m}", m) for m in GOALS] + [("train_overhead_ratio", 0)]
    known = {
        name + ("_cuda" if device == "cuda" else ""): (device, m) for device in devices for name, m in kinds
    }
    whole = {
        "cli_error_seconds": cli_error_seconds,
        "resume_overhead_ratio": resume_overhead_ratio,
        "predict_rows_per_second_ratio": predict_rows_per_second_ratio,
        "peak_memory_ratio": lambda rounds: peak_memory_ratio(),
        "sweep_overhead_seconds_per_run": lambda rounds: sweep_overhead(rounds == 1),
        "sweep_memory_growth_mib_per_100_runs": lambda rounds: sweep_memory_growth(rounds == 1),
    }
    steps = {
        f"train_step_ratio_{method}" + ("_cuda" if device == "cuda" else ""): (method, device)
        for device in devices
        for method in METHODS
    }
    more: dict[str, Callable[..., dict[str, Any]]] = {}
    for device in devices:
        ending = "_cuda" if device == "cuda" else ""
        for chosen in segmentation.LAYOUTS:
            more[f"eval_combinations_ratio_{chosen}{ending}"] = partial(layout, chosen, device)
        more[f"segmentation_train_overhead_ratio{ending}"] = partial(training, device, task="segmentation")
    names = [*known, *more, *steps, *whole]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Speed, as ratios.")
    parser.add_argument("--only", metavar="NAME", choices=names, help=f"one of: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="one round of everything: does it run?")
    parser.add_argument(
        "--method", default="dmrnet", help="what is evaluated (dmrnet); what is trained is dmrnet"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in [options.only] if options.only else names:
        device, modalities = known.get(name, ("cpu", 0))
        if name in steps:
            result = method_step(*steps[name], options.quick)
        elif name in more:
            result = more[name](quick=options.quick)
        elif name in whole:
            result = whole[name](1 if options.quick else 5)
        elif modalities:
            result = evaluation(modalities, device, options.method, options.quick)
        else:
            result = training(device, options.quick)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

"""`python -m mmrobust.evaluate run=<folder>`: a trained run under another missing or noise protocol; or check it.

    run=<folder>          the run (needed)
    split=test            test | val
    checkpoint=best       best | last
    missing=... missing.test.rate=...   another protocol for the test; default: the run's own
    noise/pattern@noise.test=gaussian noise.test.level=10 noise.seed=...   other noise in the test
    data.root=... data.manifest=... data.batch_size=... data.workers=... trainer.accelerator=... trainer.precision=...
    verify=true           recompute every number from predictions.npz instead, and say whether they agree

The result goes to <folder>/evaluations/<hash>/.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf

from mmrobust.config import compose as configuration
from mmrobust.config.check import check_command_line
from mmrobust.config.overrides import with_quotes
from mmrobust.errors import UserError, guarded
from mmrobust.evaluation.results import (
    is_complete,
    plot_combinations,
    read_predictions,
    read_results,
    write_predictions,
    write_results,
)
from mmrobust.training.retention import require_checkpoint

OWN = {"run": None, "split": "test", "checkpoint": "best", "verify": "false"}
TAKEN_OVER = (
    "data.root",
    "data.manifest",
    "data.batch_size",
    "data.workers",
    "trainer.accelerator",
    "trainer.precision",
    "threads",
)

# Keys on which the modalities' names hang.
SAY_MODALITIES = ("task", "num_modalities", "manifest", "columns")

TEST_NOISE = ("noise/pattern@noise.test", "noise.test.*", "noise.seed")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return guarded(lambda: _main(list(sys.argv[1:] if argv is None else argv)))


def _main(argv: list[str]) -> int:
    if not argv or {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    options, changes = parse(argv)
    folder = Path(options["run"])
    if options["verify"] == "true":
        return verify(folder)
    config = changed(configuration.load_run_config(folder), changes)
    require_checkpoint(folder, options["checkpoint"])
    evaluate(folder, config, split=options["split"], checkpoint=options["checkpoint"])
    return 0


def parse(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Our own options, and the overrides of the run's configuration.

    Raises:
        UserError: an unknown key or value, or no run.
    """
    options, changes, problems = dict(OWN), [], []
    for text in argv:
        key, equals, value = text.partition("=")
        if not equals:
            problems.append(f"{text!r} is not key=value")
        elif key in options:
            options[key] = value
        elif key.split(".")[0].split("/")[0] == "missing" or key in TAKEN_OVER or _is_test_noise(key):
            changes.append(text)
        else:
            problems.append(
                f"{key} cannot be changed for an evaluation; possible are "
                f"{', '.join([*OWN, 'missing', 'missing.*', *TEST_NOISE, *TAKEN_OVER])}"
            )
    if options["run"] is None:
        problems.append("name the run: run=<folder>")
    allowed = {"split": ("test", "val"), "checkpoint": ("best", "last"), "verify": ("true", "false")}
    problems += [
        f"{key}={options[key]} is not known; choose {' or '.join(values)}"
        for key, values in allowed.items()
        if options[key] not in values
    ]
    if problems:
        raise UserError("; ".join(problems))
    return options, changes


def _is_test_noise(key: str) -> bool:
    return any(fnmatch(key, pattern) for pattern in TEST_NOISE)


def changed(config: DictConfig, changes: Sequence[str]) -> DictConfig:
    """The run's configuration with a new missing protocol, new test noise and the keys of TAKEN_OVER."""
    group = [text for text in changes if text.startswith(("missing", "noise"))]
    others = [text for text in changes if text not in group]
    config = cast(DictConfig, OmegaConf.merge(config, OmegaConf.from_dotlist(others)))
    if group:
        data = [f"data={config.choices.data}"]
        named = {key: config.data[key] for key in SAY_MODALITIES if key in config.data}
        lists = {k: f"[{','.join(v)}]" for k, v in named.items() if isinstance(v, ListConfig)}
        data += with_quotes([f"data.{key}={value}" for key, value in (named | lists).items()])
        check_command_line([*data, *group], None, multirun=False)
        new: Any = OmegaConf.to_container(configuration.compose_config([*data, *group]), resolve=True)
        if any(text.startswith("missing") for text in group):
            config.missing.test = config.data.missing.test = new["missing"]["test"]
        if any(text.startswith(("missing=", "missing.seed")) for text in group):
            config.missing.seed = config.data.missing.seed = new["missing"]["seed"]
        if any(text.startswith(("noise.test", "noise/")) for text in group):
            config.noise.test = config.data.noise.test = new["noise"]["test"]
        if any(text.startswith("noise.seed") for text in group):
            config.noise.seed = config.data.noise.seed = new["noise"]["seed"]
    return config


def evaluate(folder: Path, config: DictConfig, *, split: str, checkpoint: str) -> dict[str, Any]:
    """Evaluate a checkpoint of a run; returns what the new `results.json` holds.

    Raises:
        UserError: the data is not what the run was made with.
    """
    from lightning import Trainer

    from mmrobust.evaluation.description import describe
    from mmrobust.reporting.panel import save_panel
    from mmrobust.training import train
    from mmrobust.training.checkpoints import build_method, checkpoint_path, load_weights

    train.start_process(folder, config)
    data = configuration.construct(config.data)
    data.setup()
    if split not in data.splits:
        raise UserError(f"this dataset has no split {split!r}, only {', '.join(data.splits)}")
    before = read_results(folder) if is_complete(folder) else None
    if before and before["protocol"]["data_fingerprint"] != data.fingerprint:
        raise UserError(
            f"the data in {config.data.get('root')} is not what {folder} was made with (fingerprint "
            f"{data.fingerprint}, expected {before['protocol']['data_fingerprint']})"
        )
    method = build_method(config, data.spec)
    load_weights(method, checkpoint_path(folder, checkpoint))
    trainer = Trainer(
        accelerator=config.trainer.accelerator,
        devices=1,
        precision=config.trainer.precision,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    trainer.test(method, data.loader(split), verbose=False)
    results = describe(config, data, method.results, split)
    results["identity"]["checkpoint"] = checkpoint
    out = folder / "evaluations" / f"{split}-{checkpoint}-{_protocol_hash(results['protocol'])}"
    out.mkdir(parents=True, exist_ok=True)
    if method.results.predictions is not None:
        write_predictions(out, method.results.predictions)
    title = f"{results['identity']['method']} on {results['identity']['data']}, {split} split, {checkpoint} checkpoint"
    plot_combinations(results, out / "combinations.png", title)
    save_panel(method, data, results, out / "panel.png", title, split)
    write_results(out, results)
    train.show(results, title, {"result": out / "results.json"})
    return results


def evaluate_rates(folder: Path, rates: Sequence[float]) -> None:
    """Evaluate a complete run's tested checkpoint with this share of the test's modalities missing, at random; rates
    that were evaluated before are left out. `report --curves` shows them."""
    before = [read_results(path.parent) for path in folder.glob("evaluations/*/results.json")]
    protocols = [
        r["protocol"]["missing"]["test"]["protocol"] for r in before if r["protocol"]["split"] == "test"
    ]
    done = {protocol["rate"] for protocol in protocols if protocol["name"] == "mcar"}
    for rate in rates:
        if rate not in done:
            require_checkpoint(folder)
            mcar = ["missing/pattern@missing.test=mcar", f"missing.test.rate={rate}"]
            config = changed(configuration.load_run_config(folder), mcar)
            evaluate(folder, config, split="test", checkpoint="best")


def _protocol_hash(protocol: Mapping[str, Any]) -> str:
    """Eight letters for the test masks, eight more for noise in the test."""
    noise = protocol["noise"]["test"]["protocol"]
    digest = hashlib.sha256(json.dumps(noise, sort_keys=True).encode()).hexdigest()
    masks = protocol["missing"]["test"]["hash"][:8]
    return masks if noise["name"] == "clean" else f"{masks}-{digest[:8]}"


def verify(folder: Path) -> int:
    """Recompute every number of a result from its predictions; 0 if all agree, else 1."""
    from mmrobust.data.base import DataSpec, Modality
    from mmrobust.evaluation.combinations import from_predictions
    from mmrobust.tasks import TASKS

    stored = read_results(folder)
    if stored["status"] != "complete":
        raise UserError(f"{folder} has no result to verify: it is {stored['status']}")
    task_name, classes = stored["identity"]["task"], stored["protocol"]["classes"]
    modalities = {
        m: Modality("image", (1, 1, 1)) for m in stored["protocol"]["modalities"]
    }  # sizes do not matter
    metrics, primary = tuple(stored["protocol"].get("metrics", ())), stored["primary"]["metric"]
    task = TASKS[task_name](DataSpec(task_name, classes, 0, modalities, metrics=metrics, primary=primary))
    again = from_predictions(read_predictions(folder / "predictions.npz"), task)
    theirs = _flat({"combinations": stored["combinations"], "aggregates": stored["aggregates"]})
    ours = _flat({"combinations": again.combinations, "aggregates": again.aggregates})
    wrong = {k: (theirs.get(k), ours.get(k)) for k in theirs | ours if not _same(theirs.get(k), ours.get(k))}
    for key, (a, b) in wrong.items():
        print(f"{key}: stored {a}, recomputed {b}")
    print(f"{folder}: {len(theirs) - len(wrong)} of {len(theirs)} numbers agree with predictions.npz")
    return 1 if wrong else 0


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping):
        return {prefix: node}
    return {k: v for key, child in node.items() for k, v in _flat(child, f"{prefix}/{key}").items()}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 1e-6
    return bool(a == b)


if __name__ == "__main__":
    sys.exit(main())

"""A trained run under another missing or noise protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from mmrobust.config.check import check_command_line
from mmrobust.config.compose import compose_config
from mmrobust.config.confined import confined
from mmrobust.config.identity import load_run_config
from mmrobust.config.overrides import parse, with_quotes
from mmrobust.config.rules import with_checked
from mmrobust.data.table.csv_file import content_hash
from mmrobust.errors import UserError
from mmrobust.evaluation.results import is_complete, read_results
from mmrobust.files import short_hash
from mmrobust.reporting.run_table import in_one_line, measured_under, show
from mmrobust.training.retention import require_checkpoint
from mmrobust.training.terminal import job, say_of_job

if TYPE_CHECKING:
    from mmrobust.data.base import DataModule

# Keys on which the modalities' names hang.
SAY_MODALITIES = ("task", "num_modalities", "manifest", "columns")


def changed(config: DictConfig, changes: Sequence[str]) -> DictConfig:
    """The run's configuration with a new missing protocol, new test noise and the keys that an evaluation may change."""
    group = [text for text in changes if text.startswith(("missing", "noise"))]
    others = [text for text in changes if text not in group]
    own = config.data.get("manifest")
    config = with_checked(config, others)
    if (
        own is not None
        and config.data.manifest != own
        and content_hash(config.data.manifest) != config.data.content
    ):
        config.data.content = None  # another table, with another folder of its own
        if not any(text.startswith("data.root=") for text in others):
            config.data.root = None
    if group:
        data = [f"data={config.choices.data}"]
        named = {key: config.data[key] for key in SAY_MODALITIES if key in config.data}
        lists = {k: f"[{','.join(v)}]" for k, v in named.items() if isinstance(v, ListConfig)}
        data += with_quotes([f"data.{key}={value}" for key, value in (named | lists).items()])
        for text in group:
            if "=" in text and _lists_several(text):
                raise UserError(
                    f"{text!r} lists several values, and an evaluation is of one protocol; run the command once for each, "
                    "or train with test_rates=[0.1,0.2,...], which evaluates them all"
                )
        check_command_line([*data, *group], None, multirun=False)
        new: Any = OmegaConf.to_container(compose_config([*data, *group]), resolve=True)
        if any(text.startswith("missing") for text in group):
            config.missing.test = config.data.missing.test = new["missing"]["test"]
        if any(text.startswith(("missing=", "missing.seed")) for text in group):
            config.missing.seed = config.data.missing.seed = new["missing"]["seed"]
        if any(text.startswith(("noise.test", "noise/")) for text in group):
            config.noise.test = config.data.noise.test = new["noise"]["test"]
        if any(text.startswith("noise.seed") for text in group):
            config.noise.seed = config.data.noise.seed = new["noise"]["seed"]
    return config


def _lists_several(text: str) -> bool:
    try:
        return parse(text).is_sweep_override()
    except HydraException:  # told where the rest is checked
        return False


def evaluate(folder: Path, config: DictConfig, *, split: str, checkpoint: str) -> dict[str, Any]:
    """Evaluate a checkpoint of a run; returns what the new `results.json` holds.

    Raises:
        UserError: the data is not what the run was made with.
    """
    from mmrobust.evaluation.description import describe
    from mmrobust.training.checkpoints import checkpoint_path, load_checkpoint, read_spec
    from mmrobust.training.outputs import write_outputs
    from mmrobust.training.session import begin, open_data, trained_method
    from mmrobust.training.trainer import evaluation_trainer

    begin(folder, config)
    path, external = checkpoint_path(folder, checkpoint), is_external(config)
    data = open_data(config, read_spec(load_checkpoint(path), path) if external else None)
    refuse_other_data(None if external else folder, config, data, split)
    method = trained_method(config, data.spec, path)
    evaluation_trainer(config, folder).test(method, data.loader(split), verbose=False)
    results = describe(config, data, method.results, split)
    results["identity"]["checkpoint"] = checkpoint
    name = f"{split}-{checkpoint}-{_protocol_hash(results['protocol'])}"
    if sample := results["protocol"].get("sample"):
        name = f"{name}-{sample['combinations']}"
    if external:
        results["protocol"]["manifest"] = str(config.data.manifest)
        name = f"external-{data.fingerprint[:8]}-{name}"
    out = folder / "evaluations" / name
    out.mkdir(parents=True, exist_ok=True)
    title = f"{results['identity']['method']} on {results['identity']['data']}, {split} split, {checkpoint} checkpoint"
    words = measured_under(results["protocol"])
    if external:
        title += f", {Path(config.data.manifest).name}"
    if words:
        title += f", {words}"
    paths = write_outputs(
        out, method, data, results, split=split, title=title, panel_title=title, keep_masks=config.keep_masks
    )
    if job() is None:
        show(results, title, paths)
    else:
        say_of_job(f"  {words or 'nothing missing'}: {in_one_line(results)}")
    return results


def is_external(config: DictConfig) -> bool:
    """Whether `changed` put another table in the place of the one that the run was made with."""
    return "content" in config.data and config.data.content is None


def refuse_other_data(folder: Path | None, config: DictConfig, data: DataModule, split: str) -> None:
    """Raises: UserError: there is no such split, or the samples are not those of the result of the run in `folder`."""
    if split not in data.splits:
        raise UserError(f"this dataset has no split {split!r}, only {', '.join(data.splits)}")
    before = read_results(folder) if folder is not None and is_complete(folder) else None
    if before and before["protocol"]["data_fingerprint"] != data.fingerprint:
        raise UserError(
            f"the data in {config.data.get('root')} is not what {folder} was made with (fingerprint "
            f"{data.fingerprint}, expected {before['protocol']['data_fingerprint']})"
        )


def evaluate_rates(folder: Path, rates: Sequence[float]) -> None:
    """Evaluate a complete run's tested checkpoint with this share of the test's modalities missing, at random; rates
    that were evaluated before are left out. `report --curves` shows them."""
    before = [read_results(path.parent) for path in folder.glob("evaluations/test-*/results.json")]
    protocols = [
        r["protocol"]["missing"]["test"]["protocol"] for r in before if r["protocol"]["split"] == "test"
    ]
    done = {protocol["rate"] for protocol in protocols if protocol["name"] == "mcar"}
    for rate in rates:
        if rate not in done:
            require_checkpoint(folder)
            mcar = ["missing/pattern@missing.test=mcar", f"missing.test.rate={rate}"]
            config = confined(changed(load_run_config(folder), mcar), folder, trains=False)
            evaluate(folder, config, split="test", checkpoint="best")


def _protocol_hash(protocol: Mapping[str, Any]) -> str:
    """Eight letters for the test masks, eight more for noise in the test."""
    noise = protocol["noise"]["test"]["protocol"]
    masks = protocol["missing"]["test"]["hash"][:8]
    return masks if noise["name"] == "clean" else f"{masks}-{short_hash(noise, 8)}"

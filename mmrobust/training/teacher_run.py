"""The teacher of a run: an ordinary run, made first, shared by a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmrobust.config.build import check_classes, class_of
from mmrobust.config.compose import compose_config
from mmrobust.config.identity import config_hash, load_run_config, save_run_config
from mmrobust.config.keys import encoder_entries
from mmrobust.errors import UserError
from mmrobust.evaluation.results import is_complete, read_results
from mmrobust.files import write_text
from mmrobust.tasks.metric import PRIMARY
from mmrobust.training.locks import locked
from mmrobust.training.processes import start
from mmrobust.training.retention import require_checkpoint, retain


def prepare_teacher(config: DictConfig, config_dir: str | None = None) -> Path:
    """The folder of the teacher's complete run, which is made first if need be.

    Args:
        config: the student's composed configuration. `method.teacher.run` names a run to take;
            otherwise `method.teacher.method` is trained with the student's data, encoders and schedule in a
            process of its own, once for every configuration: others wait for it.
        config_dir: the user's folder of further configurations.
    """
    given = config.method.teacher.run
    if given is not None:
        if not is_complete(Path(given)):
            raise UserError(f"method.teacher.run={given} is not the folder of a complete run")
        check_classes(load_run_config(given))
        require_checkpoint(Path(given))
        _check_modalities(Path(given), config)
        return Path(given)
    if (task := config.data.get("task")) in PRIMARY:  # before a teacher is trained in vain
        # the registry imports torch
        from mmrobust.tasks.registry import require_task

        require_task(class_of(config.method._target_, "method._target_"), task)
    teacher = teacher_config(config, config_dir)
    folder, name = Path(teacher.paths.run), teacher.choices.method
    with locked(folder / ".lock", waiting=f"{folder}, the teacher, is being trained; waiting for it"):
        if not is_complete(folder):
            print(f"training the teacher ({name}) in {folder}", flush=True)
            write_text(folder / "overrides.txt", f"method={name}\n")
            save_run_config(teacher, folder)
            start(folder, teacher, apart=True)
            retain(folder, "best")
    return folder


def teacher_config(config: DictConfig, config_dir: str | None = None) -> DictConfig:
    """The configuration of the teacher that is trained for a student; `paths.run` says where."""
    name = config.method.teacher.method
    teacher, default = config.copy(), compose_config([f"method={name}"], config_dir)
    OmegaConf.set_struct(teacher, False)
    teacher.method, teacher.choices.method = default.method, name
    # Further callbacks, metrics and loggers that were given are the student's.
    teacher.logger, teacher.callbacks, teacher.metrics = _loggers(config), default.callbacks, {}
    teacher.keep, teacher.test_rates, teacher.study = "best", [], default.study
    if batches := int(config.trainer.fast_dev_run):
        # of which no checkpoint is saved: the student needs one
        limits = {f"limit_{split}_batches": batches for split in ("train", "val", "test")}
        teacher.trainer = {**teacher.trainer, **limits, "fast_dev_run": False, "max_epochs": 1}
    teacher.paths.run = str(Path(config.paths.outputs) / "teachers" / config_hash(teacher))
    return teacher


def _loggers(config: DictConfig) -> dict[str, Any]:
    """Those of ours, writing to the teacher's folder."""
    found: Any = OmegaConf.to_container(
        config.logger
    )  # not resolved: where they write follows from paths.run
    ours = {k: x for k, x in found.items() if str(x.get("_target_")).startswith("mmrobust.loggers.")}
    if "wandb" in ours:
        ours["wandb"] |= {"name": None, "job_type": "teacher"}
    return ours


def _check_modalities(run: Path, config: DictConfig) -> None:
    """Without torch: data has an encoder entry for (at least the first of) its modalities, and a teacher that
    knows none of them is one of other data. `Teacher` compares everything."""
    ours = list(encoder_entries(config.encoder))
    theirs = read_results(run)["protocol"]["modalities"]
    if ours and not set(ours) & set(theirs):
        raise UserError(
            f"method.teacher.run={run} knows the modalities {', '.join(theirs)}, data={config.choices.data} has others "
            f"({', '.join(ours)}); give a run on the same data, or leave it out to have one trained"
        )

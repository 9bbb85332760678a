"""Teachers: ordinary runs, made first, shared by a sweep, frozen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from mmrobust.config.compose import compose_config, config_hash
from mmrobust.errors import UserError
from mmrobust.evaluation.results import is_complete, read_results
from mmrobust.training.locks import locked
from mmrobust.training.processes import start
from mmrobust.training.retention import require_checkpoint, retain

if TYPE_CHECKING:
    from mmrobust.batch import Batch
    from mmrobust.data.base import DataSpec
    from mmrobust.methods.base import Method, Output


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
        require_checkpoint(Path(given))
        _check_modalities(Path(given), config)
        return Path(given)
    teacher = teacher_config(config, config_dir)
    folder, name = Path(teacher.paths.run), teacher.choices.method
    with locked(folder / ".lock", waiting=f"{folder}, the teacher, is being trained; waiting for it"):
        if not is_complete(folder):
            print(f"training the teacher ({name}) in {folder}", flush=True)
            (folder / "overrides.txt").write_text(f"method={name}\n")
            OmegaConf.save(teacher, folder / "config.yaml", resolve=True)
            start(folder, teacher, apart=True)
            retain(folder, "best")
    return folder


def teacher_config(config: DictConfig, config_dir: str | None = None) -> DictConfig:
    """The configuration of the teacher that is trained for a student; `paths.run` says where."""
    name = config.method.teacher.method
    teacher, default = config.copy(), compose_config([f"method={name}"], config_dir)
    OmegaConf.set_struct(teacher, False)
    teacher.method, teacher.choices.method = default.method, name
    teacher.logger, teacher.callbacks = _loggers(config), {}  # further ones given are the student's
    teacher.keep, teacher.test_rates, teacher.study = "best", [], default.study
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
    ours = [
        name for name, entry in config.encoder.items() if isinstance(entry, DictConfig) and "name" in entry
    ]
    theirs = read_results(run)["protocol"]["modalities"]
    if ours and not set(ours) & set(theirs):
        raise UserError(
            f"method.teacher.run={run} knows the modalities {', '.join(theirs)}, data={config.choices.data} has others "
            f"({', '.join(ours)}); give a run on the same data, or leave it out to have one trained"
        )


class Teacher:
    """A trained network that is asked, never changed; no part of the student's state.

    Its weights are loaded when it is first asked: a trained student is evaluated without its teacher, which need
    not even be there any more.

    Args:
        run: folder of its run.
        spec: what the student's data looks like; the teacher's must be the same.

    Raises:
        UserError: its checkpoint is there and knows another task, other modalities or classes.
    """

    def __init__(self, run: str, spec: DataSpec) -> None:
        from mmrobust.training.checkpoints import checkpoint_path, load_checkpoint, read_spec

        self.run, self.spec = Path(run), spec
        self._method: Method | None = None
        path = checkpoint_path(self.run)
        if path.is_file():
            self._check(read_spec(load_checkpoint(path), path))

    def __call__(self, batch: Batch) -> Output:
        """Its prediction from all that is available, without gradients."""
        import torch

        if self._method is None:
            self._method = self._load()
        if self._method.device != batch.available.device:
            self._method = self._method.to(batch.available.device)
        with torch.no_grad():
            return self._method(batch)

    def _load(self) -> Method:
        import torch

        from mmrobust.training.checkpoints import load_method

        with torch.random.fork_rng():  # building it draws weights; the student's step must not notice
            method = load_method(self.run)
        self._check(method.spec)
        return method.requires_grad_(False)

    def _check(self, theirs: DataSpec) -> None:
        differences = [
            f"{what} {hers} instead of {ours}"
            for what, hers, ours in zip(
                ("task", "classes", "modalities"), _shape(theirs), _shape(self.spec), strict=True
            )
            if hers != ours
        ]
        if differences:
            raise UserError(
                f"the teacher in {self.run} does not fit the data: {'; '.join(differences)}. Give "
                "method.teacher.run=<a run on the same data>, or leave it out to have one trained"
            )

    def require_fused(self, width: int | None = None) -> None:
        """Ask about a made-up sample whether the teacher has a fused feature (of this width, if given).

        Raises:
            UserError: it has none.
        """
        from mmrobust.models.pyramid import deepest

        fused = self(_blank(self.spec)).fused
        if fused is None:
            raise UserError(
                f"the teacher in {self.run} ({type(self._method).__name__}) has no fused feature to distil; give one "
                "that fuses features, such as method.teacher.method=fusion"
            )
        feature = deepest(fused)
        if width is not None and feature.shape[1] != width:
            raise UserError(
                f"the fused feature of the teacher in {self.run} has {feature.shape[1]} channels, the student's {width}, "
                "and they are compared entry by entry; give both the same encoders and fusion, or take another kind"
            )


def _blank(spec: DataSpec) -> Batch:
    """One sample of zeros."""
    import torch

    from mmrobust.batch import Batch

    shapes = {m: modality.shape for m, modality in spec.modalities.items()}
    places = next(iter(shapes.values()))[-2:] if spec.task == "segmentation" else ()
    return Batch(
        inputs={m: torch.zeros(1, *shape) for m, shape in shapes.items()},
        available=torch.ones(1, len(shapes), dtype=torch.bool),
        target=torch.zeros(1, *places, dtype=torch.long),
        noise_level=torch.zeros(1, len(shapes)),
        index=torch.zeros(1, dtype=torch.long),
        ids=["blank"],
    )


def _shape(spec: DataSpec) -> tuple[str, int, str]:
    modalities = (f"{m} ({x.kind} {'x'.join(map(str, x.shape))})" for m, x in spec.modalities.items())
    return spec.task, spec.num_classes, ", ".join(modalities)

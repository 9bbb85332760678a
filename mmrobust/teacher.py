"""Teachers: ordinary runs, made first, shared by a sweep, frozen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from mmrobust.config import compose_config, config_hash
from mmrobust.errors import UserError
from mmrobust.evaluation.results import is_complete
from mmrobust.launch import start

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
        return Path(given)
    name = config.method.teacher.method
    teacher = config.copy()
    OmegaConf.set_struct(teacher, False)
    teacher.method = compose_config([f"method={name}"], config_dir).method
    teacher.choices.method = name
    teacher.logger = {}
    folder = Path(config.paths.outputs) / "teachers" / config_hash(teacher)
    teacher.paths.run = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not is_complete(folder):
            print(f"training the teacher ({name}) in {folder}", flush=True)
            (folder / "overrides.txt").write_text(f"method={name}\n")
            OmegaConf.save(teacher, folder / "config.yaml", resolve=True)
            start(folder, teacher, apart=True)
    return folder


class Teacher:
    """A trained network that is asked, never changed; no part of the student's state.

    Args:
        run: folder of its run.
        spec: what the student's data looks like; the teacher's must be the same.
    """

    def __init__(self, run: str, spec: DataSpec) -> None:
        self.run, self.spec = Path(run), spec
        self._method: Method | None = None

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

        from mmrobust.checkpoints import load_method

        with torch.random.fork_rng():  # building it draws weights; the student's step must not notice
            method = load_method(self.run)
        if method.spec.modalities != self.spec.modalities or method.spec.num_classes != self.spec.num_classes:
            raise UserError(
                f"the teacher in {self.run} knows {list(method.spec.modalities)} and {method.spec.num_classes} "
                f"classes; the data has {list(self.spec.modalities)} and {self.spec.num_classes}"
            )
        return method.requires_grad_(False)

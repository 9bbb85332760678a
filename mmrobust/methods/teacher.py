"""A trained network that students ask; never changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmrobust.errors import UserError

if TYPE_CHECKING:
    from mmrobust.batch import Batch
    from mmrobust.data.spec import DataSpec
    from mmrobust.methods.base import Method, Output


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

        from mmrobust.training.session import open_trained

        with torch.random.fork_rng():  # building it draws weights; the student's step must not notice
            method = open_trained(self.run).method
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
    """One sample of zeros, with any target."""
    import torch

    from mmrobust.batch import Batch
    from mmrobust.tasks.registry import build_task

    count = len(spec.modalities)
    return Batch(
        inputs={m: modality.blank(1) for m, modality in spec.modalities.items()},
        available=torch.ones(1, count, dtype=torch.bool),
        target=build_task(spec).example(1, torch.Generator()),
        noise_level=torch.zeros(1, count),
        index=torch.zeros(1, dtype=torch.long),
        ids=["blank"],
    )


def _shape(spec: DataSpec) -> tuple[str, int, str]:
    modalities = (f"{m} ({x.kind} {'x'.join(map(str, x.shape))})" for m, x in spec.modalities.items())
    return spec.task, spec.num_classes, ", ".join(modalities)

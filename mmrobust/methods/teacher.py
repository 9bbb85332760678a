"""The trained teacher network of distillation methods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmrobust.errors import UserError

if TYPE_CHECKING:
    from mmrobust.batch import Batch
    from mmrobust.data.spec import DataSpec
    from mmrobust.methods.base import Method, Output


class Teacher:
    """A frozen, trained network used for inference only; not part of the student's state_dict.

    The weights are loaded at the first call. The evaluation of a trained student therefore does not need the teacher,
    whose run may have been deleted.

    Args:
        run: folder of the teacher's run.
        spec: the description of the student's data, which must match the teacher's.

    Raises:
        UserError: the teacher's checkpoint exists and has another task, other modalities or other classes.
    """

    def __init__(self, run: str, spec: DataSpec) -> None:
        from mmrobust.training.checkpoints import checkpoint_path, load_checkpoint, read_spec

        self.run, self.spec = Path(run), spec
        self._method: Method | None = None
        path = checkpoint_path(self.run)
        if path.is_file():
            self._check(read_spec(load_checkpoint(path), path))

    def __call__(self, batch: Batch) -> Output:
        """Predict from all available modalities, without gradients."""
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

        # Building the network draws random weights, which must not change the student's random numbers.
        with torch.random.fork_rng():
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
        """Check on a synthetic sample that the teacher returns a fused feature (of this width, if given).

        Raises:
            UserError: the teacher has no fused feature, or one of another width.
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
    """A batch with one sample of zeros and an arbitrary target."""
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

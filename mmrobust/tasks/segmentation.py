"""Semantic segmentation: one class per pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrobust.data.spec import DataSpec
from mmrobust.errors import UserError
from mmrobust.models.decoder import Decoder
from mmrobust.models.pyramid import resized
from mmrobust.tasks.base import Counts, Predicted, Task, full_logits
from mmrobust.tasks.counts import confusion_counts, segmentation_metrics

# Memory bound of the logits that are enlarged to the labels' resolution at a time.
RESIZED_BYTES = 64 * 2**20


class Segmentation(Task):
    """One class per pixel. Logits are (B, C, H, W), targets (B, H, W) with `ignore_index` for void pixels.

    Encoders return a `Pyramid`. A head is a decoder, which in training also predicts at coarser resolutions.
    """

    dense: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = ("miou", "pixel_accuracy", "mean_accuracy")
    kept_as: ClassVar[str] = "confusion"
    primary = "miou"

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.size = tuple(next(iter(spec.modalities.values())).shape[-2:])
        if len(spec.class_weights) not in (0, spec.num_classes):
            raise UserError(
                f"the dataset has {len(spec.class_weights)} class weights for {spec.num_classes} classes; it needs one "
                "a class, or none"
            )
        self.class_weights = torch.tensor(spec.class_weights or [1.0] * spec.num_classes)
        self.skip_widths: list[int] = []
        self.stride = 1
        self.decoder: Mapping[str, Any] | None = None

    def prepare(self, source: nn.Module, decoder: Mapping[str, Any] | None) -> None:
        """Store the shapes of a head's inputs and the decoder's keys.

        Args:
            source: the module that returns the pyramids; its `skip_widths` are ordered coarse to fine, and its
                `stride` is that of the finest level.
            decoder: widths, blocks and norm, see `Decoder`.
        """
        self.skip_widths, self.stride = list(source.skip_widths), int(source.stride)  # type: ignore[arg-type]
        self.decoder = decoder

    def pool(self, features: Any) -> Any:
        """Return the maps unchanged, because segmentation fuses maps."""
        return features

    def head(self, width: int, skip_widths: Sequence[int] | None = None) -> nn.Module:
        """Build a decoder for pyramids with the given skip widths; None: those of the encoders."""
        if self.decoder is None:
            raise UserError(
                "segmentation needs encoder.decoder, the decoder's widths, blocks and norm; see conf/encoder/decoder/"
            )
        skips = self.skip_widths if skip_widths is None else skip_widths
        return Decoder(
            width, skips, stride=self.stride, num_classes=self.num_classes, size=self.size, **self.decoder
        )

    def loss(self, prediction: Tensor | Predicted, target: Tensor) -> Tensor:
        """Weighted cross-entropy of every sample, summed over the resolutions of the prediction, (B,).

        The mean over the batch is the class-weighted mean over all pixels of the batch that are not void:

            loss_i = sum_{pixels of i} w_y CE / (sum_{all pixels} w_y / B)

        A sample without labels thus has loss 0. Labels are resized to coarser resolutions by the nearest pixel. The
        batch is that of one rank.

        Source: the loss of ESANet, MMANet and DMRNet.
        """
        side = () if isinstance(prediction, Tensor) else prediction.side
        scales = [full_logits(prediction), *side]
        return torch.stack([self._loss(logits, nearest(target, logits.shape[-2:])) for logits in scales]).sum(
            0
        )

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        weights = self.class_weights = self.class_weights.to(logits.device)
        pixels = F.cross_entropy(
            logits, target, weights.to(logits.dtype), ignore_index=self.ignore_index, reduction="none"
        )
        valid = target != self.ignore_index
        total = torch.where(valid, weights[torch.where(valid, target, 0)], 0).sum()
        mean = total / len(target)
        return pixels.flatten(1).sum(1) / torch.where(mean > 0, mean, 1)

    def predict(self, logits: Tensor, target: Tensor, label_size: Tensor | None) -> Tensor:
        """Predict classes at the labels' resolution from logits (K, B, C, h, w).

        Args:
            logits: of K combinations.
            target: (B, H, W), padded labels.
            label_size: (B, 2), height and width of every label without padding; None: no label is padded.

        Returns:
            Classes (K, B, H, W); those in the padding are undefined.
        """
        if label_size is None:
            return _classes(logits.flatten(0, 1), target.shape[1:]).unflatten(0, logits.shape[:2])
        predicted = torch.zeros(len(logits), *target.shape, dtype=torch.long, device=target.device)
        for i, (height, width) in enumerate(label_size.tolist()):
            predicted[:, i, :height, :width] = _classes(logits[:, i], (height, width))
        return predicted

    def certainty(self, logits: Tensor) -> Tensor:
        return logits.float().softmax(2).amax(2)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.float().softmax(1)

    def pairs(self, logits: Tensor, target: Tensor, label_size: Tensor | None) -> tuple[Tensor, Tensor]:
        """Probabilities (P, C) and classes (P,) of the pixels that are not void, at the labels' resolution."""
        probabilities, classes = [logits.new_zeros(0, self.num_classes)], [target.new_zeros(0)]
        sizes = [target.shape[1:]] * len(target) if label_size is None else label_size.tolist()
        for image, label, (height, width) in zip(logits, target, sizes, strict=True):
            valid = label[:height, :width] != self.ignore_index
            large = resized(image[None].float(), (height, width))[0].softmax(0)
            probabilities.append(large[:, valid].t())
            classes.append(label[:height, :width][valid])
        return torch.cat(probabilities), torch.cat(classes)

    def zeros(self, rows: int) -> Counts:
        """`confusion` (rows, C, C) int64."""
        return {"confusion": torch.zeros(rows, self.num_classes, self.num_classes, dtype=torch.int64)}

    def count(self, logits: Tensor, predicted: Tensor, target: Tensor, counted: Tensor) -> Counts:
        valid = target != self.ignore_index
        classes = torch.where(valid, target, 0).expand_as(predicted)
        counted = counted[..., None, None] & valid
        return {"confusion": confusion_counts(predicted, classes, counted, self.num_classes)}

    def measure(self, counts: Counts) -> dict[str, Tensor]:
        return segmentation_metrics(counts["confusion"])

    def kept(self, logits: Tensor, predicted: Tensor, target: Tensor) -> Tensor:
        """The confusion matrix of each image, (K, B, C, C)."""
        k, b = predicted.shape[:2]
        images, labels = predicted.flatten(0, 1), target.expand(k, *target.shape).flatten(0, 1)
        valid = labels != self.ignore_index
        counts = confusion_counts(images, torch.where(valid, labels, 0), valid, self.num_classes)
        return counts.unflatten(0, (k, b)).int()

    def count_kept(self, kept: Tensor, target: Tensor | None, counted: Tensor) -> Counts:
        return {"confusion": (kept.long() * counted[..., None, None]).sum(1)}


def _classes(logits: Tensor, size: Sequence[int]) -> Tensor:
    """The most probable classes (N, *size) of logits (N, C, h, w); enlarges a few rows at a time to save memory."""
    if logits.shape[-2:] == tuple(size):
        return logits.argmax(1)
    rows = max(1, RESIZED_BYTES // (4 * logits.shape[1] * size[0] * size[1]))
    return torch.cat([resized(part, size).argmax(1) for part in logits.split(rows)])


def nearest(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Resize labels (B, H, W) to (B, *size); each place takes the label of pixel floor(i * H / h), floor(j * W / w)."""
    if labels.shape[1:] == tuple(size):
        return labels
    rows, columns = (
        torch.arange(n, device=labels.device) * have // n
        for n, have in zip(size, labels.shape[1:], strict=True)
    )
    return labels[:, rows[:, None], columns]

"""What modality distillation is made of: hallucinations of absent modalities, and a fusion of translations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from mmrobust.data.spec import DataSpec
from mmrobust.errors import UserError
from mmrobust.models.assembly import encoder_keys
from mmrobust.models.encoders import PointwiseLinear, build_encoder, normalization
from mmrobust.models.fusion import check_places, rows_like
from mmrobust.models.heads import Prediction
from mmrobust.models.pyramid import Pyramid, by_level, deepest, with_deepest
from mmrobust.models.pyramid_encoder import build_pyramid


class Layer(nn.Sequential):
    """A linear map, or on maps a convolution, with BatchNorm and ReLU behind it: (B, D, ...) -> (B, width, ...)."""

    def __init__(self, inputs: int, width: int, *, maps: bool, kernel: int = 1) -> None:
        linear: nn.Module = nn.Linear(inputs, width, bias=False)
        if maps:
            linear = nn.Conv2d(inputs, width, kernel, padding=kernel // 2, bias=False)
        super().__init__(linear, normalization("batch", width, 2 if maps else 1), nn.ReLU())
        self.width = width


class Hallucination(nn.Module):
    """Features of other modalities, restored from one: (B, ...) -> target -> (B, width, ...).

    Args:
        trunks: target -> network of the source, with `width`; targets may share one, which then runs once.
        pool: of the trunks' features, see `Classification.pool`.
        width: channels of the restored features.
    """

    def __init__(self, trunks: Mapping[str, nn.Module], pool: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        different = list(dict.fromkeys(trunks.values()))
        self.trunks, self.pool = nn.ModuleList(different), pool
        self.trunk_of = {target: different.index(trunk) for target, trunk in trunks.items()}
        self.projections = nn.ModuleDict(
            {target: PointwiseLinear(cast(int, trunk.width), width) for target, trunk in trunks.items()}
        )

    def forward(self, x: Tensor | Pyramid) -> dict[str, Any]:
        if isinstance(x, Pyramid):
            features = [with_deepest(x, trunk(x.deep)) for trunk in self.trunks]
        else:
            features = [self.pool(trunk(x)) for trunk in self.trunks]
        restored = {}
        for target, project in self.projections.items():
            own = features[self.trunk_of[target]]
            restored[target] = with_deepest(own, project(deepest(own)))
        return restored


class CrossTranslation(nn.Module):
    """Every stream translated into every modality's space by that modality's block (OSMD's CTN, up to its head).

    Block B_n is applied to all streams f_m: B_n(f_n) stays what it is, B_n(f_m) is m translated into n. In
    the joint representations modality n has slot n:

        J_1[n] = mean_m B_n(f_m)    from all streams,       J^(m)[n] = B_n(f_m)    from stream m alone.

    Source: `Couple_Cross` of the same authors' MSH-Net, which has two streams and blocks of stride 2; written
    here for M streams, and with stride 1, since maps come from the encoders' ends.

    Args:
        modalities: their names, M.
        width: D, channels of the streams and of each slot.
        maps: streams are (B, D, H, W) and blocks 3 × 3 convolutions; else (B, D) and linear maps.
        translate: false applies each block to its own stream alone, J_1[n] = B_n(f_n): plain concatenation by
            the same layers.
    """

    def __init__(self, modalities: Sequence[str], width: int, *, maps: bool, translate: bool) -> None:
        super().__init__()
        self.width, self.translate = width * len(modalities), translate
        self.blocks = nn.ModuleDict({m: Layer(width, width, maps=maps, kernel=3) for m in modalities})

    def forward(self, streams: Mapping[str, Tensor]) -> Tensor:
        """Streams (B, D, ...) to joint representations (1 + M, B, M D, ...), J_1 first; J_1 alone if not
        `translate`."""
        check_places(streams)
        if not self.translate:
            return torch.cat([block(streams[m]) for m, block in self.blocks.items()], dim=1)[None]
        count = len(streams)
        stacked = torch.cat(list(streams.values()))  # one pass a block: the streams share its statistics
        slots = [block(stacked).unflatten(0, (count, -1)) for block in self.blocks.values()]
        alone = torch.cat(slots, dim=2)  # (M, B, M D, ...)
        return torch.cat([alone.mean(0, keepdim=True), alone])


def trunks_of(
    kind: str,
    source: str,
    targets: Sequence[str],
    spec: DataSpec,
    encoder: Mapping[str, Any],
    width: int,
    skip_widths: Sequence[int] | None,
) -> dict[str, nn.Module]:
    """The trunks of a `Hallucination`.

    Args:
        kind: `pair`: an encoder of the source's input for every target, with the target's encoder keys;
            `source`: one for all, with the source's keys; `head`: one layer on the source's features.
        encoder: keys of `build_encoder`, and under a modality's name those of that modality alone.
        width: channels of the source's features.
        skip_widths: of the finer levels that the trunks must give, too; None: they give a single map.
    """
    if kind == "head":
        return dict.fromkeys(targets, Layer(width, width, maps=spec.task == "segmentation"))

    def build(like: str) -> nn.Module:
        keys = encoder_keys(encoder, spec)[like]
        if skip_widths is None:
            return build_encoder(spec.modalities[source], **keys)
        pyramid = build_pyramid(spec.modalities[source], keys)
        pyramid.unify(skip_widths)
        return pyramid

    return {n: build(n) for n in targets} if kind == "pair" else dict.fromkeys(targets, build(source))


def hallucinate(
    source: str,
    targets: Sequence[str],
    *,
    kind: str,
    spec: DataSpec,
    encoder: Mapping[str, Any],
    width: int,
    pool: Callable[[Tensor], Tensor],
    skip_widths: Sequence[int] | None,
) -> Hallucination:
    """What restores the targets from a source; arguments as of `trunks_of`."""
    return Hallucination(trunks_of(kind, source, targets, spec, encoder, width, skip_widths), pool, width)


def where_rows(rows: Tensor, own: Any, restored: Any | None) -> Any:
    """In the given rows (B,) bool what is a modality's own, in the others what was restored, or zeros."""
    if restored is None:
        restored = apply_to_collection(own, Tensor, torch.zeros_like)
    choose = lambda x: torch.where(rows_like(rows, x["own"]), x["own"], x["restored"])  # noqa: E731
    return by_level(choose, {"own": own, "restored": restored})


def with_stream_skips(hidden: Tensor, streams: Mapping[str, Any]) -> Any:
    """What was made of joint representations (J * B, ...), with the skips of pyramids: for J_1 the mean over the
    streams, and if there are more, for each stream alone its own."""
    pyramids = list(streams.values())
    if not isinstance(pyramids[0], Pyramid):
        return hidden
    skips = []
    for maps in zip(*(pyramid.skips for pyramid in pyramids), strict=True):
        stacked = torch.stack(maps)
        mean = stacked.mean(0)
        skips.append(mean if len(hidden) == len(mean) else torch.cat([mean, stacked.flatten(0, 1)]))
    return Pyramid(hidden, tuple(skips))


def fuse_late(
    translation: CrossTranslation,
    hidden: nn.Module,
    head: nn.Module,
    streams: Mapping[str, Any],
    *,
    training: bool,
) -> tuple[Prediction, Any, Tensor]:
    """The prediction from all streams, what the head saw, and in training the squared gap of the logits from each
    stream alone to these, the mean over the classes, summed over the streams, (B, ...)."""
    joints = translation({m: deepest(x) for m, x in streams.items()})  # (1 + M, B, ...): from all, from each
    joints = joints if training else joints[:1]
    # In one pass, so that the statistics are those of inference, too.
    fused = with_stream_skips(hidden(joints.flatten(0, 1)), streams)
    predicted = head(fused)
    count = joints.shape[1]
    of_all, fused = (apply_to_collection(x, Tensor, lambda x: x[:count]) for x in (predicted, fused))
    alone = predicted.logits.unflatten(0, joints.shape[:2])[1:]
    return of_all, fused, (alone - of_all.logits).pow(2).mean(2).sum(0)


def mean_gap(gap: Tensor, rows: Tensor, valid: Tensor) -> Tensor:
    """The mean of a gap (B,) or (B, H, W) that counts in the given rows (B,) and, of each place, where `valid`."""
    counted = rows_like(rows, gap)
    return torch.where(counted & valid if gap.shape == valid.shape else counted, gap, 0).mean()


def sources_of(modalities: Sequence[str], privileged: Sequence[str] | None) -> list[str]:
    """What may be available at inference.

    Raises:
        UserError: nothing is privileged, everything is, or an unknown modality.
    """
    known = ", ".join(modalities)
    if len(modalities) < 2:
        raise UserError(f"a modality is restored from another; the data has {known} alone, expected two")
    if privileged is None:
        return list(modalities)
    if unknown := [m for m in privileged if m not in modalities]:
        raise UserError(f"method.privileged names {unknown[0]!r}, but the modalities are {known}")
    if not 0 < len(set(privileged)) < len(modalities):
        raise UserError(
            f"method.privileged={list(privileged)}: expected some but not all of {known}, or null, which draws "
            "them anew for every sample"
        )
    return [m for m in modalities if m not in privileged]

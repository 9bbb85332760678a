"""Fusions that begin inside the encoders: what comes after is a trunk, which runs once for every combination.

They are given the encoders as sequences of stages, and cut off what they take over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmrobust.errors import UserError
from mmrobust.models.encoders import few_rows, running_statistics, scatter_rows
from mmrobust.models.fusion import check_places, masked
from mmrobust.models.pyramid import Context, GatedSum, Pyramid, SqueezeExcitation
from mmrobust.models.pyramid_encoder import skip_levels
from mmrobust.models.stages import Staged


class ESANet(nn.Module):
    """The first modality's trunk carries what is fused after its stem and after each of its stages.

    At every level the gated maps of all modalities are summed (`GatedSum`); the carrier's next stage reads the
    sum, the others' next stages their own maps. So the carrier's stem and the others' trunks run once, the carrier's
    stages for every combination. A row that lacks the carrier has the others' sums alone; its trunk is not run
    for it. (Released: it runs, is hidden at every level, and its BatchNorm sees those rows, too.)

    Args:
        encoders: all levels of one another's size; the carrier is the first. Others of other widths are projected,
            without a bias.
        bins, width, norm: of the context module behind the last level, see `Context`.

    Attributes:
        width: of the deepest map.
        skip_widths, stride: of the finer levels, coarse to fine; of the finest.

    Source: ESANet (Seichter et al., ICRA 2021, arXiv 2011.06961) as MMANet and DMRNet use it, here for any M.
    """

    takes_encoders = True
    tasks: ClassVar[tuple[str, ...]] = ("segmentation",)

    def __init__(
        self, encoders: Mapping[str, Staged], *, bins: Sequence[int], width: int | None, norm: str
    ) -> None:
        super().__init__()
        strides = {m: e.strides for m, e in encoders.items()}
        if len({tuple(s) for s in strides.values()}) > 1:
            raise UserError(
                f"fusion=esanet sums the modalities' maps after every stage, but their strides differ: {strides}; "
                "give all modalities encoders of one family"
            )
        self.carrier, *self.others = encoders
        carrier = encoders[self.carrier]
        widths, steps = list(carrier.widths), list(carrier.strides)
        self.own_gates = nn.ModuleList(SqueezeExcitation(w) for w in widths)
        self.sums = nn.ModuleList(GatedSum(len(self.others), w) for w in widths) if self.others else None
        self.projections = nn.ModuleDict(
            {
                m: nn.ModuleList(
                    nn.Identity() if a == b else nn.Conv2d(a, b, 1, bias=False)
                    for a, b in zip(encoders[m].widths, widths, strict=True)
                )
                for m in self.others
            }
        )
        self.trunk = nn.ModuleList(carrier.cut(1))
        for encoder in encoders.values():
            encoder.every = True
        self.kept = skip_levels(steps)
        self.skip_widths = [widths[i] for i in self.kept]
        self.stride = steps[self.kept[-1]]
        self.context = Context(widths[-1], bins=bins, width=width, norm=norm)
        self.width = self.context.width

    def forward(self, features: Mapping[str, Pyramid], available: Tensor) -> Pyramid:
        """The carrier's stem and the others' levels, and what is available (B, M): the fused pyramid."""
        rows = available[:, 0].nonzero().squeeze(1)
        carried = features[self.carrier].deep[rows]
        fused: list[Tensor] = []
        with running_statistics(self.trunk, active=self.training and few_rows(self.trunk, len(rows))):
            for level, gate in enumerate(self.own_gates):
                if level:
                    carried = self.trunk[level - 1](fused[-1][rows])
                own = scatter_rows(rows, gate(carried), len(available))
                others = self._others(level, features, available)
                fused.append(own if others is None else own + others)
        return Pyramid(self.context(fused[-1]), tuple(fused[i] for i in self.kept))

    def _others(self, level: int, features: Mapping[str, Pyramid], available: Tensor) -> Tensor | None:
        if self.sums is None:
            return None
        maps = {}
        for m in self.others:
            projections = self.projections[m]
            assert isinstance(projections, nn.ModuleList)
            own = [*features[m].skips[::-1], features[m].deep]  # fine to coarse
            maps[m] = projections[level](own[level])
        return self.sums[level](maps, available[:, 1:])


class Trunk(nn.Module):
    """Encoders up to the middle, side by side, and one trunk behind them.

    Each encoder keeps its first stages, gated by squeeze and excitation; what is available of their maps is
    concatenated, an absent block being zero. The trunk is the first encoder's last stages, with first convolutions as
    wide as the concatenation and drawn anew. Its map is the fused feature; what predicts from it averages it first.

    Args:
        encoders: the trunk is cut off all of them.
        stages: how many of an encoder's stages the trunk has.

    Attributes:
        width: of the fused map.

    Source: MMANet's and DMRNet's released code for CASIA-SURF: ResNet-18 with fusion after the second of four.
    """

    takes_encoders = True
    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(self, encoders: Mapping[str, Staged], *, stages: int) -> None:
        super().__init__()
        first = next(iter(encoders.values()))
        self.width = first.width
        parts = []
        for m, encoder in encoders.items():
            if not 1 <= stages < len(encoder.stages):
                raise UserError(
                    f"fusion.stages={stages}, but the encoder of {m} has {len(encoder.stages)} stages, of which one "
                    f"at least is its own; choose 1 to {len(encoder.stages) - 1}"
                )
            parts.append(encoder.cut(len(encoder.stages) - stages))
            encoder.stages.append(SqueezeExcitation(encoder.width))
        self.layers = nn.Sequential(*parts[0])
        widen(self.layers[0], first.width, sum(encoder.width for encoder in encoders.values()))

    def forward(self, features: Mapping[str, Tensor], available: Tensor) -> Tensor:
        """Maps (B, D_m, H, W) of the modalities `available` (B, M) to a map (B, width, h, w)."""
        check_places(features)
        return self.layers(torch.cat(masked(features, available), 1))


def widen(stage: nn.Module, width: int, target: int) -> None:
    """Give the convolutions that read the input of a stage `target` channels instead of `width`, with new weights.

    Raises:
        UserError: which ones do cannot be told.
    """
    for module in first_block(stage).modules():
        for key, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d) and child.in_channels == width and child.groups == 1:
                wide = deepcopy(child)
                wide.in_channels = target
                wide.weight = nn.Parameter(
                    child.weight.new_empty(len(child.weight), target, *child.kernel_size)
                )
                nn.init.kaiming_normal_(wide.weight, mode="fan_out", nonlinearity="relu")
                setattr(module, key, wide)
    try:
        with torch.no_grad(), running_statistics(stage):
            stage(torch.zeros(1, target, 8, 8))
    except RuntimeError as error:
        raise UserError(
            "fusion=trunk cannot tell which convolutions read what the encoders give: choose an encoder such as "
            "resnet18 or tiny, or another number of fusion.stages"
        ) from error


def first_block(stage: nn.Module) -> nn.Module:
    """The first part of a stage that has parts of its own, within stages of stages, too; else the stage itself."""
    nested = next((child for child in stage.children() if any(True for _ in child.children())), None)
    if nested is None:
        return stage
    return first_block(nested) if isinstance(nested, nn.Sequential) else nested

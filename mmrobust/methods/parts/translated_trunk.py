"""OSMD's released network: one trunk that goes on, level by level, from what all streams are translated into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmrobust.data.spec import DataSpec
from mmrobust.errors import UserError
from mmrobust.models.assembly import encoder_keys
from mmrobust.models.fusion import check_places
from mmrobust.models.pyramid import Context, Pyramid, levels
from mmrobust.models.pyramid_encoder import skip_levels
from mmrobust.models.stages import Staged, build_levels


class TranslationBlock(nn.Module):
    """The streams of one level translated into K shared slots and merged (`Cross_Translation`).

    With T_k a 1 × 1 convolution to a K-th of the channels and ReLU, shared by all streams, and G another one:

        J^(s) = [T_1(f_s); ...; T_K(f_s)]   from stream s alone,    J = mean_s J^(s),    fused = ReLU(G(J)).

    Nothing is normalised, all convolutions have a bias; swapping streams changes nothing.

    Args:
        count: number of streams, K.
        width: their channels.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        share = max(width // count, 1)
        self.slots = nn.ModuleList(nn.Conv2d(width, share, 1) for _ in range(count))
        self.merge = nn.Conv2d(share * count, width, 1)

    def forward(self, streams: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Maps (B, C, H, W) of the streams to the fused one (B, C, H, W), and how far each stream alone is from all:
        sum_s (J^(s) - J)^2, the mean over channels and places, (B,)."""
        check_places(streams)
        stacked = torch.cat(list(streams.values()))
        alone = torch.cat([slot(stacked).relu() for slot in self.slots], 1).unflatten(0, (len(streams), -1))
        joint = alone.mean(0)
        return self.merge(joint).relu(), (alone - joint).square().flatten(2).mean(2).sum(0)


class TranslatedTrunk(nn.Module):
    """A `TranslationBlock` behind the stem and every stage; the carrier's next stage reads what is fused.

    The other modalities' maps come from chains of their own, real or restored. Source: `ESANet_OS` in the released
    codes of MMANet and DMRNet, here for any number of modalities.

    Args:
        encoders: all levels of one another's size. Others of other widths are projected, without a bias.
        carrier: whose stages go on from the fused maps.
        keeps_chain: whether the carrier's encoder is needed as a whole, too; the trunk then starts as a copy of its
            stages, else it takes them away.
        bins, norm: of the context module behind the last level, see `Context`.

    Attributes:
        width: of the deepest map.
        kept: the finer levels that a decoder is given, coarse to fine.
        skip_widths, stride: of these; of the finest.
    """

    takes_encoders = True
    tasks: ClassVar[tuple[str, ...]] = ("segmentation",)

    def __init__(
        self,
        encoders: Mapping[str, Staged],
        *,
        carrier: str,
        keeps_chain: bool,
        bins: Sequence[int],
        norm: str,
    ) -> None:
        super().__init__()
        strides = {m: e.strides for m, e in encoders.items()}
        if len({tuple(s) for s in strides.values()}) > 1:
            raise UserError(
                f"OSMD translates the modalities' maps after every stage, but their strides differ: {strides}; give all "
                "modalities encoders of one family"
            )
        first = encoders[carrier]
        self.carrier, widths, steps = carrier, list(first.widths), list(first.strides)
        self.blocks = nn.ModuleList(TranslationBlock(len(encoders), w) for w in widths)
        self.projections = nn.ModuleDict(
            {
                m: nn.ModuleList(
                    nn.Identity() if a == b else nn.Conv2d(a, b, 1, bias=False)
                    for a, b in zip(e.widths, widths, strict=True)
                )
                for m, e in encoders.items()
                if m != carrier
            }
        )
        self.trunk = nn.ModuleList(deepcopy(list(first.stages[1:])) if keeps_chain else first.cut(1))
        for encoder in encoders.values():
            encoder.every = True
        self.kept = skip_levels(steps)
        self.skip_widths, self.stride = [widths[i] for i in self.kept], steps[self.kept[-1]]
        self.context = Context(widths[-1], bins=bins, width=None, norm=norm)
        self.width = self.context.width

    def forward(self, streams: Mapping[str, Pyramid]) -> tuple[Pyramid, Tensor]:
        """Every modality's levels, of the carrier at least the first: the fused pyramid, and the streams' distances,
        see `TranslationBlock`, added up over all levels but the stem's, (B,)."""
        chains = {m: levels(x)[::-1] for m, x in streams.items()}  # fine to coarse
        carried, fused, gaps = chains[self.carrier][0], list[Tensor](), list[Tensor]()
        for level, block in enumerate(self.blocks):
            if level:
                carried = self.trunk[level - 1](fused[-1])
            maps = {m: self._map(m, level, chain) for m, chain in chains.items() if m != self.carrier}
            merged, gap = block({self.carrier: carried, **maps})
            fused.append(merged)
            gaps += [gap] if level else []
        return Pyramid(self.context(fused[-1]), tuple(fused[i] for i in self.kept)), torch.stack(gaps).sum(0)

    def _map(self, modality: str, level: int, chain: Sequence[Tensor]) -> Tensor:
        projections = self.projections[modality]
        assert isinstance(projections, nn.ModuleList)
        return projections[level](chain[level])


class Surroundings(nn.Module):
    """What the head of a single stream sees of its levels: a context module on the deepest, and those kept."""

    def __init__(self, context: Context, kept: Sequence[int], count: int) -> None:
        super().__init__()
        self.context, self.positions = context, [count - 2 - i for i in kept]

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return Pyramid(self.context(pyramid.deep), tuple(pyramid.skips[i] for i in self.positions))


class RestoredChains(nn.Module):
    """H_{u→n}: for every target an encoder of its own on the source's input, all levels of it.

    Args:
        source: the modality that is read.
        targets: those that are restored.
        spec: the dataset's description.
        encoder: keys of `build_encoder`; each target's are taken.
    """

    def __init__(
        self, source: str, targets: Sequence[str], spec: DataSpec, encoder: Mapping[str, object]
    ) -> None:
        super().__init__()
        keys = encoder_keys(encoder, spec)
        self.chains = nn.ModuleDict({n: build_levels(spec.modalities[source], **keys[n]) for n in targets})
        for chain in self.chains.values():
            # an encoder of these keys has been taken apart before
            assert isinstance(chain, Staged)
            chain.every = True

    def forward(self, x: Tensor) -> dict[str, Pyramid]:
        return {n: chain(x) for n, chain in self.chains.items()}

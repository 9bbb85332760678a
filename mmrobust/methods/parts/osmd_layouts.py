"""OSMD's two layouts: what restores, translates, fuses and predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, cast

from torch import nn

from mmrobust.data.spec import DataSpec
from mmrobust.errors import UserError, one_of
from mmrobust.methods.base import Method
from mmrobust.methods.parts.adaptation import JointAdaptation
from mmrobust.methods.parts.translated_trunk import RestoredChains, Surroundings, TranslatedTrunk
from mmrobust.methods.parts.translation import CrossTranslation, Layer, hallucinate
from mmrobust.models.assembly import Fusion
from mmrobust.models.encoders import PointwiseLinear
from mmrobust.models.pyramid import MAX_CONTEXT, Context
from mmrobust.models.stages import Staged

Adapt = Callable[..., JointAdaptation]


def layout_fusion(
    layout: str | None,
    spec: DataSpec,
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    encoder: Mapping[str, Any],
    hallucination: str | None,
    aggregation: str,
    bins: Sequence[int],
) -> Fusion | None:
    """The released layout's fusion, the first source's trunk; None for the reconstruction.

    Raises:
        UserError: the layout does not do the task, or other keys belong to the reconstruction.
    """
    one_of("method.layout", layout or "released", ("released", "reconstruction"))
    one_of("method.hallucination", hallucination or "pair", ("pair", "source", "head"))
    one_of("method.aggregation", aggregation, ("cross_translation", "concat"))
    if layout == "reconstruction" or (layout is None and spec.task != "segmentation"):
        return None
    if spec.task != "segmentation":
        raise UserError(
            f"method.layout=released does segmentation, but the dataset's task is {spec.task}; set "
            "method.layout=reconstruction"
        )
    if hallucination not in (None, "pair") or aggregation != "cross_translation":
        raise UserError(
            f"method.hallucination={hallucination} and method.aggregation={aggregation}, but the released layout has an "
            "encoder for every pair and cross translation; set method.layout=reconstruction"
        )
    keeps = sources[0] in targets
    return partial(TranslatedTrunk, carrier=sources[0], keeps_chain=keeps, bins=bins, norm=encoder["norm"])


def layout_parts(
    method: Method,
    adapt: Adapt,
    *,
    encoder: Mapping[str, Any],
    hallucination: str | None,
    aggregation: str,
    hidden: Sequence[int],
    bins: Sequence[int],
) -> dict[str, nn.Module]:
    """The other parts of a method whose fusion is `layout_fusion`, by name, in the order in which they are drawn."""
    if isinstance(getattr(method, "fusion", None), TranslatedTrunk):
        return released_parts(method, adapt, encoder=encoder, bins=bins)
    kind = hallucination or "source"
    return reconstructed_parts(
        method, adapt, encoder=encoder, hallucination=kind, aggregation=aggregation, hidden=hidden
    )


def released_parts(
    method: Method, adapt: Adapt, *, encoder: Mapping[str, Any], bins: Sequence[int]
) -> dict[str, nn.Module]:
    """The released layout (`ESANet_OS`): the trunk goes on from what the streams are translated into at every level.

    Every H_{u→n} is an encoder of its own with n's keys; context module, skip projections and decoder are separate for
    fused, restored and real maps. Compared are the maps of three depths and the logits at all scales; what is made of
    each stream alone is drawn to what is made of all at every level but the stem (of the five, one is left out; which
    is not known). Real and restored branches serve the training alone.
    """
    trunk = cast(TranslatedTrunk, method.fusion)
    chains = cast(Mapping[str, Staged], method.encoders)

    def view(n: str) -> nn.Module:
        widths = chains[n].widths
        return Surroundings(
            Context(widths[-1], bins=bins, width=None, norm=encoder["norm"]), trunk.kept, len(widths)
        )

    def head(n: str) -> nn.Module:
        widths = chains[n].widths
        return method.task.head(min(widths[-1], MAX_CONTEXT), [widths[i] for i in trunk.kept])

    restored = partial(RestoredChains, spec=method.spec, encoder=encoder)
    return {"joint_adaptation": adapt(head=head, hallucinate=restored, view=view, thorough=True)}


def reconstructed_parts(
    method: Method,
    adapt: Adapt,
    *,
    encoder: Mapping[str, Any],
    hallucination: str,
    aggregation: str,
    hidden: Sequence[int],
) -> dict[str, nn.Module]:
    """Our reconstruction, from before the released network was found: one feature of every modality is translated,
    the deepest of pyramids, whose finer levels are the mean over the streams; by blocks of MSH-Net's kind, with its
    loss on logits.

    Args:
        hallucination: `pair`: every H_{u→n} is a network of its own on x_u, with the target's encoder (the
            paper's); `source`: one for each u, with a projection to each n (for two modalities of like
            encoders the same); `head`: two layers on the features of E_u.
        aggregation: `cross_translation`, or `concat` by the same layers (an ablation).
        hidden: widths of the fusion head's layers.
    """
    maps, width = method.task.dense, max(method.widths.values())
    projections = nn.ModuleDict(
        {m: PointwiseLinear(w, width) if w != width else nn.Identity() for m, w in method.widths.items()}
    )
    restored = partial(
        hallucinate,
        kind=hallucination,
        spec=method.spec,
        encoder=encoder,
        width=width,
        pool=method.task.pool,
        skip_widths=getattr(next(iter(method.encoders.values())), "skip_widths", None),
    )
    adaptation = adapt(
        head=lambda n: method.task.head(width),
        hallucinate=restored,
        view=lambda n: nn.Identity(),
        thorough=False,
    )
    translate = aggregation == "cross_translation"
    translation = CrossTranslation(method.modalities, width, maps=maps, translate=translate)
    widths = [translation.width, *hidden]
    layers = nn.Sequential(*(Layer(a, b, maps=maps) for a, b in pairwise(widths)))
    return {
        "projections": projections,
        "joint_adaptation": adaptation,
        "translation": translation,
        "hidden": layers,
        "head": method.task.head(widths[-1]),
    }

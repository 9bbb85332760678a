"""Published losses as pure functions of tensors.

N or B counts rows: samples, or the places of a map taken as samples. Features of more than two dimensions are
flattened behind the rows. In every distillation loss the teacher's side is a constant: no gradient reaches it. No
finite input gives NaN, neither as value nor as gradient; what is too large for its type may give infinity.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Relations between samples


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """SP: mean squared difference of the row-normalised Gram matrices of two feature spaces.

    Args:
        student: (N, ...); teacher: (N, ...), whose rows may have another size.

    Source: Tung & Mori, ICCV 2019, arXiv 1907.09682, the mean over all N x N entries. A row without any norm
    has similarity 0 to all and no gradient.
    """
    return _relation_gaps(_scaled(student), _scaled(teacher.detach())).mean()


def margin_aware_distillation(
    student: Tensor,
    teacher: Tensor,
    teacher_logits: Tensor,
    *,
    axis: str = "row",
    chunk: int | None = None,
) -> Tensor:
    """MAD: relation distillation in which samples near the teacher's decision boundary count more.

    The squared differences of the row-normalised Gram matrices are weighted by `margin_weights` and summed, not
    averaged: with uniform entropy it is N times `similarity_preserving`.

    Args:
        student: (N, ...); teacher: (N, ...), whose rows may have another size.
        teacher_logits: (N, C).
        axis: `row` weighs a sample's relations to all others; `column`, as the released classification code
            does, all others' relations to it (the matrix is not symmetric).
        chunk: rows of the Gram matrices computed at a time, again in the backward pass, so that memory grows
            with N and not with N squared; same value and gradient. None: all at once.

    Source: MMANet (Wei et al., CVPR 2023, arXiv 2304.08028) and its released code.
    """
    if axis not in ("row", "column"):
        raise ValueError(f"axis={axis!r} is not known; choose row or column")
    student, teacher = _scaled(student), _scaled(teacher.detach())
    weights = margin_weights(teacher_logits).to(student.dtype)

    def part(student: Tensor, rows: slice) -> Tensor:
        gaps = _relation_gaps(student, teacher, rows)
        return (gaps * (weights[rows, None] if axis == "row" else weights)).sum()

    if chunk is None or chunk >= len(student):
        return part(student, slice(None))
    parts = [
        checkpoint(part, student, slice(start, start + chunk), use_reentrant=False, preserve_rng_state=False)
        for start in range(0, len(student), chunk)
    ]
    return torch.stack(parts).sum()


def margin_weights(teacher_logits: Tensor) -> Tensor:
    """Entropy of the teacher's prediction (N, C), divided by its sum: (N,); all 0 where it is sure of everything.

    Source: MMANet; released as p log p, which is NaN where a probability underflows.
    """
    entropy = torch.special.entr(_rows(teacher_logits.detach()).softmax(1)).sum(1)
    return entropy / (entropy.sum() + 1e-12)


def probabilistic_knowledge_transfer(student: Tensor, teacher: Tensor, *, epsilon: float = 1e-6) -> Tensor:
    """PKT: divergence between the teacher's and the student's probabilities that samples are neighbours.

    Args:
        student: (N, ...); teacher: (N, ...), whose rows may have another size.

    Source: Passalis & Tefas, ECCV 2018, arXiv 1803.10837, with the cosine kernel shifted to [0, 1]; the mean
    over all N x N entries, as its authors' code.
    """
    theirs, ours = (_neighbours(_cosines(x)) + epsilon for x in (teacher.detach(), student))
    return ((theirs - epsilon) * (theirs.log() - ours.log())).mean()


def similarity_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """DAD: mean squared difference of the cosine similarities between all samples.

    Args:
        student: (N, ...); teacher: (N, ...), whose rows may have another size.

    Source: the discrepancy-aware distillation baseline of MMANet's released code.
    """
    return F.mse_loss(_cosines(student), _cosines(teacher.detach()))


def _relation_gaps(student: Tensor, teacher: Tensor, rows: slice = slice(None)) -> Tensor:
    """Squared differences of some rows of both row-normalised Gram matrices, (R, N)."""
    ours, theirs = (_normalised(_product(x[rows], x)) for x in (student, teacher))
    return (ours - theirs) ** 2


def _cosines(features: Tensor) -> Tensor:
    rows = _rows(features)
    unit = _normalised(rows / _size(rows, dim=1))
    return _product(unit, unit)


def _neighbours(cosines: Tensor) -> Tensor:
    shifted = (cosines + 1).clamp(min=0) / 2
    return shifted / shifted.sum(1, keepdim=True)


def _rows(features: Tensor) -> Tensor:
    """(N, ...) as (N, D), in single precision at least."""
    rows = features.flatten(1)
    return rows if rows.dtype == torch.float64 else rows.float()


def _size(x: Tensor, dim: int | tuple[int, ...], least: float = 1e-30) -> Tensor:
    """Largest magnitude, a constant: what does not depend on scale is divided by it, so that no square overflows."""
    return x.detach().abs().amax(dim, keepdim=True).clamp(min=least)


def _scaled(features: Tensor) -> Tensor:
    rows = _rows(features)
    return rows / _size(rows, (0, 1))


def _normalised(rows: Tensor) -> Tensor:
    """Rows of length 1; a row shorter than 1e-12 becomes 0 and has no gradient (it would be 1e12 and more)."""
    length = rows.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-12, rows / length.clamp(min=1e-12), 0)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """All inner products of rows, (N, K), in the rows' own type where autocast chose a lower one."""
    return (a @ b.T).to(a.dtype)


# Features and logits of one sample


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """FitNet's hint: mean squared difference of features of the same shape.

    Source: Romero et al., ICLR 2015, arXiv 1412.6550.
    """
    _check_shapes(student, teacher)
    return F.mse_loss(student, teacher.detach())


def attention_transfer(student: Tensor, teacher: Tensor, *, power: float = 2.0) -> Tensor:
    """AT: mean squared difference of where the channels of two maps are active.

    Args:
        student: (B, D, ...); teacher: (B, E, ...) with the same places. A vector (B, D) has no places:
            its entries take their role, so that D = E and the magnitude of every entry counts.
        power: of the absolute values summed over the channels, at least 1.

    Source: Zagoruyko & Komodakis, ICLR 2017, arXiv 1612.03928; maps are divided by their norm + 1e-6.
    """
    if power < 1:
        raise ValueError(f"power={power}, expected at least 1: below it the gradient at 0 is infinite")
    ours, theirs = _attention(student, power), _attention(teacher.detach(), power)
    _check_shapes(ours, theirs)
    return F.mse_loss(ours, theirs)


def _attention(features: Tensor, power: float) -> Tensor:
    rows = features if features.dtype == torch.float64 else features.float()
    maps = rows.flatten(2) if features.dim() > 2 else rows[:, None]  # (B, D, places)
    maps = (maps / _size(maps, (1, 2), least=1.0)).abs().pow(power).sum(1)
    return maps / (maps.norm(dim=1, keepdim=True) + 1e-6)


def soft_targets(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 2.0) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over rows; 0 without rows.

    Args:
        student_logits, teacher_logits: (B, C) or (B, C, ...), whose places are further rows.

    Source: Hinton et al., 2015, arXiv 1503.02531.
    """
    ours, theirs = (_log_probabilities(x / temperature) for x in (student_logits, teacher_logits.detach()))
    divergence = (theirs.exp() * (theirs - ours)).sum(1)
    return temperature**2 * divergence.sum() / max(divergence.numel(), 1)


def _log_probabilities(logits: Tensor) -> Tensor:
    limit = torch.finfo(logits.dtype).max / 4  # so that no difference overflows
    return logits.clamp(-limit, limit).log_softmax(1)


def logit_distillation(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean squared difference of logits. Source: Ba & Caruana, NIPS 2014, arXiv 1312.6184."""
    _check_shapes(student_logits, teacher_logits)
    return F.mse_loss(student_logits, teacher_logits.detach())


def _check_shapes(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must have the same shape"
        )


# Distributions


def gaussian_kl(mean: Tensor, log_variance: Tensor, *, prior_variance: float | Tensor = 1.0) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, prior_variance)), summed over dimensions, averaged over the batch.

    Args:
        mean: (B, D) or (B, D, ...): a map's places are further samples, as in DMRNet's segmentation code.
        log_variance: the same shape.
        prior_variance: broadcasts over `mean`.

    Source: DMRNet (Wei et al., ECCV 2024), its KL term.
    """
    prior = mean.new_tensor(prior_variance) if isinstance(prior_variance, float | int) else prior_variance
    terms = (log_variance.exp() + mean**2) / prior - log_variance + prior.log() - 1
    return 0.5 * terms.sum(1).mean()


def maximum_mean_discrepancy(
    source: Tensor, target: Tensor, *, kernels: int = 5, ratio: float = 2.0
) -> Tensor:
    """Squared distance of two samples' mean embeddings under a sum of Gaussian kernels; 0 without rows.

    With X = [source; target], n = 2B and b = sum_ij |x_i - x_j|^2 / (n^2 - n) / ratio^(kernels // 2), a constant,
    the kernel is the sum over k < kernels of exp(-|x - y|^2 / (b ratio^k)). The estimate is the biased quadratic
    one, mean_ij(K_ss + K_tt - K_st - K_ts), from 0 to 2 * kernels. It is computed from a Gram matrix: (2B, 2B) at
    most. The terms couple the rows of one rank.

    Args:
        source: (B, ...); target: (B, ...) of the same shape.

    Raises:
        ValueError: they differ in shape.

    Source: the joint adaptation loss of MSH-Net's released code (Wei et al., TGRS), after Long et al., ICML
    2015, arXiv 1502.02791.
    """
    if source.shape != target.shape:
        raise ValueError(
            f"source {tuple(source.shape)} and target {tuple(target.shape)} must have the same shape: the "
            "estimate pairs batches of equal size"
        )
    count = len(source)
    if count == 0:
        return source.sum() + target.sum()
    rows = _scaled(torch.cat([_rows(source), _rows(target)]))
    rows = rows - rows.detach().mean(0)
    rows = rows / _size(
        rows, (0, 1)
    )  # neither position nor scale matters; small differences keep their digits
    products = _product(rows, rows)
    squares = products.diagonal()
    distances = (squares[:, None] + squares - 2 * products).clamp(min=0)
    bandwidth = distances.detach().sum() / (4 * count**2 - 2 * count) / ratio ** (kernels // 2)
    bandwidth = bandwidth.clamp(min=1e-30)  # all rows are the same
    kernel = torch.stack([(-distances / (bandwidth * ratio**k)).exp() for k in range(kernels)]).sum(0)
    sign = torch.ones(2 * count, dtype=rows.dtype, device=rows.device)
    sign[count:] = -1
    return (kernel * sign * sign[:, None]).sum() / count**2


def joint_adaptation(
    student: Tensor,
    teacher: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    alpha: float,
    beta: float,
    temperature: float = 2.0,
) -> Tensor:
    """Bring the joint distribution of features and labels closer to the teacher's: P(F, Y) = P(F) P(Y | F).

    alpha * `maximum_mean_discrepancy` of the features + beta * `soft_targets` of the logits.

    Args:
        student, teacher: (B, ...) of the same shape.
        student_logits, teacher_logits: (B, C).

    Source: MSH-Net's released code; taken to be the joint adaptation of one-stage modality distillation by the
    same authors, whose paper was not at hand.
    """
    marginal = maximum_mean_discrepancy(student, teacher.detach())
    return alpha * marginal + beta * soft_targets(student_logits, teacher_logits, temperature=temperature)


# Fusion weights


def inverse_variance_weights(
    std: Tensor, reliance: Tensor, available: Tensor, *, rule: str = "inverse_variance"
) -> Tensor:
    """How much each modality counts: more if its noise is low and if the network relies on it little.

    w_m is proportional to 1 / (std_m^2 reliance_m) (`inverse_variance`) or to the sum of the other available
    modalities' std^2 over reliance_m (`cross_sum`); for two modalities they are the same. The available weights
    sum to their number, absent ones are 0.

    Args:
        std: (B, M), positive; undefined where the modality is absent.
        reliance: (M,), positive.
        available: (B, M) bool.
        rule: `inverse_variance` or `cross_sum`.

    Returns:
        (B, M).

    Source: UDML's released code for two modalities; `inverse_variance` is its form for any number.
    """
    smallest = torch.finfo(std.dtype).tiny
    log_variance = 2 * torch.where(available, std, 1).clamp(min=smallest).log()
    if rule == "inverse_variance":
        scores = -log_variance
    elif rule == "cross_sum":
        alone = torch.eye(std.shape[1], dtype=torch.bool, device=std.device)
        others = available[:, None] & ~alone  # (B, M, M)
        scores = torch.where(others, log_variance[:, None], -1e4).logsumexp(2)  # -1e4: nobody else is there
    else:
        raise ValueError(f"rule={rule!r} is not known; choose inverse_variance or cross_sum")
    scores = scores - reliance.clamp(min=smallest).log()
    shares = scores.masked_fill(~available, torch.finfo(scores.dtype).min).softmax(1)
    return torch.where(available, shares, 0) * available.sum(1, keepdim=True)

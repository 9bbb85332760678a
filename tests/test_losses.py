"""Losses against independent formulas and published limits."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck
from torch.distributions import Independent, Normal, kl_divergence

from mmrobust.losses import (
    attention_transfer,
    gaussian_kl,
    hint,
    inverse_variance_weights,
    joint_adaptation,
    logit_distillation,
    margin_aware_distillation,
    margin_weights,
    maximum_mean_discrepancy,
    probabilistic_knowledge_transfer,
    similarity_distillation,
    similarity_preserving,
    soft_targets,
)


def gaussians(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = (torch.randn(*shape, dtype=dtype, generator=generator) for _ in range(2))
    return mean, log_variance


@pytest.mark.parametrize("prior", [1.0, 4.0, 0.25, 3])
def test_gaussian_kl_is_the_divergence(prior: float) -> None:
    mean, log_variance = gaussians(5, 7)
    ours = Independent(Normal(mean, (0.5 * log_variance).exp()), 1)
    standard = Independent(Normal(torch.zeros(5, 7).double(), torch.full((5, 7), prior**0.5).double()), 1)
    expected = kl_divergence(ours, standard).mean()
    torch.testing.assert_close(gaussian_kl(mean, log_variance, prior_variance=prior), expected)


def test_gaussian_kl_golden_value() -> None:
    """mu = 0.5, s2 = 2, t = 4: (ln 2 + 2.25 / 4 - 1) / 2 for each dimension."""
    mean, log_variance = torch.full((2, 3), 0.5), torch.full((2, 3), 2.0).log()
    value = gaussian_kl(mean, log_variance, prior_variance=4.0)
    assert value.item() == pytest.approx(3 * 0.127824, abs=1e-5)


def test_gaussian_kl_is_zero_at_the_prior_only() -> None:
    assert gaussian_kl(torch.zeros(4, 3), torch.zeros(4, 3)).item() == 0
    prior = torch.tensor([0.5, 2.0, 7.0])
    assert abs(gaussian_kl(torch.zeros(4, 3), prior.log().expand(4, 3), prior_variance=prior).item()) < 1e-6
    mean, log_variance = gaussians(100, 1)
    assert all(gaussian_kl(m[None], v[None]) > 0 for m, v in zip(mean, log_variance, strict=True))


def test_a_prior_per_dimension() -> None:
    mean, log_variance = gaussians(6, 2)
    prior = torch.tensor([0.5, 3.0], dtype=torch.float64)
    both = gaussian_kl(mean, log_variance, prior_variance=prior)
    each = [gaussian_kl(mean[:, [i]], log_variance[:, [i]], prior_variance=prior[i].item()) for i in range(2)]
    torch.testing.assert_close(both, each[0] + each[1])


def test_places_of_a_map_are_further_samples() -> None:
    mean, log_variance = gaussians(2, 3, 4, 5)
    rows = (x.movedim(1, -1).flatten(0, 2) for x in (mean, log_variance))
    torch.testing.assert_close(gaussian_kl(mean, log_variance), gaussian_kl(*rows))


def test_gradients() -> None:
    mean, log_variance = (x.requires_grad_() for x in gaussians(3, 2))
    prior = torch.tensor([0.5, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda m, v, p: gaussian_kl(m, v, prior_variance=p), (mean, log_variance, prior)
    )


def draws(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in shapes]


# Relations between samples


def gaps(student: Tensor, teacher: Tensor) -> Tensor:
    """D of the specification, entry by entry."""
    n = len(student)
    grams = [
        [[float(x[i].flatten() @ x[j].flatten()) for j in range(n)] for i in range(n)]
        for x in (student, teacher)
    ]
    s, t = ([[g / math.hypot(*row) for g in row] for row in gram] for gram in grams)
    return torch.tensor([[(s[i][j] - t[i][j]) ** 2 for j in range(n)] for i in range(n)]).double()


def entropies(logits: Tensor) -> Tensor:
    return torch.distributions.Categorical(logits=logits).entropy()


def test_relations_by_hand() -> None:
    """Student rows (1, 0), (1, 0) are the same, the teacher's (1, 0), (0, 1) have nothing in common.

    Row-normalised: all entries 1 / sqrt 2 against the identity. D is (1 - 1/sqrt 2)^2 on the diagonal and 1/2 off it.
    """
    student, teacher = torch.tensor([[1.0, 0], [1, 0]]), torch.eye(2)
    near, far = (1 - 0.5**0.5) ** 2, 0.5
    assert similarity_preserving(student, teacher).item() == pytest.approx((near + far) / 2)
    logits = torch.tensor([[0.0, 0.0], [50.0, 0.0]])  # the second sample is beyond doubt
    assert margin_aware_distillation(student, teacher, logits).item() == pytest.approx(near + far)


@pytest.mark.parametrize("chunk", [None, 1, 3, 6, 100])
@pytest.mark.parametrize("axis", ["row", "column"])
def test_margin_aware_distillation_is_the_weighted_sum(axis: str, chunk: int | None) -> None:
    student, teacher, logits = draws((6, 3, 2), (6, 5), (6, 4))
    weights = entropies(3 * logits) / entropies(3 * logits).sum()
    weighted = gaps(student, teacher) * (weights[:, None] if axis == "row" else weights[None])
    found = margin_aware_distillation(student, teacher, 3 * logits, axis=axis, chunk=chunk)
    torch.testing.assert_close(found, weighted.sum(), rtol=1e-5, atol=1e-7)


def test_rows_and_columns_differ() -> None:
    student, teacher, logits = draws((6, 3), (6, 5), (6, 4))
    row, column = (margin_aware_distillation(student, teacher, 3 * logits, axis=a) for a in ("row", "column"))
    assert abs(row - column) > 1e-3


@pytest.mark.parametrize("axis", ["row", "column"])
def test_uniform_entropy_is_similarity_preserving(axis: str) -> None:
    student, teacher = draws((7, 3), (7, 5))
    found = margin_aware_distillation(student, teacher, torch.zeros(7, 4), axis=axis)
    torch.testing.assert_close(found, 7 * similarity_preserving(student, teacher))
    torch.testing.assert_close(similarity_preserving(student, teacher), gaps(student, teacher).mean())


@pytest.mark.parametrize("factor", [1e-10, 0.3, 1e15])
def test_rescaled_features_have_the_same_relations(factor: float) -> None:
    (x,) = draws((5, 4))
    x, logits = x.float(), torch.randn(5, 3)
    for loss in (similarity_preserving, probabilistic_knowledge_transfer, similarity_distillation):
        assert loss(factor * x, x).item() == pytest.approx(0, abs=1e-6)
    assert margin_aware_distillation(factor * x, x, logits).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("axis", ["row", "column"])
def test_chunks_have_the_same_gradient(axis: str) -> None:
    student, teacher, logits = draws((10, 4), (10, 4), (10, 3))
    gradients = []
    for chunk in (None, 3):
        x = student.clone().requires_grad_()
        margin_aware_distillation(x, teacher, logits, axis=axis, chunk=chunk).backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


def test_chunks_keep_no_large_tensor_for_the_backward_pass() -> None:
    def largest(chunk: int | None) -> int:
        sizes = []

        def pack(x: Tensor) -> Tensor:
            sizes.append(x.numel())
            return x

        student = torch.randn(200, 4, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            margin_aware_distillation(student, torch.randn(200, 4), torch.randn(200, 3), chunk=chunk)
        return max(sizes)

    assert largest(None) >= 200 * 200
    assert largest(10) <= 200 * 4


def test_margin_weights_grow_as_the_margin_shrinks() -> None:
    margins = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0])
    weights = margin_weights(torch.stack([margins, torch.zeros(5)], 1))
    assert (weights.diff() > 0).all()
    assert weights.sum().item() == pytest.approx(1)


def test_unknown_axis() -> None:
    with pytest.raises(ValueError, match="choose row or column"):
        margin_aware_distillation(torch.eye(2), torch.eye(2), torch.eye(2), axis="rows")


def test_pkt_by_hand() -> None:
    """Cosines 1, 0 -> 1, 1/2 -> 2/3, 1/3 for the teacher; the same and the same -> 1/2, 1/2 for the student."""
    student, teacher = torch.tensor([[1.0, 0], [2, 0]]), torch.tensor([[3.0, 0], [0, 1]])
    expected = (2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)) / 2
    assert probabilistic_knowledge_transfer(student, teacher).item() == pytest.approx(expected, abs=1e-5)
    assert similarity_distillation(student, teacher).item() == pytest.approx(0.5)


# Features and logits of one sample


def test_attention_by_hand() -> None:
    """Two channels, two places: sums of squares (25, 0) and (1, 1), normalised (1, 0) and (1, 1) / sqrt 2."""
    student = torch.tensor([[[3.0, 0], [4, 0]]])
    teacher = torch.tensor([[[1.0, 0], [0, -1]]])
    expected = ((1 - 0.5**0.5) ** 2 + 0.5) / 2
    assert attention_transfer(student, teacher).item() == pytest.approx(expected, abs=1e-5)
    more_channels = torch.cat([teacher, teacher], 1)
    assert attention_transfer(student, more_channels).item() == pytest.approx(expected, abs=1e-5)


def test_attention_of_vectors_compares_entries() -> None:
    student, teacher = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, -2.0]])
    assert attention_transfer(student, teacher).item() == pytest.approx(1, abs=1e-5)
    assert attention_transfer(student, -5 * student).item() == pytest.approx(0, abs=1e-6)


def test_soft_targets() -> None:
    student, teacher = torch.tensor([[1.0, 0, -1]]), torch.tensor([[2.0, 0, 0]])
    assert soft_targets(student, teacher).item() == pytest.approx(0.0914167, abs=1e-6)
    student, teacher = draws((4, 3, 2), (4, 3, 2))
    rows = [x.movedim(1, -1).flatten(0, 1) for x in (student, teacher)]
    expected = 9 * F.kl_div(
        (rows[0] / 3).log_softmax(1), (rows[1] / 3).log_softmax(1), log_target=True, reduction="batchmean"
    )
    torch.testing.assert_close(soft_targets(student, teacher, temperature=3), expected)
    assert soft_targets(torch.zeros(0, 3), torch.zeros(0, 3)).item() == 0


def test_hint_and_logits_are_mean_squares() -> None:
    student, teacher = torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[1.0, 0], [0, 4]])
    assert hint(student, teacher).item() == logit_distillation(student, teacher).item() == 13 / 4
    for loss in (hint, logit_distillation, attention_transfer):
        with pytest.raises(ValueError, match="must have the same shape"):
            loss(student, torch.zeros(2, 3))


# Distributions


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ([[0, 0], [1, 0]], [[0, 1], [2, 2]], 3.148315),
        ([[0, 0], [1, 0], [0, 2]], [[0, 1], [2, 2], [1, 1]], 1.659507),
    ],
)
def test_maximum_mean_discrepancy_golden_values(source: Any, target: Any, expected: float) -> None:
    s, t = (torch.tensor(x, dtype=torch.float32) for x in (source, target))
    assert maximum_mean_discrepancy(s, t).item() == pytest.approx(expected, abs=1e-5)
    assert maximum_mean_discrepancy(t, s).item() == pytest.approx(expected, abs=1e-5)
    moved = maximum_mean_discrepancy(1e-3 * s + 5, 1e-3 * t + 5)  # by translation and scale nothing changes
    assert moved.item() == pytest.approx(expected, abs=1e-2)
    assert maximum_mean_discrepancy(s, s).item() == pytest.approx(0, abs=1e-6)


def plain_mmd(s: Tensor, t: Tensor, bandwidth: Tensor, kernels: int, ratio: float) -> Tensor:
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        distance = ((a[:, None] - b[None]) ** 2).sum(2)
        return sum((-distance / (bandwidth * ratio**k)).exp() for k in range(kernels))  # type: ignore[return-value]

    return (kernel(s, s) + kernel(t, t) - 2 * kernel(s, t)).mean()


@pytest.mark.parametrize(("kernels", "ratio"), [(5, 2.0), (3, 1.5), (1, 2.0)])
def test_maximum_mean_discrepancy_and_its_gradient(kernels: int, ratio: float) -> None:
    """The bandwidth is a constant, so that finite differences would not tell."""
    s, t = (x.requires_grad_() for x in draws((4, 3, 2), (4, 3, 2)))
    flat = torch.cat([s, t]).flatten(1)
    distances = ((flat[:, None] - flat[None]) ** 2).sum(2)
    bandwidth = (distances.sum() / (64 - 8)).detach() / ratio ** (kernels // 2)
    expected = plain_mmd(s.flatten(1), t.flatten(1), bandwidth, kernels, ratio)
    found = maximum_mean_discrepancy(s, t, kernels=kernels, ratio=ratio)
    torch.testing.assert_close(found, expected)
    for mine, plain in zip(
        torch.autograd.grad(found, (s, t)), torch.autograd.grad(expected, (s, t)), strict=True
    ):
        torch.testing.assert_close(mine, plain)


def test_maximum_mean_discrepancy_needs_equal_batches() -> None:
    with pytest.raises(ValueError, match=r"source \(3, 2\) and target \(2, 2\)"):
        maximum_mean_discrepancy(torch.zeros(3, 2), torch.zeros(2, 2))
    assert maximum_mean_discrepancy(torch.zeros(0, 2), torch.zeros(0, 2)).item() == 0


def test_joint_adaptation() -> None:
    student, teacher, student_logits, teacher_logits = (
        x.requires_grad_() for x in draws((4, 3), (4, 3), (4, 2), (4, 2))
    )
    marginal = maximum_mean_discrepancy(student, teacher)
    conditional = soft_targets(student_logits, teacher_logits, temperature=3)
    found = joint_adaptation(student, teacher, student_logits, teacher_logits, alpha=2, beta=5, temperature=3)
    torch.testing.assert_close(found, 2 * marginal + 5 * conditional)
    found.backward()
    assert teacher.grad is None
    assert teacher_logits.grad is None
    assert student.grad is not None
    assert student_logits.grad is not None


# Fusion weights


def weights(
    std: list[float], reliance: list[float], *absent: int, rule: str = "inverse_variance"
) -> list[float]:
    available = torch.ones(1, len(std), dtype=torch.bool)
    available[0, list(absent)] = False
    found = inverse_variance_weights(
        torch.tensor([std]).float(), torch.tensor(reliance).float(), available, rule=rule
    )
    return list(found[0].tolist())


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (weights([2, 5], [30, 10]), [1.351351, 0.648649]),
        (weights([2, 5], [30, 10], rule="cross_sum"), [1.351351, 0.648649]),
        (weights([1, 1], [30, 10]), [0.5, 1.5]),
        (weights([1, 2, 4], [30, 20, 10]), [1.92, 0.72, 0.36]),
        (weights([1, 2, 4], [30, 20, 10], rule="cross_sum"), [0.991736, 1.264463, 0.743802]),
        (weights([2, torch.nan, 5], [30, 1, 10], 1), [1.351351, 0, 0.648649]),
        (weights([2, torch.nan, 5], [30, 1, 10], 1, rule="cross_sum"), [1.351351, 0, 0.648649]),
        (weights([2, 3], [30, 10], 0), [0, 1]),
        (weights([2, 3], [30, 10], 0, rule="cross_sum"), [0, 1]),
        (weights([1, 2, 4], [30, 20, 10], 0, 2, rule="cross_sum"), [0, 1, 0]),
        (weights([7], [3]), [1]),
        (weights([7], [3], rule="cross_sum"), [1]),
        (weights([3, 3, 3], [2, 2, 2]), [1, 1, 1]),
        (weights([3, 3], [2, 2], 0, 1), [0, 0]),
    ],
)
def test_inverse_variance_weights(found: list[float], expected: list[float]) -> None:
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("rule", ["inverse_variance", "cross_sum"])
@pytest.mark.parametrize("values", [(0.0, 0.0), (0.0, 1.0), (1e-38, 1e38), (3e38, 3e38)])
def test_weights_at_extremes(values: tuple[float, float], rule: str) -> None:
    std = torch.tensor([[*values, torch.nan]], requires_grad=True)
    found = inverse_variance_weights(
        std, torch.tensor([0.0, 1.0, 1.0]), torch.tensor([[True, True, False]]), rule=rule
    )
    assert found.sum().item() == pytest.approx(2, abs=1e-5)
    found[0, 0].backward()
    assert std.grad is not None
    assert not std.grad.isnan().any()


def test_unknown_rule() -> None:
    with pytest.raises(ValueError, match="choose inverse_variance or cross_sum"):
        weights([1, 1], [1, 1], rule="sum")


# All of them: gradients, and no NaN anywhere

PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sp": similarity_preserving,
    "mad": lambda s, t: margin_aware_distillation(s, t, t),
    "mad by columns, chunks": lambda s, t: margin_aware_distillation(s, t, t, axis="column", chunk=2),
    "pkt": probabilistic_knowledge_transfer,
    "dad": similarity_distillation,
    "hint": hint,
    "at": attention_transfer,
    "soft targets": soft_targets,
    "logits": logit_distillation,
    "mmd": maximum_mean_discrepancy,
    "kl": gaussian_kl,
}

EXTREMES = {
    "zeros": torch.zeros(4, 3),
    "the same rows": torch.full((4, 3), 0.7),
    "a zero row": torch.tensor([[0.0, 0, 0], [1, 2, 3], [4, 5, 6], [0, 0, 0]]),
    "huge": torch.tensor([[3e38, -3e38, 0], [1e30, 0, 1], [0, -3e38, 1], [1, 2, 3]]),
    "tiny": torch.full((4, 3), 1e-40),
    "mixed": torch.tensor([[1e-40, 0, 0], [3e38, 1, 1], [0, 0, 1e-20], [1, -1, 1]]),
    "certain": torch.tensor([[200.0, 0, 0], [0, 200, 0], [0, 0, 200], [200, 0, 0]]),
}


@pytest.mark.parametrize("name", [name for name in PAIRS if name not in ("mmd", "kl")])
@pytest.mark.parametrize("shape", [(4, 3), (3, 2, 2)])
def test_gradients_are_those_of_the_value(name: str, shape: tuple[int, ...]) -> None:
    if name.startswith("mad") and len(shape) == 3:
        pytest.skip("the teacher's features stand in for its logits, (N, C)")
    student, teacher = draws(shape, shape)
    assert gradcheck(lambda s: PAIRS[name](s, teacher), student.requires_grad_())
    teacher = teacher.requires_grad_()
    PAIRS[name](student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("rule", ["inverse_variance", "cross_sum"])
def test_gradients_of_weights(rule: str) -> None:
    std, reliance = (x.abs() + 0.5 for x in draws((5, 3), (3,)))
    available = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 1, 1]]).bool()
    assert gradcheck(
        lambda s, r: inverse_variance_weights(s, r, available, rule=rule),
        (std.requires_grad_(), reliance.requires_grad_()),
    )


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("teacher", EXTREMES)
@pytest.mark.parametrize("student", EXTREMES)
def test_no_nan_at_finite_inputs(student: str, teacher: str, name: str) -> None:
    x = EXTREMES[student].clone().requires_grad_()
    value = PAIRS[name](x, EXTREMES[teacher])
    assert not value.isnan()
    value.backward()
    assert x.grad is not None
    assert not x.grad.isnan().any()
    if name not in ("hint", "logits", "kl", "soft targets"):  # what does not depend on scale is bounded
        assert value.isfinite()


@pytest.mark.parametrize("name", ["sp", "mad", "pkt", "dad", "mmd"])
def test_degenerate_rows_have_small_gradients(name: str) -> None:
    """Not 1e12, which the row's length below its bound would give."""
    x = EXTREMES["a zero row"].clone().requires_grad_()
    PAIRS[name](x, torch.eye(4)[:, :3]).backward()
    assert x.grad is not None
    assert x.grad.abs().max() < 10


@pytest.mark.parametrize("name", ["sp", "mad", "pkt", "dad", "at", "mmd", "soft targets"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(name: str, dtype: torch.dtype) -> None:
    x = EXTREMES["a zero row"].to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        value = PAIRS[name](x, torch.randn(4, 3).to(dtype))
    value.backward()
    assert value.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()

"""What every method must fulfil."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from mmrobust.batch import Batch
from mmrobust.combinations import combination_masks, combination_name
from mmrobust.data.spec import DataSpec
from mmrobust.evaluation.combinations import stacked
from mmrobust.methods.base import Method
from mmrobust.models.encoders import running_statistics
from mmrobust.testing.made_up import fill_absent, make_batch


def check_method(build: Callable[[DataSpec], Method], spec: DataSpec) -> None:
    """Check a method on made-up data.

    Args:
        build: makes the method for a dataset, with weights drawn from torch's generator.
        spec: see `describe_data`; check M = 2 and M = 3.
    """
    for _, check in method_checks(build, spec):
        check()


def method_checks(
    build: Callable[[DataSpec], Method], spec: DataSpec
) -> Iterator[tuple[str, Callable[[], None]]]:
    """The checks of `check_method`, each with what it shows."""
    torch.manual_seed(0)
    method = build(spec)
    yield "losses are finite and reach every parameter", partial(_check_losses, method, spec)
    yield "the content of what is absent changes nothing", partial(_check_absence, method, spec)
    yield "predictions are fixed and blind to what is hidden", partial(_check_predictions, method, spec)
    yield "stacked combinations equal single ones", partial(_check_stacking, method, spec)
    yield "a sample does not depend on its batch", partial(_check_single, method, spec)
    yield "its state can be saved and restored", partial(_check_state, method, build, spec)


def step(method: Method, batch: Batch, *, seed: int = 0) -> dict[str, Tensor]:
    """One training step without an optimiser: the terms of all its updates, gradients added up in `.grad`."""
    method.train()
    method.zero_grad()
    torch.manual_seed(seed)
    terms: dict[str, Tensor] = {}
    for i, update in enumerate(method.updates(batch)):
        torch.stack(list(update.values())).sum().backward()
        terms |= {name if i == 0 else f"{name} of update {i}": term.detach() for name, term in update.items()}
    return terms


def _gradients(method: Method) -> dict[str, Tensor | None]:
    return {
        n: None if p.grad is None else p.grad.clone() for n, p in method.named_parameters() if p.requires_grad
    }


def _check_losses(method: Method, spec: DataSpec) -> None:
    for complete in (True, False):
        terms = step(method, make_batch(spec, complete=complete))
        assert terms, "losses() returned no term"
        for name, term in terms.items():
            assert isinstance(name, str), f"the term {name!r} has no name"
            assert term.dim() == 0, f"the term {name!r} has shape {tuple(term.shape)}; reduce it to a scalar"
            assert term.isfinite(), f"the term {name!r} is {term.item()} on a batch of random numbers"
        for name, gradient in _gradients(method).items():
            assert gradient is not None, (
                f"the parameter {name} got no gradient (complete batch: {complete}): under DDP that fails; use it, "
                "freeze it or leave it out"
            )
            assert gradient.isfinite().all(), f"the gradient of {name} is not finite"
    # one modality is absent from the whole batch
    batch = make_batch(spec)
    available = batch.available.clone()
    available[:, 0] = False
    for name, term in step(method, batch.with_available(available)).items():
        assert term.isfinite(), f"the term {name!r} is {term.item()} when a modality is absent everywhere"
    for name, gradient in _gradients(method).items():
        assert gradient is not None, (
            f"the parameter {name} got no gradient when a modality is absent everywhere"
        )
        assert gradient.isfinite().all(), f"the gradient of {name} is not finite when a modality is absent"


def _check_absence(method: Method, spec: DataSpec) -> None:
    batch = make_batch(spec, complete=False, seed=1)
    seen = []
    for value in (0.0, torch.nan):
        filled = fill_absent(batch, value)
        state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
        try:
            terms = step(method, filled)
        finally:
            method.load_state_dict(state)
        gradients = _gradients(method)
        with torch.no_grad():
            logits = method.eval()(filled).logits
        seen.append((terms, gradients, logits))
    (terms_0, gradients_0, logits_0), (terms_1, gradients_1, logits_1) = seen
    assert torch.equal(logits_0, logits_1), "the content of absent inputs changes the prediction"
    for name, term in terms_0.items():
        assert torch.equal(term, terms_1[name]), f"the content of absent inputs changes the term {name!r}"
    for name, gradient in gradients_0.items():
        other = gradients_1[name]
        same = gradient is other if gradient is None or other is None else torch.equal(gradient, other)
        assert same, f"the content of absent inputs changes the gradient of {name}"


def _check_predictions(method: Method, spec: DataSpec) -> None:
    batch = make_batch(spec, complete=False)
    with torch.no_grad():
        first, second = (method.eval()(batch).logits for _ in range(2))
        features = method.encode(batch)
        masks = combination_masks(method.combinations(), method.modalities)
        available = masks[torch.arange(len(batch)) % len(masks)]
        complete = method.encode(make_batch(spec))
        before = method.fuse(complete, available).logits
        hidden = {
            m: apply_to_collection(f, Tensor, lambda x, i=i: _where_rows(available[:, i], x, 1e3))
            for i, (m, f) in enumerate(complete.items())
        }
        after = method.fuse(hidden, available).logits
    assert set(features) == set(spec.modalities), (
        f"encode() gave {list(features)} for {list(spec.modalities)}"
    )
    assert first.shape == (len(batch), spec.num_classes, *method.task.size), (
        f"logits have shape {tuple(first.shape)}"
    )
    assert first.isfinite().all(), "logits are not finite"
    assert torch.equal(first, second), "two predictions in eval mode differ: something is drawn at inference"
    assert torch.allclose(before, after, atol=1e-5), (
        "features that `available` hides change what fuse() returns"
    )


def _where_rows(keep: Tensor, x: Tensor, value: float) -> Tensor:
    return torch.where(keep.reshape(-1, *[1] * (x.dim() - 1)), x, value)


def _check_stacking(method: Method, spec: DataSpec) -> None:
    batch = make_batch(spec)
    masks = combination_masks(method.combinations(), method.modalities)
    with torch.no_grad():
        method.eval()
        together = torch.cat([logits for _, logits in stacked(method, batch, masks)])
        for combination, mask, logits in zip(method.combinations(), masks, together, strict=True):
            alone = method(batch.with_available(mask.expand_as(batch.available))).logits
            error = (alone - logits).abs().max().item()
            assert error < 1e-4, (
                f"{combination_name(combination)}: stacked with the others its logits differ by {error:.2g} from "
                "those of a pass of its own; fuse() must be row-wise in eval mode"
            )


def _check_single(method: Method, spec: DataSpec) -> None:
    batch = make_batch(spec)
    one = batch.select([3])
    with torch.no_grad():
        whole, single = method.eval()(batch).logits[3], method(one).logits[0]
    error = (whole - single).abs().max().item()
    assert error < 1e-4, f"a sample's prediction depends on its batch (differs by {error:.2g} when alone)"
    method.train()
    with running_statistics(method):
        terms = next(iter(method.updates(one)))
    for name, term in terms.items():
        assert term.isfinite(), f"the term {name!r} is {term.item()} for a batch of one"


def _check_state(method: Method, build: Callable[[DataSpec], Method], spec: DataSpec) -> None:
    batch = make_batch(spec, complete=False)
    step(method, batch)
    torch.manual_seed(1)
    other = build(spec)
    other.load_state_dict(method.state_dict())
    with torch.no_grad():
        assert torch.equal(method.eval()(batch).logits, other.eval()(batch).logits), (
            "a method restored from its state predicts otherwise: something it learned is no parameter or buffer"
        )
    first, second = step(method, batch), step(other, batch)
    for name, term in first.items():
        assert torch.equal(term, second[name]), f"after restoring, the term {name!r} differs"

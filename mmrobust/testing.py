"""A conformance kit: what every method and dataset must fulfil, ours and a user's.

    from mmrobust.testing import check_method, describe_data
    check_method(lambda spec: MyMethod(spec=spec, ...), describe_data(num_modalities=3))

Each check raises an AssertionError that says what does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from mmrobust.batch import Batch
from mmrobust.combinations import combination_masks, combination_name, draw_combinations
from mmrobust.data.base import DataModule
from mmrobust.data.spec import KINDS, DataSpec, Modality
from mmrobust.data.split import Key
from mmrobust.evaluation.combinations import stacked
from mmrobust.methods.base import Method
from mmrobust.tasks.registry import build_task


def describe_data(
    *,
    num_modalities: int = 2,
    kinds: Sequence[str] = ("image",),
    task: str = "classification",
    num_classes: int = 4,
) -> DataSpec:
    """The description of made-up data: modalities m1, m2, ..., of the given kinds in turn."""
    modalities = {
        f"m{i + 1}": Modality(kind := kinds[i % len(kinds)], KINDS[kind].example)
        for i in range(num_modalities)
    }
    return DataSpec(task=task, num_classes=num_classes, num_train=64, modalities=modalities)


def make_batch(spec: DataSpec, size: int = 8, *, complete: bool = True, seed: int = 0) -> Batch:
    """A batch of random numbers; incomplete ones have every combination, drawn uniformly."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {m: x.traits.made_up(size, x.shape, generator) for m, x in spec.modalities.items()}
    available = torch.ones(size, len(inputs), dtype=torch.bool)
    index = torch.arange(size)
    return Batch(
        inputs=inputs,
        available=available if complete else draw_combinations(available, index, seed, "made up"),
        target=build_task(spec).example(size, generator),
        noise_level=torch.zeros(size, len(inputs)),
        index=index,
        ids=[f"sample {i}" for i in range(size)],
    )


def check_method(build: Callable[[DataSpec], Method], spec: DataSpec) -> None:
    """Check a method on made-up data.

    Args:
        build: makes the method for a dataset, with weights drawn from torch's generator.
        spec: see `describe_data`; check M = 2 and M = 3.
    """
    torch.manual_seed(0)
    method = build(spec)
    _check_losses(method, spec)
    _check_absence(method, spec)
    _check_predictions(method, spec)
    _check_stacking(method, spec)
    _check_single(method, spec)
    _check_state(method, build, spec)


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


def fill_absent(batch: Batch, value: float) -> Batch:
    """The batch with another content where nothing is available."""
    inputs = {}
    for i, (name, x) in enumerate(batch.inputs.items()):
        inputs[name] = x.clone()
        inputs[name][~batch.available[:, i]] = (
            value if x.is_floating_point() else int(value == value)
        )  # no nan
    return Batch(**{**vars(batch), "inputs": inputs})


def _check_absence(method: Method, spec: DataSpec) -> None:
    batch = make_batch(spec, complete=False, seed=1)
    seen = []
    for value in (0.0, torch.nan):
        filled = fill_absent(batch, value)
        state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
        terms = step(method, filled)
        gradients = _gradients(method)
        method.load_state_dict(state)
        with torch.no_grad():
            logits = method.eval()(filled).logits
        seen.append((terms, gradients, logits))
    (terms_0, gradients_0, logits_0), (terms_1, gradients_1, logits_1) = seen
    assert torch.equal(logits_0, logits_1), "the content of absent inputs changes the prediction"
    for name, term in terms_0.items():
        assert torch.equal(term, terms_1[name]), f"the content of absent inputs changes the term {name!r}"
    for name, gradient in gradients_0.items():
        other = gradients_1[name]
        assert gradient is not None
        assert other is not None
        assert torch.equal(gradient, other), f"the content of absent inputs changes the gradient of {name}"


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
    from mmrobust.models.encoders import running_statistics

    method.train()
    with running_statistics(method):
        terms = step_terms(method, one)
    for name, term in terms.items():
        assert term.isfinite(), f"the term {name!r} is {term.item()} for a batch of one"


def step_terms(method: Method, batch: Batch) -> dict[str, Tensor]:
    """The terms of the first update, in whatever mode the method is."""
    return next(iter(method.updates(batch)))


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


def check_dataset(data: DataModule) -> None:
    """Check a dataset: what it declares, what it gives, that a sample is a function of its key."""
    data.setup()
    spec = data.spec
    assert {"train", "test"} <= set(data.splits), f"splits are {list(data.splits)}; train and test are needed"
    assert spec.num_train == len(data.splits["train"]), "spec.num_train is not the size of the training split"
    names = list(spec.modalities)
    for m, modality in spec.modalities.items():
        assert modality.kind in KINDS, f"{m} is of kind {modality.kind!r}; known are {', '.join(KINDS)}"
    task = build_task(spec)
    owner: dict[str, str] = {}
    for name, split in data.splits.items():
        assert len(set(split.ids)) == len(split.ids) > 0, f"split {name!r} is empty or has an id twice"
        assert split.present.shape == (len(split), len(names)), (
            f"present of {name!r} is not (samples, modalities)"
        )
        for sample_id in split.ids:
            assert owner.setdefault(sample_id, name) == name, (
                f"{sample_id!r} is in {owner[sample_id]!r} and {name!r}"
            )
        for key in (Key(0, 0), Key(0, len(split) - 1), Key(3, len(split) // 2)):
            first, second = split[key], split[key]
            for m, modality in spec.modalities.items():
                a, b = first.inputs[m], second.inputs[m]
                assert (a is None) == (not split.present[key.index, names.index(m)]), (
                    f"{m} of {key} is not as present says"
                )
                if a is None or b is None:
                    continue
                dtype = modality.traits.dtype
                assert a.dtype == dtype, f"{m} is {a.dtype}, not {dtype}".replace("torch.", "")
                assert tuple(a.shape) == tuple(modality.shape), (
                    f"{m} has shape {tuple(a.shape)}, not {modality.shape}"
                )
                assert a.isfinite().all(), f"{m} of sample {split.ids[key.index]!r} is not finite"
                assert torch.equal(a, b), f"{m}: the same key {key} gave two samples"
            task.check_target(torch.as_tensor(first.target))
    for name in data.splits:
        batches = [next(iter(data.loader(name))) for _ in range(2)]
        for m in names:
            assert torch.equal(batches[0].inputs[m], batches[1].inputs[m]), (
                f"{name!r}: two passes differ in {m}"
            )
        assert batches[0].available.any(1).all(), f"{name!r}: a sample has nothing available"
    seen = torch.cat([batch.index for batch in data.loader("test")])
    assert torch.equal(seen.sort().values, torch.arange(len(data.splits["test"]))), (
        "a pass over test is not exact"
    )

"""What flows: selection, rows that have a modality, devices."""

import pickle

import pytest
import torch

from mmrobust.batch import Batch
from mmrobust.testing import describe_data, make_batch


@pytest.fixture
def batch() -> Batch:
    made = make_batch(describe_data(num_modalities=2, kinds=["vector"]), size=4)
    return made.with_available(torch.tensor([[1, 1], [1, 0], [0, 1], [1, 0]]).bool())


def rows(batch: Batch) -> dict[str, list[int]]:
    return {m: r.tolist() for m, r in (batch.rows or {}).items()}


def test_rows_are_those_that_have_the_modality(batch: Batch) -> None:
    assert rows(batch) == {"m1": [0, 1, 3], "m2": [0, 2]}
    assert rows(batch.with_available(torch.tensor([[1, 0]] * 4).bool())) == {"m2": []}
    assert rows(batch.with_available(torch.ones(4, 2).bool())) == {}


@pytest.mark.parametrize(
    "choice", [[3, 0], torch.tensor([3, 0]), torch.tensor([True, False, False, True])], ids=str
)
def test_select(batch: Batch, choice: list[int] | torch.Tensor) -> None:
    order = [0, 3] if isinstance(choice, torch.Tensor) and choice.dtype == torch.bool else [3, 0]
    chosen = batch.select(choice)
    assert len(chosen) == 2
    assert chosen.ids == [f"sample {i}" for i in order]
    assert chosen.index.tolist() == order
    for m, x in batch.inputs.items():
        assert torch.equal(chosen.inputs[m], x[order])
    for name in ("available", "target", "noise_level"):
        assert torch.equal(getattr(chosen, name), getattr(batch, name)[order])
    assert rows(chosen) == {"m2": [order.index(0)]}  # of the selection, not of the batch


def test_with_available_leaves_the_batch_as_it_was(batch: Batch) -> None:
    before = batch.available.clone()
    other = batch.with_available(~before)
    assert torch.equal(batch.available, before)
    assert torch.equal(other.available, ~before)
    assert other.inputs is batch.inputs


def test_the_order_of_the_inputs_is_the_order_of_the_modalities(batch: Batch) -> None:
    assert batch.modalities == ("m1", "m2")
    with pytest.raises(ValueError, match="zip"):
        Batch(**{**vars(batch), "available": torch.ones(4, 3).bool(), "rows": None})


def test_to_moves_every_tensor(batch: Batch) -> None:
    moved = batch.to("meta")
    tensors = [moved.available, moved.target, moved.noise_level, moved.index]
    tensors += [*moved.inputs.values(), *(moved.rows or {}).values()]
    assert len(tensors) == 8
    assert all(tensor.is_meta for tensor in tensors)
    assert moved.ids == batch.ids


def test_a_worker_can_send_it(batch: Batch) -> None:
    received = pickle.loads(pickle.dumps(batch))
    assert rows(received) == rows(batch)
    assert torch.equal(received.available, batch.available)

"""One network for every combination: each is what it would be alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mmrobust.batch import Batch
from mmrobust.combinations import all_combinations, combination_masks, combination_name
from mmrobust.config.build import construct
from mmrobust.config.compose import compose_config
from mmrobust.data.spec import DataSpec, Modality
from mmrobust.errors import UserError
from mmrobust.methods.dedicated import Dedicated
from mmrobust.testing import check_method, describe_data, fill_absent, make_batch, step


def make(*overrides: str, num_modalities: int = 2, task: str = "classification") -> Dedicated:
    torch.manual_seed(0)
    kinds = ("vector",) if task == "classification" else ("image",)
    config = compose_config(["method=dedicated", "encoder.width=8", *overrides]).method
    spec = describe_data(num_modalities=num_modalities, kinds=kinds, task=task)
    method: Dedicated = construct(config, spec=spec)
    return method


def gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def rows_of(batch: Batch, modalities: tuple[str, ...]) -> tuple[Batch, Tensor]:
    """The samples that have all of these modalities, as complete data of these alone."""
    columns = [batch.modalities.index(m) for m in modalities]
    rows = batch.available[:, columns].all(1)
    chosen = batch.select(rows)
    inputs = {m: chosen.inputs[m] for m in modalities}
    available = chosen.available[:, columns]
    return replace(
        chosen, inputs=inputs, available=available, noise_level=chosen.noise_level[:, columns], rows=None
    ), rows


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_the_network_of_exactly_the_available_combination_predicts(task: str) -> None:
    method = make(num_modalities=3, task=task).eval()
    combinations = all_combinations(method.modalities)
    masks = combination_masks(combinations, method.modalities)
    batch = make_batch(method.spec, size=len(masks))
    with torch.no_grad():
        logits = method(batch.with_available(masks)).logits
        for row, c in enumerate(combinations):
            alone = rows_of(batch.select([row]), c)[0]
            expected = method.networks[combination_name(c)](alone).logits[0]
            torch.testing.assert_close(logits[row], expected)


def test_each_network_trains_as_it_would_alone() -> None:
    """Loss, gradients and BatchNorm's statistics are those of plain fusion on the samples that have it all."""
    method = make(num_modalities=3)
    batch = make_batch(method.spec, size=24, complete=False)
    before = {n: x.clone() for n, x in method.state_dict().items()}
    terms = step(method, batch)
    together = {name: gradients(network) for name, network in method.networks.items()}
    after = {n: x.clone() for n, x in method.state_dict().items()}
    method.load_state_dict(before)
    assert list(terms) == [combination_name(c) for c in all_combinations(method.modalities)]
    for c in all_combinations(method.modalities):
        name = combination_name(c)
        network = method.networks[name]
        own, rows = rows_of(batch, c)
        assert 1 < rows.sum() < 24
        torch.testing.assert_close(step(network, own)["task"], terms[name])  # type: ignore[arg-type]
        for parameter, gradient in gradients(network).items():
            torch.testing.assert_close(gradient, together[name][parameter])
        for key, value in network.state_dict().items():
            torch.testing.assert_close(value, after[f"networks.{name}.{key}"])


def test_nothing_is_shared() -> None:
    method = make(num_modalities=3).train()
    terms = method.losses(make_batch(method.spec))
    assert all(name.startswith("networks.") for name, _ in method.named_parameters())
    for name, parameter in method.named_parameters():
        for combination, loss in terms.items():
            (gradient,) = torch.autograd.grad(loss, parameter, retain_graph=True, allow_unused=True)
            own = name.startswith(f"networks.{combination}.")
            assert own == (gradient is not None), (name, combination)


def test_a_combination_that_no_sample_has() -> None:
    method = make()
    batch = make_batch(method.spec)
    available = batch.available.clone()
    available[:4, 0], available[4:, 1] = False, False
    terms = step(method, batch.with_available(available))
    assert terms["m1+m2"] == 0
    assert terms["m1"] > 0
    for gradient in gradients(method.networks["m1+m2"]).values():
        assert (gradient == 0).all()


def test_networks_and_their_encoders() -> None:
    method = make(num_modalities=3)
    assert list(method.networks) == ["m1", "m2", "m3", "m1+m2", "m1+m3", "m2+m3", "m1+m2+m3"]
    features = method.encode(make_batch(method.spec))
    assert list(features["m2"]) == ["m2", "m1+m2", "m2+m3", "m1+m2+m3"]
    weights = [p for n, p in method.named_parameters() if n.endswith("encoders.m2.layers.0.weight")]
    assert len(weights) == 4
    assert not any(torch.equal(weights[0], other) for other in weights[1:])  # each drawn on its own


def test_encoder_of_one_modality() -> None:
    """Keys of one modality's encoder reach every network that reads it, and only those."""
    config = compose_config(["method=dedicated", "data=avmnist", "encoder.audio.width=4", "encoder.width=8"])
    modalities = {"image": Modality("image", (1, 28, 28)), "audio": Modality("spectrogram", (1, 32, 32))}
    method: Dedicated = construct(config.method, spec=DataSpec("classification", 10, 4, modalities))
    widths = {name: network.widths for name, network in method.networks.items()}
    assert widths == {"image": {"image": 8}, "audio": {"audio": 4}, "image+audio": {"image": 8, "audio": 4}}


def test_absent_modalities_cannot_change_the_output() -> None:
    method = make(num_modalities=3).eval()
    batch = make_batch(method.spec, complete=False)
    with torch.no_grad():
        assert torch.equal(method(fill_absent(batch, 0)).logits, method(fill_absent(batch, torch.nan)).logits)


def test_one_modality() -> None:
    check_method(lambda spec: make(num_modalities=1), describe_data(num_modalities=1, kinds=("vector",)))


def test_too_many_networks() -> None:
    with pytest.raises(UserError, match=r"127 for 7 modalities, above method\.max_networks=63; raise it"):
        make(num_modalities=7)
    assert len(make(num_modalities=6).networks) == 63
    with pytest.raises(UserError, match=r"7 for 3 modalities, above method\.max_networks=6"):
        make("method.max_networks=6", num_modalities=3)

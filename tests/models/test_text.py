"""Encoders of text: hashed words, padding that means nothing, Hugging Face without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmrobust.config.compose import compose_config
from mmrobust.data.kinds import encode_text
from mmrobust.data.spec import Modality
from mmrobust.errors import UserError
from mmrobust.models.encoders import build_encoder
from mmrobust.models.text import PAD, hashed_words


def texts(*sentences: str, length: int = 48) -> Tensor:
    return torch.stack([encode_text(sentence, length) for sentence in sentences])


def encoder(name: str, kind: str = "text", shape: tuple[int, ...] = (48,), **keys: Any) -> nn.Module:
    torch.manual_seed(0)
    choice = name if name in ("tiny", "text") else "text"
    config = compose_config([f"encoder={choice}"]).encoder
    base = {key: config[key] for key in ("pretrained", "weights", "norm", "width", "options")}
    return build_encoder(Modality(kind, shape), name=name, **(base | keys)).eval()


# Tokens


def test_words_are_what_stands_between() -> None:
    ids = hashed_words(texts("Hello, WORLD!  world's hello", "hello world", " ,. "), 4096, 5)
    assert ids.shape == (3, 5)
    assert ids[0, 0] == ids[0, 3] == ids[1, 0]
    assert ids[0, 1] == ids[1, 1]
    assert ids[0, 2] != ids[0, 1]
    assert (ids[0] != PAD).tolist() == [True] * 4 + [False]
    assert not ids[2].any()


def test_ids_are_for_ever() -> None:
    """A trained encoder must find its words again, on any machine."""
    assert hashed_words(texts("hello été"), 4096, 3).tolist() == [[3479, 3347, PAD]]


def test_hashes_are_spread() -> None:
    words = [f"{a}{b}{c}" for a in "bcdfg" for b in "aeiou" for c in "lmnrstxz"]
    ids = hashed_words(texts(*words), 8192, 1)[:, 0]
    assert len(ids.unique()) > 0.97 * len(words)
    assert ids.min() >= 2
    assert ids.max() < 8192


def test_words_beyond_the_last_are_cut_off() -> None:
    longer, shorter = hashed_words(texts("one two three four", "one two"), 4096, 2)
    assert torch.equal(longer, shorter)


# Ours


@pytest.mark.parametrize("name", ["tiny", "text"])
@torch.no_grad()
def test_padding_and_neighbours_mean_nothing(name: str) -> None:
    network = encoder(name)
    batch = texts("it was fun", "it was a very long film that nobody liked", "")
    features = network(batch)
    assert features.shape == (3, network.width)
    assert features.isfinite().all()
    for row, feature in zip(batch, features, strict=True):
        torch.testing.assert_close(network(row[None])[0], feature)
    torch.testing.assert_close(network(texts("it was fun", length=20)), features[:1])
    assert not torch.allclose(features[0], features[1])


@torch.no_grad()
def test_only_the_transformer_knows_the_order() -> None:
    pair = texts("not good but bad", "not bad but good")
    bag, transformer = (encoder(name)(pair) for name in ("tiny", "text"))
    torch.testing.assert_close(bag[0], bag[1])
    assert not torch.allclose(transformer[0], transformer[1], atol=1e-3)


def test_other_kinds_get_tiny() -> None:
    network = encoder("text", kind="vector", shape=(12,))
    assert type(network).__name__ == "Tiny"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"pretrained": True}, "has no pretrained weights"),
        ({"width": None}, "needs encoder.width"),
        ({"options": {"depth": 2}}, "does not take encoder.options"),
        (
            {"options": {"vocabulary": 2, "tokens": 4, "depth": 1, "heads": 4, "dropout": 0.0}},
            "leave no word",
        ),
    ],
)
def test_what_cannot_be_is_refused(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        encoder("text", **keys)


# Hugging Face


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small BERT and its tokenizer, as a folder."""
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "it", "was", "fun", "long", "##er"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    torch.manual_seed(1)
    transformers.BertModel(config).save_pretrained(tmp_path)
    return tmp_path


@torch.no_grad()
def test_hugging_face(model: Path) -> None:
    network = encoder(str(model), pretrained=True, width=None, options={})
    assert network.width == 24
    batch = texts("it was fun", "longer", "")
    features = network(batch)
    assert features.shape == (3, 24)
    for row, feature in zip(batch, features, strict=True):
        torch.testing.assert_close(network(row[None])[0], feature, atol=1e-5, rtol=1e-4)
    again = encoder(str(model), pretrained=True, width=None, options={})
    torch.testing.assert_close(again(batch), features)
    fresh = encoder(str(model), pretrained=False, width=None, options={})
    assert not torch.allclose(fresh(batch), features)
    assert encoder(str(model), pretrained=True, width=8, options={})(batch).shape == (3, 8)


def test_hugging_face_out_of_reach() -> None:
    pytest.importorskip("transformers")
    with pytest.raises(UserError, match="comes from the Hugging Face hub at first use"):
        encoder("nobody/has-this-model", options={})


def test_hugging_face_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'mmrobust\[text\]'"):
        encoder("bert-base-uncased", options={})

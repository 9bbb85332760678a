"""Encoders of text, which comes as Unicode code points: our own, without a download, and any of Hugging Face."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmrobust.data.kinds import decode_text
from mmrobust.errors import UserError
from mmrobust.models.pretraining import reads_weights
from mmrobust.models.transformer import Block

PAD, CLASS = 0, 1  # token ids; words have the others
FACTOR = 1_000_003  # of the hash; odd, so that no letter is lost
SMALL_VOCABULARY = 4096  # of `tiny`
CAPITALS = (ord("A"), ord("Z"), 32)  # the first, the last, how far from the small ones


def hashed_words(points: Tensor, vocabulary: int, tokens: int) -> Tensor:
    """Words as token ids: (B, L) code points to (B, tokens) int64, PAD behind the last word.

    A word is a run of letters, digits, apostrophes and whatever is not ASCII; capital ASCII letters count as small ones.
    Its id is a polynomial hash of its letters, the same on every machine: nothing is learned or kept. Words whose
    hashes agree are one word to the encoder.

    Args:
        points: 0 behind the last.
        vocabulary: ids there are, PAD and CLASS among them.
        tokens: words that are read; later ones are cut off.
    """
    first, last, shift = CAPITALS
    points = torch.where((points >= first) & (points <= last), points + shift, points)
    letter = (points >= ord("a")) & (points <= ord("z"))
    digit = (points >= ord("0")) & (points <= ord("9"))
    inside = letter | digit | (points == ord("'")) | (points > 127)
    begins = inside & ~nn.functional.pad(inside, (1, 0))[:, :-1]
    word = begins.cumsum(1)  # which word of the text, from 1
    place = torch.arange(points.shape[1], device=points.device).expand_as(points)
    start = torch.where(begins, place, 0).cummax(1).values
    # int64 wraps around, alike everywhere
    powers = torch.full_like(place[0], FACTOR).cumprod(0)
    terms = torch.where(inside, points * powers[place - start], 0)
    word = torch.where(inside & (word <= tokens), word, 0)
    sums = points.new_zeros(len(points), tokens + 1).scatter_add_(1, word, terms)[:, 1:]
    there = points.new_zeros(len(points), tokens + 1).scatter_(1, word, 1)[:, 1:].bool()
    mixed = (sums ^ (sums >> 29)) * FACTOR
    ids = (mixed ^ (mixed >> 32)) % (vocabulary - 2) + 2
    return torch.where(there, ids, PAD)


class WordBag(nn.Module):
    """The mean of learned vectors of the words: (B, L) -> (B, width); zeros for a text without words."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.width = width
        self.words = nn.Embedding(SMALL_VOCABULARY, width, padding_idx=PAD)

    def forward(self, points: Tensor) -> Tensor:
        ids = hashed_words(points, SMALL_VOCABULARY, points.shape[1] // 2 + 1)
        return self.words(ids).sum(1) / (ids != PAD).sum(1, keepdim=True).clamp(min=1)


class TextTransformer(nn.Module):
    """Hashed words, embedded with their places, behind a class token whose last state is the feature: (B, L) ->
    (B, width). What is padded is masked.

    Args:
        width: of the tokens.
        vocabulary, tokens: see `hashed_words`.
        depth, heads, dropout: of the blocks.
    """

    def __init__(
        self, *, width: int, vocabulary: int, tokens: int, depth: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        if vocabulary < 3 or tokens < 1:
            raise UserError(
                f"encoder.options.vocabulary={vocabulary} and tokens={tokens} leave no word; give at least 3 and 1"
            )
        self.width, self.vocabulary, self.tokens = width, vocabulary, tokens
        self.words = nn.Embedding(vocabulary, width, padding_idx=PAD)
        self.places = nn.Parameter(0.02 * torch.randn(tokens + 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, 2 * width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, points: Tensor) -> Tensor:
        ids = nn.functional.pad(hashed_words(points, self.vocabulary, self.tokens), (1, 0), value=CLASS)
        x, present = self.words(ids) + self.places, ids != PAD
        for block in self.blocks:
            x = block(x, present)
        return self.norm(x[:, 0])


class HuggingFace(nn.Module):
    """Any encoder of text on the Hugging Face hub, or in a folder: the mean of its last states over the tokens.

    Args:
        name: of the model, or its folder.
        pretrained: with its weights; else new ones of its configuration.
        length: characters of a text, the most tokens that it can have.

    Raises:
        UserError: transformers is not installed, there is no such model, or it cannot be had.
    """

    def __init__(self, name: str, *, pretrained: bool, length: int, **options: Any) -> None:
        super().__init__()
        try:
            from transformers import AutoConfig, AutoModel, AutoTokenizer
        except ModuleNotFoundError as error:
            raise UserError(
                f"the text encoder {name!r} needs transformers: pip install 'mmrobust[text]' (without it: tiny, text)"
            ) from error
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            if pretrained and reads_weights():
                self.network = AutoModel.from_pretrained(name, **options)
            else:
                self.network = AutoModel.from_config(AutoConfig.from_pretrained(name, **options))
        except (OSError, ValueError) as error:
            raise UserError(
                f"the text encoder {name!r} could not be had: {str(error).splitlines()[0]}. It comes from the Hugging "
                "Face hub at first use: run once on a machine that is online (the download is kept under HF_HOME), name "
                "a folder that holds model and tokenizer, or take encoder.name=text, which needs neither"
            ) from error
        self.width = int(self.network.config.hidden_size)
        places = getattr(self.network.config, "max_position_embeddings", length)
        self.longest = min(length, places, self.tokenizer.model_max_length)

    def forward(self, points: Tensor) -> Tensor:
        texts = [decode_text(row) for row in points.cpu()]
        tokens = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        ).to(points.device)
        states = self.network(**tokens).last_hidden_state  # (B, T, D)
        present = tokens["attention_mask"][..., None].bool()
        return torch.where(present, states, 0).sum(1) / present.sum(1).clamp(min=1)


def text_encoder(name: str, *, pretrained: bool, length: int, width: int | None, **options: Any) -> nn.Module:
    """The encoder of a text of this length: `tiny`, `text`, or one of Hugging Face.

    Raises:
        UserError: no width, weights for an encoder that has none, or as of `HuggingFace`.
    """
    if name not in ("tiny", "text"):
        return HuggingFace(name, pretrained=pretrained, length=length, **options)
    if pretrained:
        raise UserError(f"the encoder {name!r} has no pretrained weights; set encoder.pretrained=false")
    if width is None:
        raise UserError(f"the encoder {name!r} needs encoder.width, a number of channels such as 64")
    return WordBag(width=width, **options) if name == "tiny" else TextTransformer(width=width, **options)

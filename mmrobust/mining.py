"""Which combinations are hard: found in training, kept in buffers, agreed over ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmrobust import ranks
from mmrobust.errors import UserError
from mmrobust.missing import all_combinations, combination_code, combination_masks, combination_name


class VarianceMining(nn.Module):
    """The combinations whose predicted variance is largest over the first epochs (DMRNet).

    Over epochs 0 ... epochs-1 the mean variance of every incomplete combination is accumulated; from then on
    the floor((2^M - 1) / 2) with the largest are hard: one of two for M = 2, as published, three of six for
    M = 3. Sums and counts are kept, so a batch that lacks a combination does no harm.

    Args:
        modalities: their names.
        epochs: how long to observe. With `hard` given nothing is observed.
        hard: these combinations instead of mined ones, e.g. ["audio", "audio+visual"].
        batch_means: as released (M = 2 only): averages of batch averages, where a batch that lacks one of
            the two single modalities spoils the comparison and the second is taken.
    """

    total: Tensor
    count: Tensor
    hard: Tensor
    incomplete: Tensor  # codes of all combinations but the full one

    def __init__(
        self, modalities: Sequence[str], *, epochs: int, hard: Sequence[str] | None, batch_means: bool
    ) -> None:
        super().__init__()
        if batch_means and len(modalities) != 2:
            raise UserError("as_released.batch_means was released for two modalities only")
        if len(modalities) < 2:
            raise UserError("mining hard combinations needs at least two modalities")
        combinations = all_combinations(modalities)
        self.names = {
            int(code): combination_name(c)
            for code, c in zip(_codes(combinations, modalities), combinations, strict=True)
        }
        self.register_buffer("incomplete", _codes(combinations[:-1], modalities), persistent=False)
        self.top = len(combinations) // 2
        self.epochs, self.batch_means = (0 if hard else epochs), batch_means
        size = 2 ** len(modalities)
        self.register_buffer("total", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("hard", torch.zeros(size, dtype=torch.bool))
        for name in hard or ():
            codes = [
                code for code, known in self.names.items() if set(known.split("+")) == set(name.split("+"))
            ]
            if not codes:
                raise UserError(f"hard combination {name!r} is none of {', '.join(self.names.values())}")
            self.hard[codes[0]] = True

    @property
    def hard_names(self) -> list[str]:
        return [name for code, name in self.names.items() if self.hard[code]]

    def update(self, drawn: Tensor, log_variance: Tensor, epoch: int) -> Tensor:
        """Observe a batch while mining; after it, say which samples have a hard combination.

        Args:
            drawn: (B, M) bool.
            log_variance: (B, D) or (B, D, ...).
            epoch: from 0.

        Returns:
            (B,) bool, all false while mining.
        """
        code = combination_code(drawn)
        if epoch < self.epochs:
            with torch.no_grad():
                self._observe(code, log_variance.exp().flatten(1).mean(1).double())
            return torch.zeros_like(code, dtype=torch.bool)
        return self.hard[code]

    def _observe(self, code: Tensor, variance: Tensor) -> None:
        total = ranks.total(torch.zeros_like(self.total).index_add_(0, code, variance))
        count = ranks.total(torch.zeros_like(self.count).index_add_(0, code, torch.ones_like(variance)))
        if self.batch_means:
            total, count = total / count, torch.ones_like(count)  # nan where the batch has none
        self.total += total
        self.count += count
        self._choose()

    def _choose(self) -> None:
        """Kept up to date with every batch, so that it is final once the epochs are over."""
        codes = self.incomplete
        mean = (self.total / self.count)[codes]
        self.hard.zero_()
        if self.batch_means:
            self.hard[codes[torch.where(mean[0] > mean[1], 0, 1)]] = True  # nan > x is false: the second
        else:
            order = mean.nan_to_num(nan=-torch.inf).argsort(descending=True)[: self.top]
            self.hard[codes[order]] = self.count[codes[order]] > 0  # one never seen is not known to be hard


def _codes(combinations: Sequence[Sequence[str]], modalities: Sequence[str]) -> Tensor:
    return combination_code(combination_masks(combinations, modalities))

"""Which combinations are hard: found in training, kept in buffers, agreed over ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from lightning import Trainer
from torch import Tensor, nn

from mmrobust import ranks
from mmrobust.combinations import all_combinations, combination_code, combination_masks, combination_name
from mmrobust.errors import UserError, one_of
from mmrobust.evaluation.combinations import Results


class HardMining(nn.Module):
    """The combinations in which something of a sample, such as its predicted variance, is largest (DMRNet).

    Over epochs 0 ... epochs-1 its mean over the samples of every incomplete combination is accumulated; from then on
    the floor((2^M - 1) / 2) with the largest are hard: one of two for M = 2, as published, three of six for
    M = 3. Sums and counts are kept, so a batch that lacks a combination does no harm.

    Args:
        modalities: their names.
        epochs: how long nothing is hard. With `hard` given nothing is observed meanwhile.
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
        self.names = _names(modalities)
        self.register_buffer("incomplete", _codes(combinations[:-1], modalities), persistent=False)
        self.top = len(combinations) // 2
        self.epochs, self.mines, self.batch_means = epochs, not hard, batch_means
        size = 2 ** len(modalities)
        self.register_buffer("total", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("hard", _chosen(self.names, hard or (), "hard"))

    @property
    def hard_names(self) -> list[str]:
        return [name for code, name in self.names.items() if self.hard[code]]

    def update(self, drawn: Tensor, hardness: Tensor, epoch: int) -> Tensor:
        """Observe a batch while mining; after it, say which samples have a hard combination.

        Args:
            drawn: (B, M) bool.
            hardness: (B,), the larger, the harder.
            epoch: from 0.

        Returns:
            (B,) bool, all false in the first epochs.
        """
        code = combination_code(drawn)
        if epoch >= self.epochs:
            return self.hard[code]
        if self.mines:
            self._observe(code, hardness.detach().double())
        return torch.zeros_like(code, dtype=torch.bool)

    def _observe(self, code: Tensor, hardness: Tensor) -> None:
        total = ranks.total(torch.zeros_like(self.total).index_add_(0, code, hardness))
        count = ranks.total(torch.zeros_like(self.count).index_add_(0, code, torch.ones_like(hardness)))
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


class PredictionMining(nn.Module):
    """The combinations whose predictions stray furthest from those with everything (MMANet).

    In each of its epochs the validation results of every largest incomplete combination (M-1 modalities) are
    compared with the full one's and the distances added up. The largest sum gives the weakest combination; it
    and all its non-empty parts are weak, since they carry no more: one pair and its two single modalities
    for M = 3, one single modality for M = 2, both as published; the rule for any M is ours.

    Args:
        modalities: their names.
        first, epochs: observe after epochs first, ..., first + epochs - 1 (from 0). With `weak` given nothing
            is observed.
        weak: these combinations instead of mined ones, e.g. ["audio", "audio+visual"].
        distance: `histogram`, KL(q_S || q_full) of the histograms of predicted classes (as published for
            classification); `conditional`, the same within each true class, the mean over the samples: where classes
            are balanced, all histograms are flat and say nothing, and those of one class still do; or `metric`, the
            squared gap of the primary metric (for segmentation).
        softmax: as released, histograms go through a softmax first, which flattens them.
    """

    total: Tensor
    weak: Tensor

    def __init__(
        self,
        modalities: Sequence[str],
        *,
        first: int,
        epochs: int,
        weak: Sequence[str] | None,
        distance: str,
        softmax: bool,
    ) -> None:
        super().__init__()
        if len(modalities) < 2:
            raise UserError("mining weak combinations needs at least two modalities")
        one_of("method.mining", distance, ("histogram", "conditional", "metric"))
        self.modalities = tuple(modalities)
        self.names = _names(modalities)
        self.candidates = [c for c in all_combinations(modalities) if len(c) == len(modalities) - 1]
        self.when = range(first, first if weak else first + epochs)
        self.distance, self.softmax = distance, softmax
        self.register_buffer("total", torch.zeros(len(self.candidates), dtype=torch.float64))
        self.register_buffer("weak", _chosen(self.names, weak or (), "weak"))

    @property
    def weak_names(self) -> list[str]:
        return [name for code, name in self.names.items() if self.weak[code]]

    def require_validation(self, trainer: Trainer) -> None:
        """Raises: UserError: there will be no validation in the epochs that are observed."""
        every = trainer.check_val_every_n_epoch or 1
        validated = sum(trainer.num_val_batches) > 0 or every > 1  # then not known yet
        if self.when and not (validated and any((e + 1) % every == 0 for e in self.when)):
            raise UserError(
                f"no validation would take place in epochs {self.when.start} to {self.when.stop - 1}, which MMANet "
                "mines weak combinations in; use data with a validation split, leave trainer.limit_val_batches and "
                "trainer.check_val_every_n_epoch alone, or name the combinations with method.weak"
            )

    def observe(self, results: Results, epoch: int) -> None:
        """Add the distances of one validation pass; `results` must agree over ranks."""
        if epoch not in self.when:
            return
        distances = [self._distance(results, combination_name(c)) for c in self.candidates]
        self.total += self.total.new_tensor(distances)
        self.weak.zero_()
        if self.total.max() > 0:  # else nothing was measured, or nothing strays
            weakest = self.candidates[int(self.total.argmax())]
            self.weak[_codes(all_combinations(weakest), self.modalities).to(self.weak.device)] = True

    def _distance(self, results: Results, name: str) -> float:
        """0 where nothing was measured: no sample of the split has the combination."""
        confusions = [results.confusion.get(n) for n in (name, combination_name(self.modalities))]
        if any(confusion is None or not confusion.any() for confusion in confusions):
            return 0.0
        if self.distance == "metric":
            rows = [results.combinations[n] for n in (name, combination_name(self.modalities))]
            here, full = (row["metrics"][results.primary] or 0.0 if row else 0.0 for row in rows)
            return float((full - here) ** 2)
        counts = [confusion.double() for confusion in confusions if confusion is not None]
        if self.distance == "histogram":
            counts = [count.sum(0, keepdim=True) for count in counts]
        # Shares of the predicted classes, (1, C) or of every true class (C, C).
        here, full = (count / count.sum(1, keepdim=True).clamp(min=1) for count in counts)
        if self.softmax:
            here, full = here.softmax(1), full.softmax(1)
        divergence = (here * ((here + 1e-8) / (full + 1e-8)).log()).sum(1)
        return float((divergence * counts[0].sum(1)).sum() / counts[0].sum())


def _names(modalities: Sequence[str]) -> dict[int, str]:
    """Code of every combination -> its name."""
    combinations = all_combinations(modalities)
    codes = _codes(combinations, modalities).tolist()
    return {code: combination_name(c) for code, c in zip(codes, combinations, strict=True)}


def _chosen(names: Mapping[int, str], given: Sequence[str], what: str) -> Tensor:
    """A mask over codes of the combinations that the user names, in any order of their modalities."""
    mask = torch.zeros(len(names) + 1, dtype=torch.bool)
    for name in given:
        codes = [code for code, known in names.items() if set(known.split("+")) == set(str(name).split("+"))]
        if not codes:
            raise UserError(f"{what} combination {name!r} is none of {', '.join(names.values())}")
        mask[codes[0]] = True
    return mask


def _codes(combinations: Sequence[Sequence[str]], modalities: Sequence[str]) -> Tensor:
    return combination_code(combination_masks(combinations, modalities))

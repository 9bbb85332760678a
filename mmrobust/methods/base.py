"""What all methods share. A method file overrides only what its paper changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

import torch
from lightning import LightningModule
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.optim import Optimizer

from mmrobust import keyed, ranks
from mmrobust.batch import Batch
from mmrobust.combinations import all_combinations, draw_combinations
from mmrobust.data.spec import DataSpec
from mmrobust.errors import UserError
from mmrobust.evaluation.added_metrics import Added
from mmrobust.evaluation.combinations import CombinationScores, Results
from mmrobust.methods.output import Features as Features
from mmrobust.methods.output import Output as Output
from mmrobust.methods.output import tensors as tensors
from mmrobust.models.assembly import Fusion, build_encoders, build_fusion, takes_encoders
from mmrobust.models.encoders import few_rows, running_statistics, scatter_rows
from mmrobust.tasks.families import add_thresholds, keep_thresholds, kept_thresholds
from mmrobust.tasks.registry import build_task


class Method(LightningModule):
    """Base of all methods: encoders, the task, optimisation, evaluation of all combinations.

    What a method overrides:
        encode_modality(modality, x): features of one modality, from that modality alone.
        fuse(features, available): an Output; row-wise in eval mode, so that combinations can be stacked
            (default: fusion module and head).
        losses(batch): the weighted terms of one optimiser update.
        updates(batch): yields `losses` several times if a batch takes several updates (optional).
        modulate(): changes gradients before clipping and the optimiser's step (optional).
        observe(results): looks at the validation results of every combination (optional).
        combinations(): the combinations that it can serve (optional).

    Args:
        spec: the dataset's description.
        seed: of weights, of `draw` and of whatever a method samples in training.
        encoder: keys of `build_encoder`, and under a modality's name those of that modality alone.
        fusion: widths, or encoders that it takes apart (see `models.trunks`) -> fusion module; None for a method
            that does not fuse features.
        optimizer: parameters -> optimizer.
        schedule: optimizer -> learning-rate schedule, stepped every epoch.
    """

    tasks: tuple[str, ...] = ("classification", "segmentation")
    # Of its parts, by parameters() or state_dict(), which cannot be where FSDP shares them out:
    reads_parameters: bool = False
    unverified: ClassVar[str] = ""  # what of the published method rests on memory alone; reports say so

    def __init__(
        self,
        *,
        spec: DataSpec,
        seed: int,
        encoder: Mapping[str, Any],
        fusion: Fusion | None,
        optimizer: Any,
        schedule: Any,
    ) -> None:
        super().__init__()
        self.require_task(spec.task)
        self.spec, self.seed = spec, seed
        self.modalities = tuple(spec.modalities)
        self.task = build_task(spec)
        self.encoders = build_encoders(encoder, spec, fusion)
        self.pools = not takes_encoders(fusion)  # else what is fused are maps
        built = None if fusion is None else build_fusion(fusion, self.encoders, spec)
        self.widths = {m: cast(int, e.width) for m, e in self.encoders.items()}
        self._fusion = fusion, encoder
        first = next(iter(self.encoders.values()))
        self.task.prepare(first if self.pools or built is None else built, encoder.get("decoder"))
        if built is not None:
            self.fusion, self.width = built, cast(int, built.width)
            self.head = self.task.head(self.width)
        add_thresholds(self, spec.metrics, 2 ** len(self.modalities))
        self._optimizer, self._schedule = optimizer, schedule
        self.clipping: tuple[float | None, str | None] = (None, None)  # with several updates a batch only
        self.automatic_optimization = type(self).updates is Method.updates
        self.metrics: Mapping[str, Added] = {}  # further ones that are evaluated, see `added_metrics`
        self._scores: dict[str, CombinationScores] = {}
        self.last_terms: dict[str, Tensor] = {}  # the losses of the last batch

    @classmethod
    def require_task(cls, task: str) -> None:
        """Raises: UserError: the method does not do it."""
        if task not in cls.tasks:
            raise UserError(
                f"{cls.__name__} does {' and '.join(cls.tasks)}, but the dataset's task is {task}; method=dropout does "
                "all tasks"
            )

    # What a method may override

    def encode_modality(self, modality: str, x: Tensor) -> Features:
        """Features of R rows in which the modality is available, (R, ...), from it alone."""
        return self.pool(self.encoders[modality](x))

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        """Predict from the features that `available` (B, M) allows; the others must not matter."""
        fused = self.fusion(features, available)
        return Output(self.head(fused), fused=fused)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The named, weighted terms whose sum one optimiser update minimises."""
        raise NotImplementedError

    def updates(self, batch: Batch) -> Iterator[dict[str, Tensor]]:
        """One `losses` for every optimiser update of a batch; each is applied before the next is asked for."""
        yield self.losses(batch)

    def modulate(self) -> None:
        """Change the gradients: reduced over ranks and unscaled, not yet clipped."""

    def observe(self, results: Results) -> None:
        """Learn from the validation results of every combination, which agree on all ranks."""

    def combinations(self) -> list[tuple[str, ...]]:
        """The combinations this method can serve; the others are null in the result."""
        return all_combinations(self.modalities)

    # What a method calls

    def new_fusion(self) -> nn.Module:
        """A second fusion of the same kind and for the same encoders, with weights of its own."""
        fusion, encoder = self._fusion
        assert fusion is not None
        fresh = self.encoders if self.pools else build_encoders(encoder, self.spec, fusion)
        return build_fusion(fusion, fresh, self.spec)

    def pool(self, features: Any) -> Any:
        """What of an encoder's features is fused: see the task's; maps, where the fusion goes on like an encoder."""
        return self.task.pool(features) if self.pools else features

    def encode(self, batch: Batch) -> dict[str, Features]:
        """Features of all modalities, (B, ...); zeros where a modality is not available.

        Encoders see available rows only. One without any still runs a zero row, times 0, so that DDP finds
        a gradient for each of its parameters; with SyncBatchNorm, whose ranks must meet, it runs none.
        """
        return {m: self._encode_rows(m, x, batch) for m, x in batch.inputs.items()}

    def draw(self, batch: Batch) -> Tensor:
        """Modality dropout: a non-empty combination per sample, (B, M), uniform among the available ones.

        Keyed by seed, epoch and sample: methods with the same seed hide the same features.
        """
        return draw_combinations(batch.available, batch.index, self.seed, "draw", self.current_epoch)

    def unimodal(self, features: Mapping[str, Features]) -> dict[str, Tensor]:
        """Logits from each modality alone, the others hidden: zeroed features through the same fusion and head.
        Rows that lack the modality mean nothing."""
        count = len(next(iter(tensors(features))))
        only = torch.eye(len(self.modalities), dtype=torch.bool, device=self.device)
        return {
            m: self.fuse(features, only[i].expand(count, -1)).logits for i, m in enumerate(self.modalities)
        }

    def forward(self, batch: Batch) -> Output:
        """Predict every sample from what is available of it."""
        return self.fuse(self.encode(batch), batch.available)

    def _encode_rows(self, modality: str, x: Tensor, batch: Batch) -> Features:
        rows = (batch.rows or {}).get(modality)
        count = len(x) if rows is None else len(rows)
        few = self.training and few_rows(self, count)
        with running_statistics(self, active=few):
            if rows is None:
                return self.encode_modality(modality, x)
            if count == 0 and (few or not self.training):
                features = self.encode_modality(modality, x.new_zeros(1, *x.shape[1:]))
                return apply_to_collection(
                    features, Tensor, lambda f: (0 * f).expand(len(batch), *f.shape[1:])
                )
            features = self.encode_modality(modality, x[rows])
            return apply_to_collection(features, Tensor, lambda f: scatter_rows(rows, f, len(batch)))

    # Optimisation

    def configure_optimizers(self) -> Any:
        key = "optimizer"
        try:
            optimizer = self._optimizer([p for p in self.parameters() if p.requires_grad])
            key = "schedule"
            return {"optimizer": optimizer, "lr_scheduler": self._schedule(optimizer)}
        except (ValueError, TypeError, ArithmeticError) as error:  # numbers that cannot be
            raise UserError(f"{key}: {error}; see conf/{key}/ and the keys below {key}") from error

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # A step's random numbers depend on where it is, not on how the run got there.
        step = self.trainer.fit_loop.total_batch_idx
        seed = keyed.seed_of(self.seed, "step", self.global_rank, step)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 0.3 ms, for devices not in use
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        self.last_terms = {}
        with running_statistics(self, active=len(batch) == 1 and few_rows(self, 1)):
            if self.automatic_optimization:
                return self._total(self.losses(batch))
            optimizer = cast(Optimizer, self.optimizers())
            for terms in self.updates(batch):
                optimizer.zero_grad()
                self.manual_backward(self._total(terms))
                optimizer.step()
            return None

    def _total(self, terms: dict[str, Tensor]) -> Tensor:
        for name, term in terms.items():  # several updates may use a name
            self.last_terms[name] = term.detach() + self.last_terms.get(name, 0)
        return torch.stack(list(terms.values())).sum()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.modulate()
        if not self.automatic_optimization:
            self.clip_gradients(optimizer, *self.clipping)

    def on_train_epoch_end(self) -> None:
        if not self.automatic_optimization:
            self.lr_schedulers().step()  # type: ignore[union-attr]
        ranks.average_running_statistics(self)  # for the checkpoint, where no validation came before it

    def on_validation_start(self) -> None:
        if self.trainer.state.fn == "fit":
            ranks.average_running_statistics(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["method"] = f"{type(self).__module__}.{type(self).__qualname__}"
        checkpoint["spec"] = self.spec.to_dict()

    # Evaluation

    def _evaluate(self, split: str, batch: Batch) -> None:
        if split not in self._scores:  # not before: combinations() may need what a constructor sets last
            self._scores[split] = CombinationScores(
                self.task,
                self.modalities,
                self.combinations(),
                keep_predictions=split == "test",
                metrics=self.metrics,
            )
        self._scores[split].update(self, batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("val", batch)

    def on_validation_epoch_end(self) -> None:
        results = self._scores["val"].finish()
        if not self.trainer.sanity_checking:
            self.observe(results)
            data = getattr(self.trainer, "datamodule", None)
            if getattr(data, "validation_split", "val") == "val":  # else the test would fix its own
                keep_thresholds(self, results.equal_errors)
        self.log_dict(results.flat("val"))
        average = results.aggregates["average"][self.task.primary]
        if average is not None:
            self.log("val", average, prog_bar=True, logger=False)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("test", batch)

    def on_test_epoch_end(self) -> None:
        self.results = self._scores["test"].finish(kept_thresholds(self, self.spec.metrics))
        self.log_dict(self.results.flat("test"))

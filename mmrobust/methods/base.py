"""The base class of all methods. A method file overrides only what its paper changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, cast

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from mmrobust import keyed, ranks
from mmrobust.batch import Batch
from mmrobust.combinations import all_combinations, draw_combinations
from mmrobust.data.spec import DataSpec
from mmrobust.evaluation.added_metrics import Added
from mmrobust.evaluation.combinations import Results
from mmrobust.evaluation.thresholds import Evaluation
from mmrobust.methods.output import Features as Features
from mmrobust.methods.output import Output as Output
from mmrobust.methods.output import mean_over_available as mean_over_available
from mmrobust.methods.output import stacked_logits as stacked_logits
from mmrobust.methods.output import tensors as tensors
from mmrobust.models.assembly import Fusion, build_encoders, build_fusion, by_lr_factor, takes_encoders
from mmrobust.models.encoders import few_rows, running_statistics
from mmrobust.models.heads import Prediction as Prediction
from mmrobust.models.resting import drop_gradients, rest
from mmrobust.models.rows import encode_rows
from mmrobust.schedules import optimization
from mmrobust.tasks.registry import build_task, require_task


class Method(LightningModule):
    """Builds the encoders, the fusion and the head; trains them; evaluates all combinations.

    A method overrides what its paper changes and leaves Lightning's own hooks alone.

    Args:
        spec: the dataset's description.
        seed: seed of the weights, of `draw` and of everything that a method samples in training.
        encoder: keys of `build_encoder`; an entry with a modality's name holds the keys of that modality.
        fusion: maps the widths, or the encoders (`models.trunks`), to a fusion module; None: no feature fusion.
        optimizer: maps parameters to an optimizer.
        schedule: maps the optimizer to a learning-rate schedule, which advances every epoch.
    """

    tasks: tuple[str, ...] = ("classification", "segmentation")
    # True if the method reads its modules' parameters() or state_dict(). FSDP shards them, so such methods refuse it.
    reads_parameters: bool = False
    # Details of the published method that no source confirms; reports show them.
    unverified: ClassVar[str] = ""
    drop: bool = False  # whether the default `losses` applies modality dropout

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
        require_task(type(self), spec.task)
        self.spec, self.seed = spec, seed
        self.modalities = tuple(spec.modalities)
        self.task = build_task(spec)
        self.encoders = build_encoders(encoder, spec, fusion)
        self.pools = not takes_encoders(fusion)  # False: the fusion receives maps
        built = None if fusion is None else build_fusion(fusion, self.encoders, spec)
        self.widths = {m: cast(int, e.width) for m, e in self.encoders.items()}
        self._fusion = fusion, encoder
        first = next(iter(self.encoders.values()))
        self.task.prepare(first if self.pools or built is None else built, encoder.get("decoder"))
        if built is not None:
            self.fusion, self.width = built, cast(int, built.width)
            self.head = self.task.head(self.width)
        self.evaluation = Evaluation(self, spec.metrics, self.modalities)
        self._optimizer, self._schedule = optimizer, schedule
        self.clipping: tuple[float | None, str | None] = (None, None)  # for manual optimisation only
        self.automatic_optimization = type(self).updates is Method.updates
        self.evaluates: int | None = None  # number of combinations to evaluate; None: all
        self.metrics: Mapping[str, Added] = {}  # metrics that the configuration adds, see `added_metrics`
        self.last_terms: dict[str, Tensor] = {}  # the loss terms of the last batch

    # What a method may override

    def encode_modality(self, modality: str, x: Tensor) -> Features:
        """Encode one modality, in the R rows that have it, to features (R, ...)."""
        return self.pool(self.encoders[modality](x))

    def fuse(self, features: Mapping[str, Features], available: Tensor) -> Output:
        """Predict from the features that `available` (B, M) marks. In eval mode, rows must not affect one another."""
        fused = self.fusion(features, available)
        return Output(self.predict(fused), fused=fused)

    def predict(self, fused: Any) -> Prediction:
        """Apply the head to a fused feature; a classifier averages maps first."""
        return self.head(self.task.pool(fused))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named, weighted loss terms; one optimiser update minimises their sum. Default: the task loss."""
        output = self.fuse(self.encode(batch), self.draw(batch) if self.drop else batch.available)
        return {"task": self.task.loss(output, batch.target).mean()}

    def updates(self, batch: Batch) -> Iterator[dict[str, Tensor]]:
        """Yield the loss terms of each optimiser update of a batch; each is applied before the next is computed."""
        yield self.losses(batch)

    def modulate(self) -> None:
        """Change the gradients, which are reduced over ranks and unscaled, but not clipped yet."""

    def start(self) -> None:
        """Check what only the trainer knows. Runs before the first step, when `self.trainer` is set."""

    def finish_epoch(self) -> None:
        """Update the method's state after an epoch, before the checkpoint is saved; `current_epoch` is that epoch."""

    def observe(self, results: Results) -> None:
        """Use the validation results of every combination; all ranks receive the same."""

    def combinations(self) -> list[tuple[str, ...]]:
        """The combinations that this method can serve; the result file holds null for the others."""
        return all_combinations(self.modalities)

    def uncertainty(self, output: Output) -> Tensor | None:
        """The method's own uncertainty of each row of an output, (B,); None if it estimates none."""
        return None

    def resting(self) -> Iterable[nn.Module]:
        """Modules that are frozen in this epoch: their weights and running statistics do not change."""
        return ()

    @property
    def selectable_from(self) -> int:
        """First epoch (from 0) whose checkpoint may be selected: by then every loss term is active."""
        return 0

    # What a method calls

    def new_fusion(self) -> nn.Module:
        """Build a second fusion of the same kind for the same encoders, with its own weights."""
        fusion, encoder = cast("tuple[Fusion, Mapping[str, Any]]", self._fusion)
        fresh = self.encoders if self.pools else build_encoders(encoder, self.spec, fusion)
        return build_fusion(fusion, fresh, self.spec)

    def pool(self, features: Any) -> Any:
        """Pool an encoder's features as the task does; a fusion that continues the encoders receives the maps."""
        return self.task.pool(features) if self.pools else features

    def encode(self, batch: Batch) -> dict[str, Features]:
        """Features (B, ...) of all modalities, zero where absent. Encoders run on the available rows only."""
        rows, count = batch.rows or {}, len(batch)
        return {
            m: encode_rows(self, partial(self.encode_modality, m), x, rows.get(m), count)
            for m, x in batch.inputs.items()
        }

    def draw(self, batch: Batch) -> Tensor:
        """Modality dropout, (B, M): a uniform draw from each sample's combinations, equal for all methods of a seed."""
        return draw_combinations(batch.available, batch.index, self.seed, "draw", self.current_epoch)

    def unimodal(self, features: Mapping[str, Features]) -> dict[str, Tensor]:
        """Logits from each modality alone, with the others hidden; ignore the rows that lack the modality."""
        count = len(next(iter(tensors(features))))
        only = torch.eye(len(self.modalities), dtype=torch.bool, device=self.device)
        return {
            m: self.fuse(features, only[i].expand(count, -1)).logits for i, m in enumerate(self.modalities)
        }

    def forward(self, batch: Batch) -> Output:
        """Predict every sample from its available modalities."""
        return self.fuse(self.encode(batch), batch.available)

    # Optimisation

    def configure_optimizers(self) -> Any:
        return optimization(by_lr_factor(self, self._fusion[1]), self._optimizer, self._schedule)

    def on_train_start(self) -> None:
        self.start()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # The seed depends on the step alone, so a resumed run draws the same random numbers.
        step = self.trainer.fit_loop.total_batch_idx
        keyed.seed_torch(self.device, self.seed, "step", self.global_rank, step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        self.last_terms = {}
        rest(self, list(self.resting()))
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
        for name, term in terms.items():  # several updates of a batch may share a name
            self.last_terms[name] = term.detach() + self.last_terms.get(name, 0)
        return torch.stack(list(terms.values())).sum()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        drop_gradients(self.resting())
        self.modulate()
        if not self.automatic_optimization:
            self.clip_gradients(optimizer, *self.clipping)

    def on_train_epoch_end(self) -> None:
        if not self.automatic_optimization:
            self.lr_schedulers().step()  # type: ignore[union-attr]
        ranks.average_running_statistics(self)  # for the checkpoint of an epoch without validation
        self.finish_epoch()

    def on_validation_start(self) -> None:
        if self.trainer.state.fn == "fit":
            ranks.average_running_statistics(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["method"] = f"{type(self).__module__}.{type(self).__qualname__}"
        checkpoint["spec"] = self.spec.to_dict()

    # Evaluation

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluation.update("val", self, batch)

    def on_validation_epoch_end(self) -> None:
        results = self.evaluation.finish("val", self)
        if not self.trainer.sanity_checking:
            self.observe(results)
            data = getattr(self.trainer, "datamodule", None)
            if getattr(data, "validation_split", "val") == "val":  # never fix thresholds on the test split
                self.evaluation.fix(self, results.equal_errors)
        self.log_dict(results.flat("val"))
        if (average := results.aggregates["average"][self.task.primary]) is not None:
            self.log("val", average, prog_bar=True, logger=False)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluation.update("test", self, batch)

    def on_test_epoch_end(self) -> None:
        self.results = self.evaluation.finish("test", self)
        self.log_dict(self.results.flat("test"))

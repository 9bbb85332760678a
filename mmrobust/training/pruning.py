"""Report the validation scores of a trial to its Optuna study, and end the trial if the study's pruner says so."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from mmrobust.errors import UserError

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

log = logging.getLogger("mmrobust")


class Pruning(Callback):
    """Ends a trial whose validation scores are behind those of its study.

    Rank 0 asks the study, and all ranks end together, after the epoch and its checkpoint. If the study cannot be read,
    training goes on.

    Args:
        study: `study` of the configuration: the study's name and storage, the trial's number, the pruner.
        monitor: the logged name of the score.
        epochs: the number of epochs of the whole training.
    """

    def __init__(self, study: Mapping[str, Any], monitor: str, epochs: int) -> None:
        self.study, self.monitor, self.epochs = study, monitor, epochs
        self.pruned = False

    def on_train_start(self, trainer: Trainer, method: LightningModule) -> None:
        # The trial was pruned, then interrupted before its end.
        if self.pruned:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, method: LightningModule) -> None:
        score = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or trainer.state.fn != "fit" or score is None:
            return
        epoch = trainer.current_epoch
        behind = trainer.is_global_zero and self._report(epoch, float(score))
        if trainer.strategy.broadcast(behind) and epoch + 1 < self.epochs:
            self.pruned = trainer.should_stop = True

    def _report(self, epoch: int, score: float) -> bool:
        """Report a score; returns whether the pruner would end the trial."""
        from mmrobust.sweeps.storage import import_optuna, open_storage

        import_optuna()
        import optuna

        name, number = self.study["name"], self.study["trial"]
        try:
            storage = open_storage(self.study["storage"])
            pruner = make_pruner(self.study["pruner"], self.epochs)
            study = optuna.load_study(study_name=name, storage=storage, pruner=pruner)
            trial = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
            # A user may run a finished trial again by hand.
            if storage.get_trial(trial).state.is_finished():
                return False
            storage.set_trial_intermediate_value(trial, epoch, score)
            return bool(pruner.prune(study, storage.get_trial(trial)))
        except (UserError, KeyError, optuna.exceptions.OptunaError) as error:
            log.warning("study %s cannot be asked whether to prune trial %s: %s", name, number, error)
            return False

    def state_dict(self) -> dict[str, Any]:
        return {"pruned": self.pruned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.pruned = state_dict["pruned"]


def make_pruner(options: Mapping[str, Any], epochs: int) -> BasePruner:
    """Build Optuna's pruner by its name; its steps are epochs."""
    from optuna import pruners

    if options["pruner"] == "median":
        return pruners.MedianPruner(options["startup_trials"], options["startup_epochs"])
    if options["pruner"] == "hyperband":
        return pruners.HyperbandPruner(max_resource=epochs)
    return pruners.SuccessiveHalvingPruner()

"""The dashboard of a project on Weights & Biases, as panels of `wandb-workspaces`: a workspace and a report.

Both have the same four parts: methods compared, every combination, curves over the missing rate, sweeps. Names of
metrics and keys are those that `loggers.WandbLogger` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces.reports.v2 import internal as report_models
from wandb_workspaces.workspaces import internal as workspace_models

from mmrobust.loggers.wandb_segment import STEP

SWEPT = ("method", "optimizer.lr", "missing.train.rate", "seed")  # what parallel coordinates show
RATES = {"train": "missing.train.rate", "test": "missing.test.rate"}
TITLE = "mmrobust"


@dataclass(frozen=True)
class Shown:
    """What the runs at hand measure.

    Args:
        combinations: their names, as in `results.json`.
        metric: the primary one.
        swept: keys of the configuration that sweeps vary.
    """

    combinations: Sequence[str]
    metric: str
    swept: Sequence[str] = SWEPT


class ConfigColumn(wr.ParallelCoordinatesPlotColumn):
    """A key of our configuration, which has one level; the package takes a dot to be one of several."""

    def _to_model(self) -> Any:
        model = super()._to_model()
        model.accessor = f"config:{self.metric.name}.value"
        return model


class RatePlot(wr.ScatterPlot):
    """A score over a key of our configuration, see `ConfigColumn`."""

    def _to_model(self) -> Any:
        model = super()._to_model()
        model.config.x_axis = f"config:{self.x.name}.value"
        return model


def parts(shown: Shown) -> dict[str, list[Any]]:
    """Heading -> panels."""
    metric, method = shown.metric, wr.Config("method")
    scores = {name: f"test/{name}/{metric}" for name in ("average", "worst", *shown.combinations)}
    bars = {"groupby": method, "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev", "title_x": metric}
    lines = {"x": STEP, "groupby": method, "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    columns = [ConfigColumn(metric=wr.Config(key), display_name=key) for key in shown.swept]
    columns += [
        wr.ParallelCoordinatesPlotColumn(
            metric=wr.SummaryMetric(scores[name]), display_name=f"{name} {metric}"
        )
        for name in ("worst", "average")
    ]
    return {
        "Methods": [
            wr.BarPlot(title="average over combinations", metrics=[scores["average"]], **bars),
            wr.BarPlot(title="worst combination", metrics=[scores["worst"]], **bars),
            wr.LinePlot(title="validation, average over combinations", y=[f"val/average/{metric}"], **lines),
            wr.LinePlot(title="training loss", y=["train/loss"], **lines),
            wr.MediaBrowser(title="combinations", media_keys=["test/combinations"], num_columns=2),
            wr.MediaBrowser(title="samples", media_keys=["test/panel"], num_columns=1),
        ],
        "Combinations": [
            *(wr.BarPlot(title=name, metrics=[scores[name]], **bars) for name in shown.combinations),
            wr.LinePlot(
                title="validation, every combination",
                x=STEP,
                y=[f"val/{name}/{metric}" for name in shown.combinations],
            ),
        ],
        "Missing rate": [
            RatePlot(
                title=f"{name}, over the missing rate of the {split} split",
                x=wr.Config(key),
                y=wr.SummaryMetric(scores[name]),
                running_ymean=True,
                legend_template="${config:method.value}",
            )
            for split, key in RATES.items()
            for name in ("average", "worst", shown.combinations[-1])
        ],
        "Sweeps": [
            wr.ParallelCoordinatesPlot(title="what was varied, and what it gave", columns=columns),
            wr.ParameterImportancePlot(with_respect_to=scores["average"]),
        ],
    }


def workspace(entity: str, project: str, shown: Shown) -> ws.Workspace:
    """A view of the project; runs of one method share a colour where panels group them."""
    pinned = ["run:displayName", "config:method.value", "config:data.value"]
    pinned += [f"summary:test/{name}/{shown.metric}" for name in ("average", "worst")]
    sections = [ws.Section(name=name, panels=panels, is_open=True) for name, panels in parts(shown).items()]
    settings = ws.RunsetSettings(pinned_columns=pinned)
    return ws.Workspace(
        entity=entity, project=project, name=TITLE, sections=sections, runset_settings=settings
    )


def report(entity: str, project: str, shown: Shown, *, known: bool) -> wr.Report:
    """The same as a document. `known`: the project can be asked for; else the report names none in its run sets."""
    where = {"entity": entity, "project": project} if known else {}
    students = wr.Runset(**where, name="runs", filters="Metric('JobType') != 'teacher'")
    blocks: list[Any] = [
        wr.TableOfContents(),
        wr.P(
            f"Scores are {shown.metric} on the test split. A combination is the set of modalities that a sample is "
            "predicted from; average is the unweighted mean over them, worst the lowest of each run. Bars are means "
            "over the runs of a method, with their standard deviation."
        ),
    ]
    for heading, panels in parts(shown).items():
        for i, panel in enumerate(panels):
            panel.layout = wr.Layout(x=12 * (i % 2), y=8 * (i // 2), w=12, h=8)
        blocks += [wr.H1(heading), wr.PanelGrid(runsets=[students], panels=panels)]
    description = "Robustness to missing and noisy modalities"
    return wr.Report(
        entity=entity, project=project, title=TITLE, description=description, blocks=blocks, width="fluid"
    )


def specification(view: ws.Workspace, document: wr.Report) -> dict[str, Any]:
    """Both as W&B takes them, as plain containers.

    Raises:
        pydantic.ValidationError: the package does not read back what it wrote.
    """
    models = {"workspace": view._to_model().spec, "report": document._to_model().spec}
    readers = {"workspace": workspace_models.WorkspaceViewspec, "report": report_models.Spec}
    plain = {}
    for name, model in models.items():
        plain[name] = model.model_dump(mode="json", by_alias=True, exclude_none=True)
        readers[name].model_validate(plain[name])
    return plain

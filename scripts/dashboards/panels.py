"""What the dashboards are made of: panels of one style, each with a sentence that says what it shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, statetimeline, table
from grafana_foundation_sdk.builders import timeseries as series
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Panel = stat.Panel | series.Panel | statetimeline.Panel | table.Panel | heatmap.Panel
P = TypeVar("P", stat.Panel, series.Panel, statetimeline.Panel, table.Panel, heatmap.Panel)

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, RED, BLUE, PURPLE = "green", "#EAB839", "red", "blue", "purple"

Step = tuple[float, str]
"""From this value on, this colour."""
Words = dict[int, tuple[str, str]]
"""Value → the word that stands for it, and its colour."""

UP_OR_DOWN: Words = {0: ("down", RED), 1: ("up", GREEN)}


@dataclass(frozen=True)
class Query:
    """A PromQL expression, and the name of each of its series: `{{label}}` stands for the label's value."""

    expr: str
    legend: str = ""
    unit: str = ""
    """Of a table's column."""


def number(
    title: str,
    description: str,
    query: str | Query,
    unit: str,
    *steps: Step,
    base: str = GREEN,
    decimals: int = 0,
) -> stat.Panel:
    """One number over the line of how it came there; below the first step its colour is `base`."""
    return (
        _panel(stat.Panel(), title, description, [Query(query) if isinstance(query, str) else query])
        .unit(unit)
        .decimals(decimals)
        .thresholds(_thresholds(steps, base))
        .reduce_options(_LAST)
        .color_mode(kinds.BigValueColorMode.VALUE)
        .graph_mode(kinds.BigValueGraphMode.AREA)
    )


def word(title: str, description: str, expr: str, words: Words) -> stat.Panel:
    """One word on a ground of its colour."""
    return (
        number(title, description, expr, "none")
        .mappings([_mapping(words)])
        .color_mode(kinds.BigValueColorMode.BACKGROUND_SOLID)
        .graph_mode(kinds.BigValueGraphMode.NONE)
    )


def names(title: str, description: str, query: Query) -> stat.Panel:
    """The names of the query's series, whatever their values."""
    return (
        _panel(stat.Panel(), title, description, [query])
        .thresholds(_thresholds((), BLUE))
        .reduce_options(_LAST)
        .text_mode(kinds.BigValueTextMode.NAME)
        .graph_mode(kinds.BigValueGraphMode.NONE)
    )


def lines(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    stacked: bool = False,
    limit: float | None = None,
    colours: dict[str, str] | None = None,
    most: float | None = None,
) -> series.Panel:
    """Lines over time. A dashed one stands at `limit`; `colours` are those of the names that match."""
    panel = (
        _panel(series.Panel(), title, description, queries)
        .unit(unit)
        .min(0)
        .line_width(1)
        .fill_opacity(50 if stacked else 8)
        .show_points(kinds.VisibilityMode.NEVER)
        .legend(_LEGEND)
        .tooltip(_TOOLTIP)
    )
    if most is not None:
        panel.max(most)
    if stacked:
        panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL))
    if limit is not None:
        dashed = common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED)
        panel.thresholds(_thresholds([(limit, RED)], "transparent")).thresholds_style(dashed)
    for pattern, colour in (colours or {}).items():
        fixed = {"mode": "fixed", "fixedColor": colour}
        panel.override_by_regexp(pattern, [models.DynamicConfigValue(id_val="color", value=fixed)])
    return panel


def states(title: str, description: str, query: Query, words: Words) -> statetimeline.Panel:
    """A bar for each series, coloured by its state at each time."""
    return (
        _panel(statetimeline.Panel(), title, description, [query])
        .mappings([_mapping(words)])
        .fill_opacity(80)
        .line_width(0)
        .show_value(kinds.VisibilityMode.NEVER)
        .legend(common.VizLegendOptions().show_legend(False).display_mode(kinds.LegendDisplayMode.LIST))
    )


def heat(title: str, description: str, histogram: str, unit: str) -> heatmap.Panel:
    """How the values of a histogram are spread, over time; `histogram` is summed by `le`."""
    query = Query(histogram, "{{le}}")
    target = _target(query, "A").format(PromQueryFormat.HEATMAP)
    return (
        _panel(heatmap.Panel(), title, description, [])
        .with_target(target)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Turbo").steps(64))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .hide_legend()
    )


def side_by_side(title: str, description: str, *columns: Query) -> table.Panel:
    """A table: a line for each set of labels that the queries share, a column for each query's value."""
    panel = _panel(table.Panel(), title, description, [])
    names: dict[str, str] = {}
    for letter, column in zip("ABCDEFGH", columns, strict=False):
        panel.with_target(_target(column, letter).instant().format(PromQueryFormat.TABLE))
        names[f"Value #{letter}"] = column.legend
        unit = models.DynamicConfigValue(id_val="unit", value=column.unit)
        panel.override_by_name(column.legend, [unit])
    rename = {"excludeByName": {"Time": True}, "renameByName": names}
    return panel.with_transformation(
        models.DataTransformerConfig(id_val="merge", options={})
    ).with_transformation(models.DataTransformerConfig(id_val="organize", options=rename))


def _panel(panel: P, title: str, description: str, queries: Sequence[Query]) -> P:
    panel.title(title).description(description).datasource(SOURCE)
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        panel.with_target(_target(query, letter))
    return panel


def _target(query: Query, letter: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(letter).datasource(SOURCE)
    # Exemplars lead from a slow request to its trace.
    target = target.exemplar(True) if "_duration_seconds_bucket" in query.expr else target
    return target.legend_format(query.legend) if query.legend else target


def _thresholds(steps: Sequence[Step], base: str) -> dashboard.ThresholdsConfig:
    every = [models.Threshold(value=None, color=base)]
    every += [models.Threshold(value=value, color=colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(every)


def _mapping(words: Words) -> models.ValueMap:
    shown = {
        str(value): models.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(words.items())
    }
    return models.ValueMap(options=shown)


_LAST = common.ReduceDataOptions().calcs(["lastNotNull"])
_LEGEND = (
    common.VizLegendOptions()
    .display_mode(kinds.LegendDisplayMode.LIST)
    .placement(kinds.LegendPlacement.BOTTOM)
    .show_legend(True)
)
_TOOLTIP = common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING)

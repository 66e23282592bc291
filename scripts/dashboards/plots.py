"""What stands in a panel: numbers, words, lines, states, heat, tables."""

import itertools
import math
import re
from datetime import UTC, datetime
from typing import Any

from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator, MultipleLocator

from scripts.dashboards.canvas import GRID, PALETTE, PANEL, QUIET, TEXT, Canvas, colour
from scripts.dashboards.units import shown

Box = tuple[float, float, float, float]
Series = tuple[str, list[float], list[float]]
"""Name, times, values."""

_TITLE, _LEGEND, _MARGIN = 30, 22, 12


class Panel:
    """A panel of a dashboard's JSON, and what its queries answered."""

    def __init__(self, content: dict[str, Any], answers: dict[str, list[Any]], marks: list[float]) -> None:
        self.content = content
        self.answers = answers
        self.marks = marks
        """When alerts began to fire."""
        self.defaults: dict[str, Any] = content.get("fieldConfig", {}).get("defaults", {})
        self.unit: str = self.defaults.get("unit", "")

    def series(self) -> list[Series]:
        """Every series with a number in it, named as its query's legend says, in Grafana's order."""
        found = []
        for target in self.content["targets"]:
            for answer in self.answers[target["refId"]]:
                points = [(at, float(value)) for at, value in answer["values"]]
                points = [point for point in points if math.isfinite(point[1])]
                if points:
                    name = _named(target.get("legendFormat", ""), answer["metric"])
                    found.append((name, *map(list, zip(*points, strict=True))))
        return found  # type: ignore[return-value]

    def step_colour(self, value: float) -> str:
        """The colour of the last threshold that a value reaches."""
        steps = self.defaults["thresholds"]["steps"]
        return colour([s["color"] for s in steps if s["value"] is None or value >= s["value"]][-1])

    def word(self, value: float) -> tuple[str, str] | None:
        """The word and the colour that stand for a value, if one does."""
        for mapping in self.defaults.get("mappings", ()):
            if found := mapping["options"].get(f"{value:g}"):
                return found["text"], colour(found["color"])
        return None

    def line_colour(self, name: str, number: int) -> str:
        """The colour of a line: fixed by its name, or the next of the palette."""
        for override in self.content["fieldConfig"]["overrides"]:
            if re.fullmatch(override["matcher"]["options"], name):
                return colour(override["properties"][0]["value"]["fixedColor"])
        return PALETTE[number % len(PALETTE)]


def _named(legend: str, metric: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda label: metric.get(label[1], ""), legend)


def draw(canvas: Canvas, panel: Panel, start: float, end: float) -> None:
    """Draw a panel, frame and all."""
    box = canvas.box(panel.content["gridPos"])
    left, top, width, height = box
    every = panel.series()
    word = panel.word(every[0][2][-1]) if every and panel.content["type"] == "stat" else None
    canvas.frame(box, word[1] if word else PANEL)
    ink = "white" if word else TEXT
    canvas.text(left + _MARGIN, top + 16, panel.content["title"], fontsize=10, color=ink)
    if not every:
        canvas.text(left + width / 2, top + height / 2, "No data", ha="center", color=QUIET, fontsize=11)
        return
    inner = (left + _MARGIN, top + _TITLE, width - 2 * _MARGIN, height - _TITLE - 8)
    _KINDS[panel.content["type"]](canvas, panel, inner, start, end)


def _stat(canvas: Canvas, panel: Panel, inner: Box, start: float, end: float) -> None:
    left, top, width, height = inner
    every, options = panel.series(), panel.content["options"]
    spark = options["graphMode"] == "area" and len(every) == 1
    share = width / len(every)
    for place, (name, times, values) in enumerate(every):
        centre, now = left + share * (place + 0.5), values[-1]
        text, ink = shown(now, panel.unit, panel.defaults.get("decimals")), panel.step_colour(now)
        if options["textMode"] == "name":
            text = name
        elif len(every) > 1:
            canvas.text(centre, top + 8, name, ha="center", color=QUIET)
        if word := panel.word(now):
            text, ink = word[0], "white"
        middle = top + height * (0.42 if spark else 0.5)
        canvas.text(centre, middle, text, ha="center", color=ink, fontsize=22)
        if spark:
            _spark(canvas, inner, times, values, ink).set_xlim(start, end)


def _spark(canvas: Canvas, inner: Box, times: list[float], values: list[float], ink: str) -> Any:
    """The small line at a number's foot."""
    left, top, width, height = inner
    edge = _MARGIN - 1
    axes = canvas.axes(left - edge, top + height * 0.66, width + 2 * edge, height * 0.34 + 7)
    floor = min(0, *values)
    axes.axis("off")
    axes.plot(times, values, color=ink, linewidth=1)
    axes.fill_between(times, values, floor, color=ink, alpha=0.15, linewidth=0)
    axes.set_ylim(floor, (max(values) or 1) * 1.1)
    return axes


def _lines(canvas: Canvas, panel: Panel, inner: Box, start: float, end: float) -> None:
    left, top, width, height = inner
    every, custom = panel.series(), panel.defaults["custom"]
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    base: dict[float, float] = {}
    layers = []
    for _, times, values in every:
        floor = [base.get(at, 0.0) if stacked else 0.0 for at in times]
        tops = [low + value for low, value in zip(floor, values, strict=True)]
        base.update(zip(times, tops, strict=True))
        layers.append((times, floor, tops))
    highest = max(max(tops) for *_, tops in layers)
    limits = [step["value"] for step in panel.defaults.get("thresholds", {}).get("steps", ())][1:]
    highest = max(highest, *(limit for limit in limits if limit <= 2 * highest), 0.0) or 1
    most = panel.defaults.get("max", highest * 1.08)
    ticks: Locator = MaxNLocator(5)
    if panel.unit in ("bytes", "Bps"):
        ticks = MultipleLocator(2 ** math.ceil(math.log2(most / 5)))
    room = max(len(shown(tick, panel.unit)) for tick in ticks.tick_values(0, most))
    axes = _axes(canvas, (left, top, width, height - _LEGEND), start, end, labels=8 + 5.7 * room)
    axes.yaxis.set_major_locator(ticks)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, panel.unit)))
    axes.set_ylim(0, most)
    inks = [panel.line_colour(name, number) for number, (name, *_) in enumerate(every)]
    for ink, (times, floor, tops) in zip(inks, layers, strict=True):
        xs, lows, highs = _broken(times, floor, tops)
        axes.plot(xs, highs, color=ink, linewidth=1.1)
        axes.fill_between(xs, lows, highs, color=ink, alpha=custom["fillOpacity"] / 100, linewidth=0)
    for limit in limits:
        axes.axhline(limit, color=colour("red"), linewidth=0.9, linestyle=(0, (6, 4)))
    for mark in panel.marks:
        axes.axvline(mark, color=colour("red"), linewidth=0.6, linestyle=(0, (3, 3)), alpha=0.55)
    names = [(name, ink) for (name, *_), ink in zip(every, inks, strict=True)]
    _legend(canvas, left, top + height - 6, width, names)


def _broken(times: list[float], *rows: list[float]) -> list[list[float]]:
    """The times and the rows, broken where a sample is missing."""
    step = min((after - before for before, after in itertools.pairwise(times)), default=1)
    points = [(at, *values) for at, *values in zip(times, *rows, strict=True)]
    whole = points[:1]
    for before, point in itertools.pairwise(points):
        if point[0] - before[0] > 1.5 * step:
            whole.append((point[0], *[math.nan] * len(rows)))
        whole.append(point)
    return [list(column) for column in zip(*whole, strict=True)]


def _legend(canvas: Canvas, left: float, middle: float, width: float, names: list[tuple[str, str]]) -> None:
    x = left
    for place, (name, ink) in enumerate(names):
        text = canvas.text(x + 17, middle, name, fontsize=8, color=QUIET)
        used = 17 + canvas.width_of(text) + 14
        if x + used > left + width and place:
            text.remove()
            canvas.text(x, middle, f"+{len(names) - place}", fontsize=8, color=QUIET)
            return
        canvas.text(x, middle, "━", color=ink, fontsize=9, fontweight="bold")
        x += used


def _axes(canvas: Canvas, box: Box, start: float, end: float, labels: float) -> Any:
    left, top, width, height = box
    axes = canvas.axes(left + labels, top, width - labels, height - 18)
    axes.set_xlim(start, end)
    axes.xaxis.set_major_locator(MultipleLocator(30 if width > 380 else 60))
    axes.xaxis.set_major_formatter(FuncFormatter(_clock))
    axes.tick_params(length=0, labelsize=8)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    return axes


def _clock(at: float, _: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def _states(canvas: Canvas, panel: Panel, inner: Box, start: float, end: float) -> None:
    every = sorted(panel.series(), reverse=True)
    axes = _axes(canvas, inner, start, end, labels=26 + 5.6 * max(len(name) for name, *_ in every))
    for row, (_, times, values) in enumerate(every):
        for number, (at, value) in enumerate(zip(times, values, strict=True)):
            until = times[number + 1] if number + 1 < len(times) else at
            word = panel.word(value)
            step = min(until - at, 2) or 1
            axes.barh(
                row, step, left=at, height=0.72, color=word[1] if word else QUIET, alpha=0.85, linewidth=0
            )
    axes.set_ylim(-0.6, len(every) - 0.4)
    axes.set_yticks(range(len(every)), [name.removeprefix("Miaas") for name, *_ in every])
    axes.grid(visible=False, axis="y")


def _heat(canvas: Canvas, panel: Panel, inner: Box, start: float, end: float) -> None:
    series = sorted(
        ((float(name), times, values) for name, times, values in panel.series()), key=lambda s: s[0]
    )
    times = sorted({at for _, every, _ in series for at in every})
    counts, below = [], dict.fromkeys(times, 0.0)
    for _, every, values in series:
        here = dict(zip(every, values, strict=True))
        counts.append([max(0.0, here.get(at, below[at]) - below[at]) for at in times])
        below = {at: here.get(at, below[at]) for at in times}
    used = [number for number, row in enumerate(counts) if max(row) > 0.5]
    first, last = min(used), max(used)
    axes = _axes(canvas, inner, start, end, labels=50)
    rows = [[value if value > 0.5 else math.nan for value in row] for row in counts[first : last + 1]]
    axes.pcolormesh(times, range(len(rows)), rows, cmap="turbo", norm=LogNorm(0.5), shading="nearest")
    bounds = [bound for bound, *_ in series][first : last + 1]
    ticks = range(0, len(bounds), max(1, len(bounds) // 6))
    axes.set_yticks(list(ticks), [_bound(bounds[tick], panel) for tick in ticks])
    axes.grid(visible=False)


def _bound(value: float, panel: Panel) -> str:
    return "+Inf" if math.isinf(value) else shown(value, panel.content["options"]["yAxis"]["unit"])


def _table(canvas: Canvas, panel: Panel, inner: Box, start: float, end: float) -> None:
    left, top, width, _ = inner
    units = {
        override["matcher"]["options"]: override["properties"][0]["value"]
        for override in panel.content["fieldConfig"]["overrides"]
    }
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    labels: list[str] = []
    for target in panel.content["targets"]:
        for answer in panel.answers[target["refId"]]:
            labels = sorted(answer["metric"])
            value = float(answer["values"][-1][1])
            rows.setdefault(tuple(answer["metric"][label] for label in labels), {})[
                target["legendFormat"]
            ] = value
    columns = [*labels, *units]
    share = width / len(columns)
    for place, column in enumerate(columns):
        canvas.text(left + place * share, top + 8, column, color=colour("blue"))
    for number, (key, cells) in enumerate(sorted(rows.items())):
        y = top + 36 + 28 * number
        canvas.rule(left, y - 14, width)
        texts = [*key, *(_cell(cells.get(name, math.nan), unit) for name, unit in units.items())]
        for place, text in enumerate(texts):
            canvas.text(left + place * share, y, text, color=TEXT)


def _cell(value: float, unit: str) -> str:
    return "" if math.isnan(value) else shown(value, unit)


_KINDS = {
    "stat": _stat,
    "timeseries": _lines,
    "state-timeline": _states,
    "heatmap": _heat,
    "table": _table,
}

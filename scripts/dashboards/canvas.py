"""A dashboard's ground: the page in Grafana's dark colours, its headings, and the frames of its panels."""

from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch

WIDTH, UNIT, GAP = 1600, 38, 8
"""Pixels: the page's width, a grid row's height with its gap, the gap."""
HEAD = 54
PAGE, PANEL, EDGE, TEXT, QUIET, GRID = "#111217", "#181b1f", "#25282e", "#d5d6de", "#8e9099", "#2a2d34"
COLOURS = {"green": "#73BF69", "red": "#F2495C", "blue": "#5794F2", "purple": "#B877D9"}
PALETTE = (
    *("#73BF69", "#F2CC0C", "#8AB8FF", "#FF780A", "#F2495C", "#5794F2", "#B877D9", "#705DA0", "#37872D"),
    *("#FADE2A", "#447EBC", "#C15C17", "#890F02", "#0A437C", "#6D1F62", "#584477"),
)
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": TEXT,
    "axes.facecolor": PANEL,
    "axes.edgecolor": GRID,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "figure.facecolor": PAGE,
    "figure.dpi": 100,
}


def colour(name: str) -> str:
    """A colour as matplotlib takes it."""
    return COLOURS.get(name, name)


class Canvas:
    """A page of so many grid rows; positions on it are in pixels from its upper left corner."""

    def __init__(self, rows: int) -> None:
        matplotlib.use("Agg")
        matplotlib.rcParams.update(STYLE)
        self.height = HEAD + rows * UNIT + GAP
        self.figure = pyplot.figure(figsize=(WIDTH / 100, self.height / 100))

    def box(self, grid: dict[str, int]) -> tuple[float, float, float, float]:
        """Left, top, width and height of a place on the grid."""
        column = (WIDTH - GAP) / 24
        left, top = GAP + grid["x"] * column, HEAD + grid["y"] * UNIT
        return left, top, grid["w"] * column - GAP, grid["h"] * UNIT - GAP

    def text(self, x: float, y: float, text: str, **style: Any) -> Any:
        """Write, by default with the text's left end at `x` and its middle at `y`."""
        style = {"va": "center", "ha": "left", **style}
        return self.figure.text(x / WIDTH, 1 - y / self.height, text, **style)

    def frame(self, box: tuple[float, float, float, float], fill: str = PANEL) -> None:
        """The ground of a panel."""
        left, top, width, height = box
        self.figure.add_artist(
            FancyBboxPatch(
                (left / WIDTH, 1 - (top + height) / self.height),
                width / WIDTH,
                height / self.height,
                boxstyle="round,pad=0,rounding_size=0.0015",
                mutation_aspect=WIDTH / self.height,
                facecolor=fill,
                edgecolor=EDGE,
                linewidth=0.8,
                zorder=-1,
                transform=self.figure.transFigure,
            )
        )

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        """Axes at a place of the page."""
        bottom = 1 - (top + height) / self.height
        return self.figure.add_axes((left / WIDTH, bottom, width / WIDTH, height / self.height))

    def rule(self, left: float, y: float, width: float) -> None:
        """A thin line across."""
        ends, level = [left / WIDTH, (left + width) / WIDTH], 1 - y / self.height
        line = Line2D(ends, [level, level], color=GRID, linewidth=0.8, transform=self.figure.transFigure)
        self.figure.add_artist(line)

    def width_of(self, text: Any) -> float:
        """How many pixels wide a text is."""
        return float(text.get_window_extent(self.figure.canvas.get_renderer()).width)

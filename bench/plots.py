"""The pictures: throughput, latency and CPU beside the peers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.results import Run
from bench.summary import Figure, connection_counts, figure

_COLOURS = {
    "adapter": "#0b6e4f",
    "adapter-2": "#2fa67c",
    "adapter-single": "#9ad2bb",
    "adapter-source": "#c3cf7a",
    "triton": "#5a7fb5",
    "kserve": "#d1793f",
    "mlserver": "#e0b04a",
    "naive": "#a2647c",
    "bare": "#b9bec4",
}
_NAMES = {
    "adapter": "adapter",
    "adapter-2": "adapter, 2 processes",
    "adapter-single": "adapter, not joined",
    "adapter-source": "adapter, not compiled",
    "triton": "Triton HTTP",
    "kserve": "KServe",
    "mlserver": "MLServer",
    "naive": "hand-written",
    "bare": "bare ASGI",
}
_INK, _QUIET, _LINE = "#22272e", "#6b737c", "#e4e7ea"
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _QUIET,
    "axes.titlecolor": _INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "text.color": _INK,
    "xtick.color": _QUIET,
    "ytick.color": _INK,
    "figure.facecolor": "white",
    "savefig.dpi": 160,
}


@dataclass(frozen=True)
class _Chart:
    file: str
    title: str
    subtitle: str
    load: str
    measure: str
    digits: int = 0


_CHARTS = (
    _Chart(
        "iris-throughput",
        "Requests per second, one row of iris",
        "more is better; the line spans the quartiles",
        "iris",
        "per_second",
    ),
    _Chart(
        "iris-latency",
        "Latency in milliseconds, one row of iris",
        "less is better; bar: median, line: up to the 99th percentile",
        "iris",
        "p50_ms",
        2,
    ),
    _Chart(
        "iris64-throughput",
        "Requests per second, 64 rows of iris",
        "more is better; the line spans the quartiles",
        "iris64",
        "per_second",
    ),
    _Chart(
        "img-throughput",
        "Requests per second, a picture as JSON numbers",
        "more is better; the line spans the quartiles",
        "img",
        "per_second",
    ),
    _Chart(
        "img-latency",
        "Latency in milliseconds, a picture as JSON numbers",
        "less is better; bar: median, line: up to the 99th percentile",
        "img",
        "p50_ms",
    ),
    _Chart(
        "iris-cpu",
        "CPU microseconds per request, one row of iris",
        "less is better; dark: the server itself, pale: Triton behind it",
        "iris",
        "cpu_us",
    ),
    _Chart(
        "img-cpu",
        "CPU microseconds per request, a picture as JSON numbers",
        "less is better; dark: the server itself, pale: Triton behind it",
        "img",
        "cpu_us",
    ),
)


def write(run: Run, folder: Path) -> None:
    """Write every picture as a PNG into `folder`."""
    import matplotlib  # whoever only reads the page needs none

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE):
        for chart in _CHARTS:
            _draw(run, chart, folder / f"{chart.file}.png")


def files(run: Run) -> list[tuple[str, str]]:
    """The name of each picture's file, and its title."""
    return [(f"{chart.file}.png", chart.title) for chart in _CHARTS if connection_counts(run, chart.load)]


def _draw(run: Run, chart: _Chart, path: Path) -> None:
    """One panel of bars for each number of connections."""
    from matplotlib import pyplot

    counts = connection_counts(run, chart.load)
    # Bare ASGI asks no Triton: beside it all others would be as small as each other.
    servers = [server for server in run.servers if server != "bare" or chart.file == "iris-cpu"]
    if not counts:
        return
    height = 1.35 + 0.34 * len(servers)
    picture, axes = pyplot.subplots(
        1, len(counts), figsize=(4.2 * len(counts) + 1.6, height), sharey=True, squeeze=False
    )
    for axis, connections in zip(axes[0], counts, strict=True):
        for row, server in enumerate(servers):
            found = figure(run, server, chart.load, connections, chart.measure)
            if found:
                _bar(run, chart, axis, row, server, connections, found)
        _dress(axis, "1 connection" if connections == 1 else f"{connections} connections")
    # The panels share this axis.
    first = axes[0][0]
    first.set_yticks(range(len(servers)), [_NAMES.get(server, server) for server in servers])
    first.set_ylim(len(servers) - 0.4, -0.6)
    for label in first.get_yticklabels():
        if label.get_text() == _NAMES["adapter"]:
            label.set_fontweight("bold")
    top = 1 - 0.1 / height
    picture.text(0.012, top, chart.title, fontsize=14, fontweight="bold", va="top")
    picture.text(0.012, top - 0.27 / height, chart.subtitle, fontsize=10, color=_QUIET, va="top")
    picture.tight_layout(rect=(0, 0, 1, 1 - 0.55 / height), w_pad=2.5)
    picture.savefig(path)
    pyplot.close(picture)


def _bar(run: Run, chart: _Chart, axis: Any, row: int, server: str, connections: int, found: Figure) -> None:
    """A server's bar with its spread, and its figure at the end."""
    colour = _COLOURS.get(server, "#888888")
    axis.barh(row, found.median, height=0.68, color=colour, zorder=2)
    end, shown = found.high, f"{found.median:,.{chart.digits}f}"
    if chart.measure == "p50_ms":
        tail = figure(run, server, chart.load, connections, "p99_ms")
        end = max(found.median, tail.median if tail else 0.0)
        shown += f" / {end:,.{chart.digits}f}"
        axis.plot([found.median, end], [row, row], color=colour, linewidth=1.6, alpha=0.75, zorder=3)
        axis.plot([end], [row], marker="|", color=colour, markersize=8, zorder=3)
    elif chart.measure == "cpu_us" and server not in ("triton", "bare"):
        behind = figure(run, server, chart.load, connections, "triton_cpu_us")
        pale = behind.median if behind else 0.0
        axis.barh(row, pale, left=found.median, height=0.68, color=colour, alpha=0.35, zorder=2)
        end, shown = found.median + pale, f"{found.median:,.0f} + {pale:,.0f}"
    else:
        axis.plot([found.low, found.high], [row, row], color=_INK, linewidth=1.2, alpha=0.6, zorder=3)
        end = max(found.median, found.high)
    weight = "bold" if server == "adapter" else "normal"
    place = (4, 0)
    axis.annotate(
        shown, (end, row), place, textcoords="offset points", va="center", fontsize=9, fontweight=weight
    )


def _dress(axis: Any, title: str) -> None:
    from matplotlib import ticker

    axis.set_title(title, pad=8, color=_QUIET)
    axis.set_xlim(0, axis.get_xlim()[1] * 1.22)
    axis.xaxis.set_major_locator(ticker.MaxNLocator(4))
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.tick_params(length=0)
    axis.grid(axis="x", color=_LINE, zorder=0)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)

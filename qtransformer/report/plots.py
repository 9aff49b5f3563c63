"""Plots of a run, one function each, and how they reach a page or a file."""

import io
import re
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from qtransformer.files import explained_storage_errors, replaced_file
from qtransformer.report.calibration import ReliabilityBin
from qtransformer.report.palette import BAD, DATA, GOOD, LINE_COLORS, METHOD_COLORS, OURS, PAPER, SCREEN, Theme, method_color
from qtransformer.report.record import Curves, DataSummary, Distributions, Method

SIZE = (5.6, 3.3)
"""Of a plot [inch of 72 pixels]: two stand side by side on a page, one on a phone."""
MOST_POINTS = 300
"""Longer curves are averaged down: a page stays small."""

_serial = count()


def new_figure(theme: Theme, size: tuple[float, float] = SIZE, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty plot without a frame."""
    figure = Figure(size, layout="constrained")
    axes: list[Axes] = list(np.atleast_1d(figure.subplots(1, columns)))
    for ax in axes:
        ax.patch.set_alpha(0)
        ax.spines[:].set_visible(False)
        ax.spines["bottom"].set(visible=True, color=theme.grid, linewidth=1)
        ax.tick_params(length=0, colors=theme.muted, labelsize=10, pad=5)
        ax.grid(axis="y", color=theme.grid, linewidth=1)
        ax.set_axisbelow(True)
        ax.xaxis.label.set(color=theme.muted, size=10.5)
        ax.yaxis.label.set(color=theme.muted, size=10.5)
    return figure, axes


def to_svg(figure: Figure) -> str:
    """An inline SVG in the page's own letters and colours."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "qtransformer", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s+xmlns(:\w+)?=\"[^\"]*\"", "", svg).replace("xlink:href", "href")
    for code, name in zip(SCREEN, Theme._fields, strict=True):
        svg = svg.replace(code, f"var(--{name})")
    svg = re.sub(r"font: ([^;\"]*?)([\d.]+px)[^;\"]*", r"font: \1\2 var(--sans)", svg)
    prefix = f"p{next(_serial)}-"  # plots share one page: names must not meet
    svg = re.sub(r"\bid=\"", f'id="{prefix}', svg)
    svg = re.sub(r"(href=\"#|url\(#)", rf"\g<1>{prefix}", svg)
    return re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r'<svg \1 role="img">', svg, count=1)


def to_png(figure: Figure, path: Path) -> None:
    """A file at twice the screen's resolution, on white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with explained_storage_errors(path), replaced_file(path) as fresh:
        figure.savefig(fresh, format="png", dpi=200, facecolor=PAPER.page)


def success_plot(methods: Sequence[Method], data: DataSummary | None, theme: Theme) -> Figure:
    """Success rates with their 95% intervals, best at the top."""
    rows = [(m.title, m.color, m.evaluation.success, m.evaluation.interval, m.name == OURS) for m in methods]
    if data is not None:
        rows.append(("the data", METHOD_COLORS[DATA], data.success, (data.low, data.high), False))
    rows.sort(key=lambda row: row[2])
    figure, (ax,) = new_figure(theme, (6.6, 0.5 + 0.46 * max(2, len(rows))))
    ax.grid(visible=False)
    ax.grid(axis="x", color=theme.grid, linewidth=1)
    ax.spines["bottom"].set_visible(False)
    for y, (_, color, success, (low, high), ours) in enumerate(rows):
        ax.barh(y, success, height=0.62, color=color, alpha=1.0 if ours else 0.75)
        ax.plot([low, high], [y, y], color=theme.ink, linewidth=1.6, solid_capstyle="butt")
        for end in (low, high):
            ax.plot([end, end], [y - 0.13, y + 0.13], color=theme.ink, linewidth=1.6)
        words = f"{success:.2f}  [{low:.2f}, {high:.2f}]"
        ax.text(high + 0.02, y, words, va="center", color=theme.ink, size=11, weight="bold" if ours else "normal")
    ax.set_yticks(range(len(rows)), [literal(row[0]) for row in rows])
    ax.set(xlim=(0, 1.34), ylim=(-0.6, len(rows) - 0.4), xticks=[0, 0.25, 0.5, 0.75, 1], xlabel="share of episodes that succeed")
    for label, row in zip(ax.get_yticklabels(), rows, strict=True):
        label.set(color=theme.ink, size=11.5, weight="bold" if row[4] else "normal")
    return figure


def curves_plot(
    curves: Curves,
    names: Mapping[str, str],
    theme: Theme,
    *,
    limits: tuple[float, float] | None = None,
    log: bool = False,
) -> Figure:
    """Metrics over training.

    Args:
        names: Metric to what it is called in the legend.
        limits: Range of the vertical axis; None fits it.
        log: Logarithmic vertical axis, where all values are positive.
    """
    figure, (ax,) = new_figure(theme)
    lines = [(label, *thin(*curves.series(name))) for name, label in names.items()]
    lines = [line for line in lines if len(line[1])]
    for (label, x, y), color in zip(lines, LINE_COLORS, strict=False):
        _curve(ax, x, y, color, label)
    if log and lines and all((y > 0).all() for _, _, y in lines):
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.minorticks_off()
    if limits is not None:
        ax.set_ylim(*limits)
    _finish(ax, theme, legend=len(lines) > 1)
    return figure


def validation_plot(curves: Mapping[str, tuple[str, Curves]], theme: Theme) -> Figure:
    """Success on validation objects over training, per method (name to label and curves)."""
    figure, (ax,) = new_figure(theme)
    _validation(ax, curves)
    _finish(ax, theme, legend=len(curves) > 1)
    return figure


def _validation(ax: Axes, curves: Mapping[str, tuple[str, Curves]]) -> None:
    for name, (label, each) in curves.items():
        x, y = each.series("validation_success")
        if len(x):
            _curve(ax, x, y, method_color(name), label, marker="o")
    ax.set(ylim=(0, 1.03), ylabel="success, validation objects")


def learning_plot(curves: Mapping[str, tuple[str, Curves]], theme: Theme) -> Figure:
    """For the README: success on validation objects, and the value of the start beside the data's return."""
    figure, (left, right) = new_figure(theme, (9.0, 3.3), columns=2)
    _validation(left, curves)
    _finish(left, theme, legend=len(curves) > 1)
    names = {"q_start": "highest Q(s₀)", "return_start": "return in the data"}
    shown = 0
    for (name, label), color in zip(names.items(), LINE_COLORS, strict=False):
        x, y = thin(*curves[OURS][1].series(name)) if OURS in curves else (np.zeros(0), np.zeros(0))
        shown += bool(len(x))
        if len(x):
            _curve(right, x, y, color, label)
    right.set_ylabel("discounted return from the start")
    _finish(right, theme, legend=shown > 1)
    return figure


def reliability_plot(table: Sequence[ReliabilityBin], v_min: float, v_max: float, theme: Theme) -> Figure:
    """Mean outcome over mean prediction; a point's area grows with its steps."""
    figure, (ax,) = new_figure(theme)
    ax.plot([v_min, v_max], [v_min, v_max], color=theme.muted, linewidth=1.2, linestyle=(0, (4, 3)))
    ax.text(v_max, v_max, "exact ", color=theme.muted, size=9.5, ha="right", va="bottom", rotation=0)
    most = max(b.steps for b in table)
    x, y = [b.predicted for b in table], [b.outcome for b in table]
    color = METHOD_COLORS[OURS]
    ax.vlines(x, [b.low for b in table], [b.high for b in table], color=color, alpha=0.55, linewidth=2)
    ax.plot(x, y, color=color, linewidth=1.4, alpha=0.6)
    ax.scatter(x, y, s=[14 + 100 * b.steps / most for b in table], color=color, zorder=3, linewidths=0)
    margin = 0.04 * (v_max - v_min)
    ax.set(xlim=(v_min - margin, v_max + margin), ylim=(v_min - margin, v_max + 2 * margin))
    ax.set(xlabel="predicted value", ylabel="return that followed")
    return figure


def distribution_plot(distributions: Distributions, theme: Theme) -> Figure:
    """Probability of every return, step by step."""
    figure, (ax,) = new_figure(theme)
    ax.grid(visible=False)
    steps, z = len(distributions.values), distributions.locations
    half = (z[1] - z[0]) / 2 if len(z) > 1 else 0.5
    blue = METHOD_COLORS[OURS]
    ramp = LinearSegmentedColormap.from_list("ramp", [blue + "00", blue + "66", blue])
    image = np.asarray(distributions.probs).T
    extent = (0.5, steps + 0.5, z[0] - half, z[-1] + half)
    image = image / max(float(image.max()), 1e-12)
    ax.imshow(image, aspect="auto", origin="lower", cmap=ramp, extent=extent, interpolation="nearest", vmin=0, vmax=1)
    ax.plot(range(1, steps + 1), distributions.values, color=LINE_COLORS[1], linewidth=2, marker="o", markersize=3.5)
    ax.set(xlabel="step of the episode", ylabel="return")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    _legend(ax, theme, [Patch(color=blue, label="probability"), Patch(color=LINE_COLORS[1], label="mean: the value")])
    return figure


def lengths_plot(method: Method, theme: Theme) -> Figure:
    """How long successes and failures took."""
    figure, (ax,) = new_figure(theme, (7.0, 2.9))
    good = [r.steps for r in method.evaluation.results if r.success]
    bad = [r.steps for r in method.evaluation.results if not r.success]
    longest = max([*good, *bad, 1])
    width = max(1, -(-longest // 30))
    edges = [0.5 + k * width for k in range(-(-longest // width) + 1)]
    ax.hist([good, bad], edges, stacked=True, color=[GOOD, BAD], rwidth=0.86)
    ax.set(xlabel="steps", ylabel="episodes")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    _legend(ax, theme, [Patch(color=GOOD, label="success"), Patch(color=BAD, label="failure")])
    return figure


def literal(words: str) -> str:
    """Words for matplotlib, which otherwise reads dollar signs as mathematics."""
    return words.replace("$", r"\$")


def thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `MOST_POINTS` points, each the mean of its neighbours; the last step is kept."""
    if len(x) <= MOST_POINTS:
        return x, y
    groups = np.array_split(np.arange(len(x)), MOST_POINTS)
    return np.array([x[g[-1]] for g in groups]), np.array([y[g].mean() for g in groups])


def _curve(ax: Axes, x: np.ndarray, y: np.ndarray, color: str, label: str, marker: str = "") -> None:
    """A line; a single point is shown as one."""
    ax.plot(x, y, color=color, linewidth=1.9, label=literal(label), marker=marker or ("o" if len(x) == 1 else ""), markersize=4.5)


def _finish(ax: Axes, theme: Theme, legend: bool) -> None:
    ax.set_xlabel("gradient steps")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.margins(x=0.02)
    if ax.lines:
        ax.set_xlim(left=0)
    if ax.get_yscale() == "linear" and ax.lines and ax.get_autoscaley_on():
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    if legend:
        _legend(ax, theme)


def _legend(ax: Axes, theme: Theme, handles: list[Any] | None = None) -> None:
    """Above the plot, where it hides nothing."""
    handles = handles or ax.get_legend_handles_labels()[0]
    look: dict[str, Any] = {
        "frameon": False,
        "fontsize": 10,
        "labelcolor": theme.ink,
        "handlelength": 1.3,
        "columnspacing": 1.4,
    }
    if len(ax.figure.axes) == 1:  # outside of the axes' width, which long labels would eat into
        ax.figure.legend(handles=handles, loc="outside upper left", ncols=3, borderaxespad=0, **look)
    else:
        ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2, **look)

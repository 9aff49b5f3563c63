"""What a study found: a table (CSV and markdown), two plots and a page, made anew from the results of its cells."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from qtransformer.report import plots
from qtransformer.report.palette import METHOD_COLORS, OTHER_COLORS, PAPER, SCREEN, Theme
from qtransformer.report.pieces import card, document, publish, table
from qtransformer.statistics import Estimate, success_difference, success_rate

COLORS = (*METHOD_COLORS.values(), *OTHER_COLORS)
Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ArmResult:
    """What the finished cells of an arm say."""

    name: str
    label: str
    outcomes: dict[int, np.ndarray]
    """Training seed to which scenes succeeded, bool (episodes,)."""
    minutes: float
    """Mean wall-clock of a training's gradient steps."""
    data_success: float
    curves: dict[int, tuple[np.ndarray, np.ndarray]]
    """Training seed to gradient steps and validation success."""
    split: str

    @property
    def estimate(self) -> Estimate:
        return success_rate(list(self.outcomes.values()))


def build_study_report(
    name: str,
    question: str,
    labels: Mapping[str, str],
    cells: Mapping[str, Sequence[str]],
    pairs: Sequence[tuple[str, str]],
    rows: Sequence[Row],
    curves: Sequence[Row],
    out: Path,
    pages: Path,
) -> Path:
    """Write `out/name.csv`, `.md`, `_success.png`, `_curves.png` and `pages/name.html`.

    Args:
        name: of the study.
        question: what it asks.
        labels: arm to what it is called.
        cells: arm to the identities of its cells.
        pairs: arms whose difference is of interest.
        rows: finished cells, of any study.
        curves: points of their learning curves.

    Returns:
        The page.
    """
    arms = [arm for key in cells if (arm := _arm(key, labels[key], cells[key], rows, curves)) is not None]
    known = {arm.name: arm for arm in arms}
    differences = [
        (known[a], known[b], success_difference(known[a].outcomes, known[b].outcomes))
        for a, b in pairs
        if a in known and b in known and known[a].outcomes.keys() & known[b].outcomes.keys()
    ]
    out.mkdir(parents=True, exist_ok=True)
    _write_csv(out / f"{name}.csv", arms)
    (out / f"{name}.md").write_text(_markdown(name, question, arms, differences))
    plots.to_png(success_plot(arms, PAPER), out / f"{name}_success.png")
    drawn = [success_plot(arms, SCREEN)]
    if any(arm.curves for arm in arms):
        plots.to_png(curves_plot(arms, PAPER), out / f"{name}_curves.png")
        drawn.append(curves_plot(arms, SCREEN))
    body = "".join(card("", plots.to_svg(figure)) for figure in drawn)
    body += card("", table(HEADS, [[escape(cell) for cell in row] for row in _cells(arms)], numbers=range(2, len(HEADS))))
    body += card("", table(("difference", "of success"), [(escape(f"{a.label} - {b.label}"), str(d)) for a, b, d in differences]))
    pages.mkdir(parents=True, exist_ok=True)
    header = f"<h1>Study: {escape(name)}</h1><p>{escape(question)}</p>"
    return publish(pages / f"{name}.html", document(f"study {name}", header, body, FOOTNOTE))


FOOTNOTE = "Intervals of 95% from the hierarchical bootstrap over training seeds and episodes."
HEADS = ("arm", "objects", "success", "95% interval", "seeds", "each seed", "minutes of training", "success of the data")


def _arm(name: str, label: str, identities: Sequence[str], rows: Sequence[Row], curves: Sequence[Row]) -> ArmResult | None:
    found = [row for row in rows if row["cell"] in identities]
    if not found:
        return None
    validated = [row for row in curves if row["validation_success"]]
    lines = {
        row["seed"]: [(int(c["step"]), float(c["validation_success"])) for c in validated if c["cell"] == row["cell"]]
        for row in found
    }
    return ArmResult(
        name,
        label,
        {int(row["seed"]): np.array([mark == "1" for mark in row["outcomes"]]) for row in found},
        float(np.mean([float(row["train_seconds"]) for row in found])) / 60,
        float(np.mean([float(row["data_success"]) for row in found])),
        {int(seed): (np.array([s for s, _ in line]), np.array([v for _, v in line])) for seed, line in lines.items() if line},
        found[0]["split"],
    )


def _cells(arms: Sequence[ArmResult]) -> list[list[str]]:
    return [
        [
            arm.label,
            arm.split,
            f"{arm.estimate.mean:.3f}",
            f"[{arm.estimate.low:.3f}, {arm.estimate.high:.3f}]" + (" (1 seed)" if len(arm.outcomes) == 1 else ""),
            str(len(arm.outcomes)),
            " ".join(f"{arm.outcomes[seed].mean():.2f}" for seed in sorted(arm.outcomes)),
            f"{arm.minutes:.1f}",
            f"{arm.data_success:.3f}",
        ]
        for arm in arms
    ]


def _write_csv(path: Path, arms: Sequence[ArmResult]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("arm", *HEADS))
        writer.writerows([arm.name, *row] for arm, row in zip(arms, _cells(arms), strict=True))


def _markdown(
    name: str, question: str, arms: Sequence[ArmResult], differences: Sequence[tuple[ArmResult, ArmResult, Estimate]]
) -> str:
    lines = [f"# {name}", "", question, "", "| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    lines += ["| " + " | ".join(row) + " |" for row in _cells(arms)]
    if differences:
        lines += ["", "| difference of success | 95% interval, paired by seed and scene |", "|---|---|"]
        lines += [f"| {a.label} - {b.label} | {d} |" for a, b, d in differences]
    plot = [f"![learning curves]({name}_curves.png)"] if any(arm.curves for arm in arms) else []
    return "\n".join([*lines, "", FOOTNOTE, "", f"![success]({name}_success.png)", *plot, ""])


def success_plot(arms: Sequence[ArmResult], theme: Theme) -> Figure:
    """Success of every arm with its interval, and a dot for each training seed."""
    figure, (ax,) = plots.new_figure(theme, (7.2, 0.8 + 0.42 * len(arms)))
    ax.grid(visible=False)
    ax.grid(axis="x", color=theme.grid, linewidth=1)
    for y, arm in enumerate(reversed(arms)):
        estimate, color = arm.estimate, COLORS[(len(arms) - 1 - y) % len(COLORS)]
        ax.barh(y, estimate.mean, height=0.6, color=color, alpha=0.8)
        ax.plot([estimate.low, estimate.high], [y, y], color=theme.ink, linewidth=1.6)
        rates = [outcome.mean() for outcome in arm.outcomes.values()]
        ax.scatter(rates, [y] * len(rates), s=14, color=theme.page, edgecolors=theme.ink, linewidths=0.9, zorder=3)
        ax.text(max(estimate.high, *rates) + 0.02, y, f"{estimate.mean:.2f}", va="center", color=theme.ink, size=11)
    ax.set_yticks(range(len(arms)), [plots.literal(arm.label) for arm in reversed(arms)])
    ax.set(xlim=(0, 1.08), ylim=(-0.6, len(arms) - 0.4), xlabel="share of episodes that succeed")
    for label in ax.get_yticklabels():
        label.set(color=theme.ink, size=11)
    return figure


def curves_plot(arms: Sequence[ArmResult], theme: Theme) -> Figure:
    """Validation success over gradient steps: the mean of the seeds, and the band from the lowest to the highest."""
    figure, (ax,) = plots.new_figure(theme, (7.2, 3.8))
    for i, arm in enumerate(arms):
        if not arm.curves:
            continue
        steps = sorted(set.intersection(*(set(x.tolist()) for x, _ in arm.curves.values())))
        values = np.array([[y[x.tolist().index(step)] for step in steps] for x, y in arm.curves.values()])
        color = COLORS[i % len(COLORS)]
        ax.plot(steps, values.mean(0), color=color, linewidth=2, marker="o", markersize=3.5, label=plots.literal(arm.label))
        ax.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.12, linewidth=0)
    ax.set(ylim=(0, 1), xlabel="gradient steps", ylabel="success on validation objects")
    legend = ax.legend(frameon=False, fontsize=9.5, loc="upper left", ncols=2)
    for words in legend.get_texts():
        words.set_color(theme.ink)
    return figure

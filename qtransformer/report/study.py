"""What a study found: a table as CSV and markdown, plots, and a page, made anew from the results of its cells."""

import csv
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from qtransformer.files import explained_storage_errors, replaced_file, write_text
from qtransformer.intervals import Estimate, success_difference, success_rate
from qtransformer.report import plots
from qtransformer.report.palette import LINE_COLORS, METHOD_COLORS, OTHER_COLORS, PAPER, SCREEN, Theme
from qtransformer.report.pieces import card, document, note, publish, swatch, table

COLORS = (*LINE_COLORS, *OTHER_COLORS)
CLEAR_SEEDS = 4
"""From so many on, an interval is about as wide as it says."""
MOST_CURVES = 8
"""Arms whose learning curves fit into one plot."""
FOOTNOTE = (
    "Intervals are 95% of the hierarchical bootstrap: training seeds are drawn, then their episodes. With one seed they stand for "
    "its episodes alone, and another training may well lie outside; with few they are too narrow: where there is no difference, "
    "0 lies outside about 18 times in 100 with two seeds, 10 with three and 6 with five (simulated), so fewer than "
    "four are never called clear."
)
HEADS = ("arm", "seeds", "success", "95% interval", "each seed", "best validation", "core-min", "data")

PROBE_HEADS = ("arm", "seeds", "features", "each seed", "untrained features", "own values")
PROBE_LEAD = (
    "How much of a log's returns (R², on episodes that the probe was not fitted on) a linear probe reads from frozen features of "
    "the Q-head's last layer, from those of a network that has learned nothing, and what the network's own values explain. Of "
    "Q-learning these explain little: they are values of a better policy than the log's."
)

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """What the finished cells of an arm say."""

    name: str
    label: str
    data: str
    split: str
    """Objects it was judged on."""
    settings: str
    """What differs from the defaults of a training."""
    outcomes: dict[int, np.ndarray]
    """Training seed to which scenes succeeded, bool (episodes,)."""
    minutes: float
    """Mean minutes of a training's gradient steps on one core; not a number where all ran on GPUs."""
    data_success: float
    best_validation: float
    """Mean success on validation objects of each training's best checkpoint; not a number where none was validated."""
    curves: dict[int, tuple[np.ndarray, np.ndarray]]
    """Training seed to gradient steps and success on validation objects."""
    probes: dict[int, Row]
    """Training seed to what a probe of its features found; empty where nobody asked."""

    @classmethod
    def of(
        cls,
        name: str,
        label: str,
        data: str,
        rows: Sequence[Row],
        curves: Sequence[Sequence[Row]],
        probes: Mapping[str, Row],
        minutes: float,
    ) -> "ArmResult":
        """From the rows of its cells, for each the points of its learning curve, probes by cell, and the minutes of a training."""
        best = [values.max() for _, values in map(_validated, curves) if len(values)]
        return cls(
            name=name,
            label=label,
            data=data,
            split=rows[0]["split"],
            settings=rows[0]["overrides"],
            outcomes={int(row["seed"]): np.array([mark == "1" for mark in row["outcomes"]]) for row in rows},
            minutes=minutes,
            data_success=float(np.mean([float(row["data_success"]) for row in rows])),
            best_validation=float(np.mean(best)) if best else float("nan"),
            curves={
                int(row["seed"]): line for row, points in zip(rows, curves, strict=True) if len((line := _validated(points))[0])
            },
            probes={int(row["seed"]): probes[row["cell"]] for row in rows if row["cell"] in probes},
        )

    @property
    def estimate(self) -> Estimate:
        return success_rate(list(self.outcomes.values()))

    @property
    def seeds(self) -> str:
        return _counted(len(self.outcomes))

    @property
    def validated(self) -> str:
        """Which of its seeds its curve stands for, where it is not all of them."""
        missing = len(self.outcomes) - len(self.curves)
        return f"seed {', '.join(map(str, sorted(self.curves)))} of {len(self.outcomes)}" if missing and self.curves else ""


def build_study_report(
    name: str, question: str, arms: Sequence[ArmResult], pairs: Sequence[tuple[str, str]], out: Path, pages: Path
) -> Path:
    """Write `out/NAME.csv`, `NAME.md`, `NAME_success.png`, `NAME_curves.png` and `pages/NAME.html`.

    Args:
        name: of the study.
        question: that it asks.
        arms: those with results.
        pairs: names of arms whose difference is of interest.

    Returns:
        The page.
    """
    known = {arm.name: arm for arm in arms}
    compared = [
        (known[a], known[b], success_difference(known[a].outcomes, known[b].outcomes)) for a, b in pairs if _meet(known, a, b)
    ]
    out.mkdir(parents=True, exist_ok=True)
    pages.mkdir(parents=True, exist_ok=True)
    figures = {f"{name}_success": success_plot, f"{name}_curves": curves_plot}
    for file, figure in figures.items():
        plots.to_png(figure(arms, PAPER), out / f"{file}.png")
    _write_csv(out / f"{name}.csv", arms)
    write_text(out / f"{name}.md", _markdown(name, question, arms, compared))
    return publish(pages / f"{name}.html", _page(name, question, arms, compared))


def success_plot(arms: Sequence[ArmResult], theme: Theme) -> Figure:
    """Success of every arm with its interval, and a dot for each training seed. What only chose settings is below, and paler."""
    rows = list(reversed([*_judged(arms), *_chosen(arms)]))
    figure, (ax,) = plots.new_figure(theme, (7.4, 0.9 + 0.4 * max(2, len(rows))))
    ax.grid(visible=False)
    ax.grid(axis="x", color=theme.grid, linewidth=1)
    ax.spines["bottom"].set_visible(False)
    colors = _colors(arms)
    for y, arm in enumerate(rows):
        mean, low, high = arm.estimate
        rates = [float(outcome.mean()) for outcome in arm.outcomes.values()]
        ax.barh(y, mean, height=0.62, color=colors[arm.name], alpha=0.8 if arm.split == "test" else 0.4)
        ax.plot([low, high], [y, y], color=theme.ink, linewidth=1.5, solid_capstyle="butt")
        spread = np.linspace(-0.14, 0.14, len(rates)) if len(rates) > 1 else [0.0]
        ax.scatter(rates, y + np.array(spread), s=15, color=theme.page, edgecolors=theme.ink, linewidths=0.9, zorder=3)
        words = f"{mean:.2f}  [{low:.2f}, {high:.2f}]" + ("  1 seed" if len(rates) == 1 else "")
        ax.text(max(high, *rates) + 0.02, y, words, va="center", color=theme.ink, size=10)
    ax.set_yticks(range(len(rows)), [plots.literal(textwrap.fill(_name(arm), 26)) for arm in rows])
    ax.set(xlim=(0, 1.5), ylim=(-0.6, len(rows) - 0.4), xticks=[0, 0.25, 0.5, 0.75, 1])
    ax.set_xlabel("share of episodes that succeed", loc="left")
    for label in ax.get_yticklabels():
        label.set(color=theme.ink, size=10.5)
    return figure


def curves_plot(arms: Sequence[ArmResult], theme: Theme) -> Figure:
    """Success on validation objects over gradient steps: the mean of the seeds, in a band from the lowest to the highest.

    Few arms share a plot; of many, each has one of its own, beside the first arm as a dashed line. Arms that only chose settings
    are left out where there are others.
    """
    drawn = [arm for arm in _judged(arms) or arms if arm.curves]
    if len(drawn) > MOST_CURVES:
        return _small_curves(drawn, theme)
    figure, (ax,) = plots.new_figure(theme, (7.4, 4.0))
    colors = _colors(arms)
    for arm in drawn:
        steps, values = _aligned(arm)
        label = plots.literal(_of_seeds(_name(arm), arm))
        ax.plot(steps, values.mean(0), color=colors[arm.name], linewidth=2, marker="o", markersize=3.5, label=label)
        ax.fill_between(steps, values.min(0), values.max(0), color=colors[arm.name], alpha=0.13, linewidth=0)
    ax.set(ylim=(0, 1.03), xlabel="gradient steps", ylabel="success, validation objects")
    ax.set_xlim(left=0)
    if drawn:
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=10, labelcolor=theme.ink, handlelength=1.3)
    return figure


def _small_curves(arms: Sequence[ArmResult], theme: Theme) -> Figure:
    """One plot an arm."""
    columns, first = 4, arms[0]
    rows = -(-len(arms) // columns)
    figure = Figure((9.6, 1.5 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, arm in zip(panels, arms, strict=False):
        steps, values = _aligned(arm)
        ax.plot(*_mean_curve(first), color=theme.muted, linewidth=1.1, linestyle=(0, (3, 2)))
        ax.plot(steps, values.mean(0), color=COLORS[0], linewidth=1.8, marker="o", markersize=2.8)
        ax.fill_between(steps, values.min(0), values.max(0), color=COLORS[0], alpha=0.15, linewidth=0)
        ax.set_title(plots.literal(_of_seeds(_name(arm), arm)), size=8.5, color=theme.ink, loc="left", pad=3)
    for ax in panels:
        ax.patch.set_alpha(0)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0, colors=theme.muted, labelsize=8)
        ax.grid(axis="y", color=theme.grid, linewidth=0.8)
        ax.set(ylim=(0, 1), yticks=[0, 0.5, 1])
        ax.xaxis.set_major_locator(plots.MaxNLocator(integer=True, nbins=3))
    for ax in panels[len(arms) :]:
        ax.set_visible(False)
    for ax in panels[max(0, len(arms) - columns) : len(arms)]:  # the lowest of each column
        ax.tick_params(labelbottom=True)
    figure.supxlabel(f"gradient steps; dashed: {plots.literal(first.label)}", color=theme.muted, size=10)
    figure.supylabel("success, validation objects", color=theme.muted, size=10)
    return figure


def _page(name: str, question: str, arms: Sequence[ArmResult], compared: Sequence[tuple[ArmResult, ArmResult, Estimate]]) -> str:
    colors = _colors(arms)
    rows = [[swatch(colors[arm.name], _name(arm)), *map(escape, cells[1:])] for arm, cells in zip(arms, _cells(arms), strict=True)]
    differences = [[escape(f"{a.label} − {b.label}"), *map(escape, _difference(a, b, d))] for a, b, d in compared]
    heads = ("arms", "difference of success", "95% interval", "")
    shared, own = _settings(arms)
    settings = [[f"{escape(_name(arm))}<br>{escape(arm.data)}", escape(own[arm.name])] for arm in arms]
    body = "".join(
        [
            _section("Success", "After the last gradient step, on objects that no training has seen. A dot is a training seed."),
            card("", plots.to_svg(success_plot(arms, SCREEN)), classes="wide"),
            card("", table(HEADS, rows, numbers=range(1, len(HEADS)))),
            card("Differences", table(heads, differences, numbers=(1, 2)), "paired by seed and scene") if differences else "",
            _section(
                "Learning", "Success on validation objects while training; the band reaches from the lowest seed to the highest."
            ),
            card("", plots.to_svg(curves_plot(arms, SCREEN)), classes="wide")
            if any(arm.curves for arm in arms)
            else note("No training validated its checkpoints."),
            *_probe_section(arms, colors),
            _section("Settings", f"Of all arms, over the defaults of qtransformer train: {shared or 'none'}. And of each:"),
            card("", table(("arm and data", "settings"), settings, values=(1,))),
        ]
    )
    header = f'<div class="top"><h1>study {escape(name)}</h1></div><h2>{escape(question)}</h2>'
    return document(f"study {name}", header, f"<section>{body}</section>", FOOTNOTE)


def _probe_section(arms: Sequence[ArmResult], colors: Mapping[str, str]) -> list[str]:
    probed = [arm for arm in arms if arm.probes]
    rows = [
        [swatch(colors[arm.name], _name(arm)), *map(escape, cells[1:])]
        for arm, cells in zip(probed, _probe_cells(probed), strict=True)
    ]
    found = card("", table(PROBE_HEADS, rows, numbers=range(1, len(PROBE_HEADS))))
    return [_section("Frozen features", PROBE_LEAD), found] if rows else []


def _settings(arms: Sequence[ArmResult]) -> tuple[str, dict[str, str]]:
    """Settings that all arms share, and those of each beside them."""
    words = {arm.name: arm.settings.split() for arm in arms}
    shared = [word for word in words[arms[0].name] if all(word in others for others in words.values())]
    return " ".join(shared), {name: " ".join(w for w in own if w not in shared) or "–" for name, own in words.items()}


def _section(title: str, lead: str) -> str:
    return f'<h2>{escape(title)}</h2><p class="lead">{escape(lead)}</p>'


def _markdown(
    name: str, question: str, arms: Sequence[ArmResult], compared: Sequence[tuple[ArmResult, ArmResult, Estimate]]
) -> str:
    lines = [f"# {name}", "", question, "", *_markdown_table(HEADS, _cells(arms))]
    if compared:
        rows = [[f"{a.label} − {b.label}", *_difference(a, b, d)] for a, b, d in compared]
        lines += ["", *_markdown_table(("difference, paired by seed and scene", "success", "95% interval", ""), rows)]
    if rows := _probe_cells(arms):
        lines += ["", "## Frozen features", "", PROBE_LEAD, "", *_markdown_table(PROBE_HEADS, rows)]
    lines += ["", FOOTNOTE, "", f"![success]({name}_success.png)", "", f"![learning curves]({name}_curves.png)", ""]
    return "\n".join([*lines, f"Every cell is a line of `cells.csv`; again: `qtransformer study {name}`.", ""])


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *("| " + " | ".join(row) + " |" for row in rows)]


def _write_csv(path: Path, arms: Sequence[ArmResult]) -> None:
    with explained_storage_errors(path), replaced_file(path) as fresh, fresh.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", "split", "data", "seeds", "success", "low", "high", "core_minutes", "data_success", "settings"))
        for arm in arms:
            numbers = [f"{number:.4f}" for number in arm.estimate]
            last = (f"{arm.minutes:.2f}", f"{arm.data_success:.4f}", arm.settings)
            writer.writerow((arm.name, arm.split, arm.data, len(arm.outcomes), *numbers, *last))


def _of_seeds(text: str, arm: ArmResult) -> str:
    """What is known of validations, with the seeds that it is of."""
    return f"{text} ({arm.validated})" if arm.validated else text


def _cells(arms: Sequence[ArmResult]) -> list[list[str]]:
    """The table, under `HEADS`."""
    return [
        [
            _name(arm),
            arm.seeds,
            f"{arm.estimate.mean:.3f}",
            f"[{arm.estimate.low:.3f}, {arm.estimate.high:.3f}]",
            " ".join(f"{arm.outcomes[seed].mean():.2f}" for seed in sorted(arm.outcomes)),
            _of_seeds(_number(arm.best_validation, ".2f"), arm),
            _number(arm.minutes, ".1f"),
            f"{arm.data_success:.3f}",
        ]
        for arm in arms
    ]


def _probe_cells(arms: Sequence[ArmResult]) -> list[list[str]]:
    """The table under `PROBE_HEADS`."""
    found = []
    for arm in arms:
        if probes := [arm.probes[seed] for seed in sorted(arm.probes)]:
            trained, untrained, own = ([float(row[name]) for row in probes] for name in ("trained", "untrained", "own"))
            means = [f"{np.mean(values):.3f}" for values in (trained, untrained, own)]
            found.append([_name(arm), _counted(len(probes)), means[0], " ".join(f"{value:.2f}" for value in trained), *means[1:]])
    return found


def _counted(seeds: int) -> str:
    """One alone is said aloud: it stands for no other training."""
    return "1 seed" if seeds == 1 else str(seeds)


def _number(value: float, form: str) -> str:
    return "–" if np.isnan(value) else format(value, form)


def _difference(a: ArmResult, b: ArmResult, estimate: Estimate) -> list[str]:
    """Few seeds in common say little of other trainings, however clear their episodes are."""
    mean, low, high = estimate
    seeds = len(a.outcomes.keys() & b.outcomes.keys())
    few = "1 seed" if seeds == 1 else f"{seeds} seeds" if seeds < CLEAR_SEEDS else ""
    remark = few or ("" if low <= 0 <= high else "clear of 0")
    return [f"{mean:+.3f}", f"[{low:+.3f}, {high:+.3f}]", remark]


def _name(arm: ArmResult) -> str:
    return arm.label if arm.split == "test" else f"{arm.label} ({arm.split})"


def _judged(arms: Sequence[ArmResult]) -> list[ArmResult]:
    return [arm for arm in arms if arm.split == "test"]


def _chosen(arms: Sequence[ArmResult]) -> list[ArmResult]:
    """Arms that served to choose a setting."""
    return [arm for arm in arms if arm.split != "test"]


def _colors(arms: Sequence[ArmResult]) -> dict[str, str]:
    """Few arms are told apart by colour; among many, only the first stands out. What only chose settings has none."""
    judged, grey = _judged(arms) or arms, METHOD_COLORS["random"]
    distinct = COLORS if len(judged) <= MOST_CURVES else (COLORS[0], *[grey] * (len(judged) - 1))
    return dict.fromkeys((arm.name for arm in arms), grey) | {arm.name: distinct[i] for i, arm in enumerate(judged)}


def _meet(known: Mapping[str, ArmResult], a: str, b: str) -> bool:
    return a in known and b in known and bool(known[a].outcomes.keys() & known[b].outcomes.keys())


def _validated(points: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(int(point["step"]), float(point["validation_success"])) for point in points if point["validation_success"]]
    steps, values = np.array(pairs, np.float64).reshape(-1, 2).T
    return steps, values


def _aligned(arm: ArmResult) -> tuple[np.ndarray, np.ndarray]:
    """Steps at which every seed was validated, and the success of each there, (seeds, steps)."""
    steps = np.array(sorted(set.intersection(*(set(x.tolist()) for x, _ in arm.curves.values()))))
    return steps, np.array([y[np.isin(x, steps)] for x, y in arm.curves.values()])


def _mean_curve(arm: ArmResult) -> tuple[np.ndarray, np.ndarray]:
    steps, values = _aligned(arm)
    return steps, values.mean(0)

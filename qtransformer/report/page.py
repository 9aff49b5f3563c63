"""`report.html`: one file that opens anywhere, asks nothing of the network, and says what its plots should look like."""

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from urllib.parse import quote

from qtransformer.evaluate import EpisodeResult
from qtransformer.report import plots
from qtransformer.report.calibration import calibration_error, reliability
from qtransformer.report.pairing import pair
from qtransformer.report.palette import LINE_COLORS, OURS, PAPER, SCREEN
from qtransformer.report.pieces import badge, card, document, embedded_video, grid, note, publish, swatch, table
from qtransformer.report.record import Curves, Film, Record, method_label, read_record

EMBED_BYTES = 6_000_000
"""Videos up to this size altogether travel inside the page; larger ones stay beside it."""
TIMINGS = {
    "seconds/data": "data",
    "seconds/forward": "forward",
    "seconds/target": "target",
    "seconds/backward": "backward and optimiser",
}


class Section(NamedTuple):
    anchor: str
    title: str
    lead: str
    body: str


def build_report(run: Path) -> Path:
    """Write `run/report.html`, `run/plots/success.png` and `run/plots/learning.png` from whatever the run left behind.

    What is missing leaves a note in its place; see `record.Record` for what is read.

    Returns:
        The page.
    """
    run = Path(run).resolve()
    record = read_record(run)
    if record.methods or record.data:
        plots.to_png(plots.success_plot(record.methods, record.data, PAPER), run / "plots" / "success.png")
    if record.curves.lines:
        plots.to_png(plots.learning_plot(_validated(record), PAPER), run / "plots" / "learning.png")
    sections = [
        Section("success", "Success", "How often each actor achieves the task.", _success(record)),
        Section("videos", "Videos", "Episodes with what the policy saw, did and expected.", _videos(record)),
        Section("learning", "Learning", "How the training went.", _learning(record)),
        Section("values", "Values", "Whether the values mean what they say.", _values(record)),
        Section("episodes", "Episodes", "Every evaluated episode, and how failures end.", _episodes(record)),
        Section("timing", "Timing", "Where the time of a training step goes.", _timing(record)),
        Section("settings", "Settings and versions", "What this run was made with.", _settings(record)),
    ]
    return publish(run / "report.html", _document(record, sections))


def _document(record: Record, sections: list[Section]) -> str:
    links = "".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    bodies = "".join(
        f'<section id="{s.anchor}"><h2>{escape(s.title)}</h2><p class="lead">{escape(s.lead)}</p>{s.body}</section>'
        for s in sections
    )
    damaged = "".join(note(f"Left out, because it cannot be read: {line}") for line in record.damaged)
    header = f"""<div class="top"><h1>{escape(record.run.name)}</h1><p>{escape(_subtitle(record))}</p></div>
{_headline(record)}
<nav>{links}</nav>"""
    body = f"{damaged}\n{bodies}"
    return document(record.run.name, header, body, "Intervals are 95% Wilson intervals unless another is named.")


def _subtitle(record: Record) -> str:
    config = record.config
    parts = [f"algo {config['algo']}"] if "algo" in config else []
    if isinstance(config.get("value"), Mapping) and "kind" in config["value"]:
        parts.append(f"{config['value']['kind']} value head")
    if record.curves.lines:
        parts.append(f"{int(record.curves.lines[-1]['step']):,} gradient steps")
    return " · ".join(parts)


def _headline(record: Record) -> str:
    ours = record.ours
    if ours is None:
        return note(
            "Not evaluated yet: `qtransformer eval run=RUN json=RUN/evaluations/qtransformer.json videos=3`, then "
            "`qtransformer report run=RUN` again.",
            top=True,
        )
    low, high = ours.evaluation.interval
    facts = [(m.title, f"{m.evaluation.success:.2f}") for m in record.methods if m is not ours]
    if record.data:
        facts.append(("The data", f"{record.data.success:.2f}"))
    how = f", acting by {escape(ours.not_as_trained)}" if ours.not_as_trained else ""
    boxes = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f"""<div class="hero"><div><div class="big">{ours.evaluation.success:.2f}</div>
<p>success, <b>[{low:.2f}, {high:.2f}]</b> over {len(ours.evaluation.results)} episodes{how}</p></div>
<dl class="facts">{boxes}</dl></div>"""


def _success(record: Record) -> str:
    if not record.methods and record.data is None:
        return note("No evaluations/*.json and no data.json.")
    chart = card(
        "Success rate",
        plots.to_svg(plots.success_plot(record.methods, record.data, SCREEN)),
        look="ours clearly right of the data and of behaviour cloning, on its way to the expert; bars whose intervals "
        "overlap need the paired table below",
        warning="ours level with behaviour cloning or the data: the values add nothing to imitation",
        classes="wide",
    )
    return chart + _pairings(record)


def _pairings(record: Record) -> str:
    ours = record.ours
    others = [m for m in record.methods if m is not ours]
    if ours is None or not others:
        return note("No paired comparison: it needs evaluations/qtransformer.json and at least one other beside it.")
    rows = []
    for other in others:
        p = pair(ours.evaluation, other.evaluation)
        if p.episodes == 0:
            rows.append([swatch(other.color, other.title), "no common seeds", "", "", "", "", ""])
            continue
        difference = (p.wins - p.losses) / p.episodes
        numbers = [f"{difference:+.2f}", str(p.wins), str(p.losses), str(p.both), str(p.neither), _p_value(p.p_value)]
        rows.append([swatch(other.color, other.title), *numbers])
    heads = ["against", "difference", "wins", "losses", "both succeed", "both fail", "p (McNemar, exact)"]
    return card(
        f"{escape(ours.title)} on the same seeds",
        table(heads, rows, numbers=range(1, 7)),
        look="many wins (only ours succeeds), few losses, and p well under .05",
        warning="losses nearly as many as wins: the difference of the bars is luck",
    )


def _validated(record: Record) -> dict[str, tuple[str, Curves]]:
    """Ours and the baselines that were trained, with labels."""
    labels = {m.name: m.label for m in record.methods}
    curves = {OURS: record.curves} | record.baselines
    kept = {k: v for k, v in curves.items() if k == OURS or len(v.series("validation_success")[0])}
    return {name: (labels.get(name, method_label(name)), each) for name, each in kept.items()}


LOSSES = {
    "loss": "total",
    "td_loss": "TD",
    "mc_loss": "Monte-Carlo",
    "conservative_loss": "conservative",
    "behavior_loss": "behaviour",
}


def _learning(record: Record) -> str:
    curves = record.curves
    if not curves.lines:
        return note("No metrics.jsonl: nothing was logged.")
    cards = []
    if any(len(curves.series(name)[0]) for name in LOSSES):
        cards.append(
            card(
                "Losses",
                plots.to_svg(plots.curves_plot(curves, LOSSES, SCREEN, log=True)),
                _last(curves, "loss", "loss {:.3g}"),
                look="a steep fall, then a slow one; the TD part may rise a little while the values grow",
                warning="jumps, or a TD loss that climbs to the end: targets run away from the network",
            )
        )
    validated = _validated(record)
    if any(len(c.series("validation_success")[0]) for _, c in validated.values()):
        steps, values = curves.series("validation_success")
        fact = f"highest {values.max():.2f} at step {int(steps[values.argmax()]):,}" if len(values) else ""
        cards.append(
            card(
                "Success on validation objects",
                plots.to_svg(plots.validation_plot(validated, SCREEN)),
                fact,
                look="a rise well above behaviour cloning that levels off; of the checkpoints that are level but for chance, "
                "the newest is taken",
                warning="a peak followed by a fall: values over-estimate, or the training overfits",
            )
        )
    else:
        cards.append(note("No validation_success in metrics.jsonl: the training did not evaluate (eval_episodes=0)."))
    _diagnostic(
        cards,
        curves,
        {"q_start": "highest Q(s₀)", "return_start": "return in the data"},
        "Value of the start against the data",
        [("q_start", "Q(s₀) {:.2f}"), ("return_start", "data {:.2f}")],
        "Q(s₀) above the data's return, for the policy is better than the data, and below what it really achieves",
        "Q(s₀) climbing to the top of the range while success does not: over-estimation",
    )
    _diagnostic(
        cards,
        curves,
        {"bootstrap_exceeds_floor": "bootstrap above the floor"},
        "Targets carried by the bootstrap",
        [("bootstrap_exceeds_floor", "{:.2f}")],
        "a share well above 0: there the next state's value exceeds the behaviour's own return, and Q-learning improves on it",
        "near 0, the floor does all the work (plain Monte-Carlo regression); near 1 from the start, it never binds",
        limits=(0, 1.03),
    )
    return grid(cards)


def _diagnostic(
    cards: list[str],
    curves: Curves,
    names: Mapping[str, str],
    title: str,
    facts: Iterable[tuple[str, str]],
    look: str,
    warning: str,
    limits: tuple[float, float] | None = None,
) -> None:
    """Add the plot of some metrics with their last values, or a note where none was logged."""
    if not any(len(curves.series(name)[0]) for name in names):
        cards.append(note(f"{title}: {', '.join(names)} not in metrics.jsonl."))
        return
    fact = ", ".join(filter(None, (_last(curves, name, form) for name, form in facts)))
    cards.append(
        card(title, plots.to_svg(plots.curves_plot(curves, names, SCREEN, limits=limits)), fact, look=look, warning=warning)
    )


def _values(record: Record) -> str:
    cards, curves = [_calibration(record)], record.curves
    distributions = record.distributions
    if distributions is None:
        cards.append(note("No value_distributions.npz: `film` writes it for policies with a categorical value head."))
    else:
        kind, seed = "success" if distributions.success else "failure", distributions.seed
        cards.append(
            card(
                "Value over an episode",
                plots.to_svg(plots.distribution_plot(distributions, SCREEN)),
                ", ".join(filter(None, (distributions.label, kind, f"seed {seed}" if seed >= 0 else ""))),
                look="mass that moves towards the return really reached as the end comes near, often split between success "
                "and failure before",
                warning="mass that stays where it was, or sits at the top from the first step",
            )
        )
    _diagnostic(
        cards,
        curves,
        {"unseen_over_data": "share above the logged bin"},
        "Unseen bins that beat the logged one",
        [("unseen_over_data", "{:.2f}")],
        "how often the best bin that was not taken is valued above the one that was: a middling share is what improvement "
        "looks like",
        "near 1 throughout: whatever was never tried looks best; raise the conservative weight or the behaviour mask",
        limits=(0, 1.03),
    )
    _diagnostic(
        cards,
        curves,
        {"unseen_excess": "best unseen bin − logged bin"},
        "Over-estimation on unseen bins",
        [("unseen_excess", "{:+.3f}")],
        "a small or negative margin that settles",
        "a margin that keeps growing: nothing holds down the values of actions the data does not have",
    )
    _diagnostic(
        cards,
        curves,
        {"calibration_error": "calibration error"},
        "Calibration on the training data",
        [("calibration_error", "error {:.3f}")],
        "a fall to a few hundredths of the value range",
        "a rise after the fall, while the losses still sink",
    )
    _diagnostic(
        cards,
        curves,
        {"q_data": "mean Q of logged actions", "target": "mean target"},
        "Values and their targets",
        [("q_data", "Q {:.3f}"), ("target", "target {:.3f}")],
        "two curves that rise together and level off together",
        "a gap that widens, or both climbing on when nothing new is learned",
    )
    return grid(cards)


def _calibration(record: Record) -> str:
    ours = record.ours
    low, high = record.value_range
    bins = reliability(ours.evaluation.results, low, high) if ours else []
    if not bins:
        return note("No calibration against outcome: evaluations/qtransformer.json has no values and returns.")
    rows = [[f"{b.predicted:.3f}", f"{b.outcome:.3f}", f"[{b.low:.3f}, {b.high:.3f}]", str(b.steps), str(b.episodes)] for b in bins]
    heads = ["predicted", "outcome", "interval", "steps", "episodes"]
    counts = f"<details><summary>Counts and intervals</summary>{table(heads, rows, numbers=range(5))}</details>"
    return card(
        "Calibration: value against outcome",
        plots.to_svg(plots.reliability_plot(bins, low, high, SCREEN)),
        f"error {calibration_error(bins):.3f}",
        look="points on the dashed line, within their intervals (they count episodes, as an episode's steps share its outcome)",
        warning="points under the line, where values promise more than came true, or a flat row that tells nothing apart",
        after=counts,
    )


def _episodes(record: Record) -> str:
    ours = record.ours
    if ours is None or not ours.evaluation.results:
        return note("No evaluations/qtransformer.json.")
    results = ours.evaluation.results
    failures = [r for r in results if not r.success]
    late = sum(not r.terminated for r in failures)
    stats = [
        ["successes", str(len(results) - len(failures)), _typical([r.steps for r in results if r.success])],
        ["failures that ended early", str(len(failures) - late), _typical([r.steps for r in failures if r.terminated])],
        ["failures at the time limit", str(late), _typical([r.steps for r in failures if not r.terminated])],
    ]
    lengths = card(
        "Length of episodes",
        plots.to_svg(plots.lengths_plot(ours, SCREEN)),
        look="successes that are short and failures spread out",
        warning="a pile of failures at the time limit (it hesitates or loops), or at the very start (it gives up at once)",
        after=table(["", "episodes", "median steps (range)"], stats, numbers=(1,)),
        classes="wide",
    )
    others = {m.title: {r.seed: r for r in m.evaluation.results} for m in record.methods if m is not ours}
    heads = ["seed", escape(ours.title), "steps", "ended by", "first value", *map(escape, others)]
    rows = [_episode_row(r, others) for r in sorted(results, key=lambda r: (r.success, r.seed))]
    full = card("", table(heads, rows, numbers=(2, 4)))
    full = f"<details><summary>All {len(results)} episodes, failures first</summary>{full}</details>"
    return lengths + full


def _episode_row(result: EpisodeResult, others: Mapping[str, Mapping[int, EpisodeResult]]) -> list[str]:
    value = f"{result.values[0]:.2f}" if result.values else "–"
    marks = [badge(o[result.seed].success) if result.seed in o else "–" for o in others.values()]
    ended = "task" if result.terminated else "time limit"
    return [str(result.seed), badge(result.success), str(result.steps), ended, value, *marks]


def _timing(record: Record) -> str:
    seconds = {label: s for name, label in TIMINGS.items() if (s := record.curves.mean(name)) is not None and s >= 0}
    for name in record.curves.names:
        if name.startswith("seconds/") and name not in TIMINGS and (s := record.curves.mean(name)) is not None:
            seconds[name.removeprefix("seconds/")] = s
    total = sum(seconds.values())
    if total <= 0:
        return note("No seconds/... in metrics.jsonl.")
    colors = [LINE_COLORS[i % len(LINE_COLORS)] for i in range(len(seconds))]
    bars = "".join(
        f'<span style="flex:{s / total:.4f} 0 0;background:{c}"></span>'
        for s, c in zip(seconds.values(), colors, strict=True)
        if s > 0
    )
    legend = "".join(
        f"<span>{swatch(c, label)} {s * 1e3:.1f} ms · {s / total:.0%}</span>"
        for (label, s), c in zip(seconds.items(), colors, strict=True)
    )
    rate = record.curves.mean("samples_per_second")
    fact = f"{total * 1e3:.0f} ms per step" + (f", {rate:,.0f} samples/s" if rate is not None else "")
    return card(
        "An average training step",
        f'<div class="split">{bars}</div><div class="legend">{legend}</div>',
        fact,
        look="forward, target and backward sharing the time, data next to nothing",
        warning="data above a tenth: the loader starves the training; evaluation and checkpoints are not counted",
    )


def _videos(record: Record) -> str:
    films = sorted(record.films, key=lambda f: (f.label != (record.ours.label if record.ours else ""), f.label, f.seed))
    if not films:
        return note("No videos: videos/videos.json lists none.")
    embedded = sum(f.path.stat().st_size for f in films) <= EMBED_BYTES
    return grid([_video(film, record.run, embedded) for film in films])


def _video(film: Film, run: Path, embedded: bool) -> str:
    source = embedded_video(film.path.read_bytes()) if embedded else quote(film.path.relative_to(run).as_posix())
    return f"""<figure><video controls muted loop playsinline preload="metadata" src="{source}"></video>
<figcaption>{badge(film.success)}<b>{escape(film.label)}</b> seed {film.seed}, {film.steps} steps</figcaption></figure>"""


def _settings(record: Record) -> str:
    if not record.config and not record.metadata:
        return note("No config.json and no checkpoint.")
    cards = []
    for title, data in (("Versions and checkpoint", record.metadata), ("Settings", record.config)):
        if data:
            rows = [[escape(name), escape(value)] for name, value in _flat(data)]
            cards.append(card(title, table(["", ""], rows, values=(1,))))
    return grid(cards)


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _last(curves: Curves, name: str, form: str) -> str:
    value = curves.last(name)
    return "" if value is None else form.format(value)


def _typical(steps: list[int]) -> str:
    return f"{median(steps):g} ({min(steps)} to {max(steps)})" if steps else "–"


def _p_value(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"

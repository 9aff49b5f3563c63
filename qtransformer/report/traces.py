"""Actions and rewards of an episode over its steps, as a small inline SVG in the page's own colours."""

from collections.abc import Iterable
from html import escape

import numpy as np

from qtransformer.types import ActionSpec

WIDTH, LEFT, RIGHT = 640, 112, 588
"""Of the drawing and its plots; names stand left of them, limits right."""
ROW, GAP = 40, 8
"""Height of a plot, and the room under it."""
MOST_POINTS = 400
"""Longer traces keep the extremes of every stretch."""


def traces(actions: np.ndarray, rewards: np.ndarray, spec: ActionSpec) -> str:
    """A row per action dimension, in robot units between its limits, and one for the reward.

    Args:
        actions: scaled to [-1, 1], (t, n).
        rewards: (t,).
    """
    values = spec.to_units(actions).astype(np.float64)
    rows = [
        _row(i * (ROW + GAP), name, unit, values[:, i], (low, high), "accent")
        for i, (name, unit, low, high) in enumerate(zip(spec.names, spec.units, spec.low, spec.high, strict=True))
    ]
    limits = (min(0.0, float(rewards.min())), max(float(rewards.max()), 0.0))
    limits = limits if limits[0] < limits[1] else (0.0, 1.0)
    top = len(rows) * (ROW + GAP)
    rows.append(_row(top, "reward", "1", rewards.astype(np.float64), limits, "good"))
    bottom = top + ROW
    head = f'<line class="playhead" x1="{LEFT}" x2="{LEFT}" y1="0" y2="{bottom}" stroke="var(--muted)"/>'
    ticks = _ticks(len(actions), bottom + 15)
    return f'<svg viewBox="0 0 {WIDTH} {bottom + 20}" role="img">{"".join(rows)}{ticks}{head}</svg>'


def extremes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a trace of at most `MOST_POINTS` points: the least and the greatest of every stretch stay."""
    if len(values) <= MOST_POINTS:
        return np.arange(len(values)), values
    kept = {0, len(values) - 1}
    for group in np.array_split(np.arange(len(values)), MOST_POINTS // 2 - 1):
        kept |= {int(group[values[group].argmin()]), int(group[values[group].argmax()])}
    steps = np.array(sorted(kept))
    return steps, values[steps]


def _row(top: int, name: str, unit: str, values: np.ndarray, limits: tuple[float, float], color: str) -> str:
    low, high = limits
    label = escape(name if len(name) <= 16 else name[:15] + "…")
    suffix = "" if unit == "1" else f" {unit}"
    heights = top + ROW - 2 - (np.clip(values, low, high) - low) / (high - low) * (ROW - 4)
    zero = top + ROW - 2 - (0 - low) / (high - low) * (ROW - 4)
    parts = [
        f'<rect x="{LEFT}" y="{top}" width="{RIGHT - LEFT}" height="{ROW}" fill="var(--soft)" rx="3"/>',
        f'<line x1="{LEFT}" x2="{RIGHT}" y1="{zero:.1f}" y2="{zero:.1f}" stroke="var(--grid)"/>' if low < 0 < high else "",
        f'<polyline points="{_steps(heights)}" fill="none" stroke="var(--{color})" stroke-width="1.8" stroke-linejoin="round"/>',
        _text(LEFT - 10, top + 25, label, "end", "ink", 13),
        _text(RIGHT + 6, top + 12, f"{high:.3g}{escape(suffix)}", "start", "muted", 10.5),
        _text(RIGHT + 6, top + ROW - 2, f"{low:.3g}{escape(suffix)}", "start", "muted", 10.5),
    ]
    return "".join(parts)


def _steps(heights: np.ndarray) -> str:
    """A value holds until the next: an action is in force for a whole step."""
    steps, kept = extremes(heights)
    scale = (RIGHT - LEFT) / len(heights)
    ends = [*steps[1:], len(heights)]
    points = ((LEFT + x * scale, y) for start, end, y in zip(steps, ends, kept, strict=True) for x in (start, end))
    return _joined(points)


def _ticks(count: int, y: int) -> str:
    """Numbers of steps under the plots."""
    unit = next(size * 10**power for power in range(9) for size in (1, 2, 5) if count / (size * 10**power) <= 8)
    marks = range(0, count + 1, unit)
    x = [LEFT + step / count * (RIGHT - LEFT) for step in marks]
    return "".join(_text(place, y, str(step), "middle", "muted", 11) for place, step in zip(x, marks, strict=True))


def _joined(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _text(x: float, y: float, words: str, anchor: str, color: str, size: float) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="var(--{color})" font-size="{size}">{words}</text>'

"""One frame of a video: what the policy sees, what it does, and why.

label · instruction                                   step, seed
+-------------------------+  per action dimension: name and chosen value,
|         scene           |  beside it the Q-value of every bin
+-------------------------+
| camera(s) | value so far|  distribution of the return expected of the action
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import UInt8

from qtransformer.policy import PolicyDecision
from qtransformer.report.canvas import Box, Canvas, rgb
from qtransformer.report.palette import BAD, GOOD, METHOD_COLORS, OURS
from qtransformer.types import ActionSpec
from qtransformer.value_heads import CategoricalHead

WIDTH, HEIGHT = 960, 540
MARGIN = 16

PAGE, CARD, INK, MUTED, RULE = rgb("#f4f5f7"), rgb("#ffffff"), rgb("#1d2126"), rgb("#69707a"), rgb("#d9dce1")
CHOSEN, ALLOWED, FORBIDDEN = rgb(METHOD_COLORS[OURS]), rgb("#a3c0f2"), rgb("#e0e2e6")
SUCCESS, FAILURE = rgb(GOOD), rgb(BAD)

LEFT_WIDTH, SCENE_HEIGHT = 400, 300
RIGHT_X = MARGIN + LEFT_WIDTH + MARGIN
RIGHT_WIDTH = WIDTH - RIGHT_X - MARGIN
TOP = 52
ROW = 52
"""Most height of an action dimension; many dimensions share what there is."""
LEAST_ROW = 22
"""Least legible height; further dimensions are only counted."""


@dataclass(frozen=True, slots=True)
class ValueScale:
    """What a policy's values mean."""

    low: float
    high: float
    locations: np.ndarray | None
    """Returns that the value head's probabilities stand for, (v,); None for scalar heads."""
    num_bins: tuple[int, ...] | None
    """Existing bins per action dimension; None: all of them."""

    @classmethod
    def of(cls, policy: Any) -> "ValueScale":
        """The scale of a `Policy`; of anything else, returns between 0 and 1."""
        network = getattr(policy, "network", None)
        if network is None:
            return cls(0.0, 1.0, None, None)
        head = network.value_head
        locations = head.locations.tensor.cpu().numpy() if isinstance(head, CategoricalHead) else None
        return cls(head.v_min, head.v_max, locations, network.tokenizer.num_bins)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What one frame shows."""

    label: str
    instruction: str
    seed: int
    step: int
    """Actions chosen so far, this one included."""
    scene: UInt8[np.ndarray, "h w 3"] | None
    """A spectator's view; None where the environment has none."""
    images: Mapping[str, np.ndarray]
    """What the policy sees, camera name to uint8 (h, w, 3)."""
    action: np.ndarray
    """Robot units, (n,)."""
    decision: PolicyDecision | None
    """None for actors without values."""
    values: Sequence[float]
    """Value of every action so far."""
    outcome: str = ""
    """How the episode ended; empty while it runs."""
    success: bool = False


def draw(frame: Frame, spec: ActionSpec, scale: ValueScale) -> UInt8[np.ndarray, "540 960 3"]:
    """Draw a frame."""
    canvas = Canvas(WIDTH, HEIGHT, PAGE)
    _header(canvas, frame)
    _views(canvas, frame, scale)
    if frame.decision is None:
        _bare_action(canvas, frame, spec)
    else:
        _q_values(canvas, frame.decision, frame.action, spec, scale)
        _distribution(canvas, frame.decision, scale)
    return canvas.pixels


def _header(canvas: Canvas, frame: Frame) -> None:
    right = f"step {frame.step}"
    canvas.text(WIDTH - MARGIN, 33, right, 17, INK, bold=True, align=1)
    canvas.text(WIDTH - MARGIN - 92, 33, f"seed {frame.seed}", 14, MUTED, align=1)
    width = canvas.text(MARGIN, 33, frame.label, 18, INK, bold=True, room=330)
    canvas.text(MARGIN + width + 14, 33, frame.instruction, 15, MUTED, room=WIDTH - 260 - width)


def _views(canvas: Canvas, frame: Frame, scale: ValueScale) -> None:
    big: Box = (MARGIN, TOP, LEFT_WIDTH, SCENE_HEIGHT)
    cameras = dict(frame.images)
    scene = frame.scene
    if scene is None and cameras:
        scene = cameras.pop(next(iter(cameras)))
    canvas.fill(big, INK)
    if scene is not None:
        canvas.image(scene, big)
    if frame.outcome:
        _outcome(canvas, frame, big)
    top = TOP + SCENE_HEIGHT + 10
    height = HEIGHT - MARGIN - top
    chart = frame.decision is not None
    room = LEFT_WIDTH - (180 if chart and cameras else 0)
    x, slot = MARGIN, (room - 12 * (len(cameras) - 1)) // max(1, len(cameras))
    for name, picture in cameras.items():
        h = height - 20
        w = min(slot, round(h * picture.shape[1] / picture.shape[0]))
        canvas.image(picture, (x, top, w, h))
        canvas.text(x, HEIGHT - MARGIN - 2, f"camera {name}", 13, MUTED, room=max(w, 60))
        x += w + 12
    if chart:
        _value_so_far(canvas, frame, scale, (x, top, MARGIN + LEFT_WIDTH - x, height))


def _outcome(canvas: Canvas, frame: Frame, box: Box) -> None:
    x, y, w, h = box
    canvas.fill((x, y + h - 40, w, 40), SUCCESS if frame.success else FAILURE)
    canvas.text(x + w / 2, y + h - 13, frame.outcome, 17, CARD, bold=True, align=0.5, room=w - 20)


def _value_so_far(canvas: Canvas, frame: Frame, scale: ValueScale, box: Box) -> None:
    """The value of each action up to now, on the head's whole range."""
    x, y, w, h = box
    canvas.fill(box, CARD)
    canvas.text(x + 10, y + 19, "Value so far", 13, MUTED)
    canvas.text(x + w - 10, y + 20, f"{frame.values[-1]:.2f}", 17, INK, bold=True, align=1)
    left, right, top, bottom = x + 34, x + w - 12, y + 36, y + h - 12
    for level in (scale.low, scale.high):
        level_y = bottom - (level - scale.low) / (scale.high - scale.low) * (bottom - top)
        canvas.line(np.array([[left, level_y], [right, level_y]]), RULE, 1)
        canvas.text(left - 6, level_y + 5, f"{level:.3g}", 12, MUTED, align=1)
    color = CHOSEN if not frame.outcome else SUCCESS if frame.success else FAILURE
    share = (np.clip(frame.values, scale.low, scale.high) - scale.low) / (scale.high - scale.low)
    xs = left + (right - left) * np.arange(len(share)) / max(len(share) - 1, 11)
    points = np.stack([xs, bottom - share * (bottom - top)], -1)
    canvas.line(points, color, 2)
    canvas.dot(points[-1, 0], points[-1, 1], 4, color)


def _rows(count: int, top: int, bottom: int, most: int = ROW) -> list[int]:
    """Tops of the rows that fit, with the bottom of the last at the end."""
    shown = min(count, (bottom - top) // LEAST_ROW)
    height = min(most, (bottom - top) // shown)
    return [top + i * height for i in range(shown + 1)]


def _amount(value: float, name_unit: str, switch: bool) -> str:
    """A value with its unit, as one reads it: centimetres and degrees say more than three leading zeros."""
    if switch:
        return f"{value:.0f}"
    if name_unit == "m":
        return f"{value * 100:+.1f} cm"
    if name_unit == "rad":
        return f"{np.degrees(value):+.0f}°"
    return f"{value:+.3g}" + ("" if name_unit == "1" else f" {name_unit}")


def _q_values(canvas: Canvas, decision: PolicyDecision, action: np.ndarray, spec: ActionSpec, scale: ValueScale) -> None:
    n, a = decision.q_values.shape
    counts = scale.num_bins or (a,) * n
    exists = np.arange(a) < np.array(counts)[:, None]
    full = float(decision.q_values[exists].max())
    full = max(full, scale.low + 1e-3 * (scale.high - scale.low))
    bottom = 398 if scale.locations is not None else HEIGHT - MARGIN
    canvas.fill((RIGHT_X, TOP, RIGHT_WIDTH, bottom - TOP), CARD)
    canvas.text(RIGHT_X + 12, TOP + 20, "Action", 13, MUTED)
    bars_x, bars_width = RIGHT_X + 122, RIGHT_WIDTH - 134
    canvas.text(bars_x, TOP + 20, f"Q of every bin, {scale.low:.3g} to {full:.2f}", 13, MUTED)
    x = RIGHT_X + RIGHT_WIDTH - 12
    for color, word in ((FORBIDDEN, "masked"), (ALLOWED, "allowed"), (CHOSEN, "chosen")):
        x -= canvas.text(x, TOP + 20, word, 12, MUTED, align=1) + 14
        canvas.fill((x, TOP + 11, 9, 9), color)
        x -= 9
    rows = _rows(n, TOP + 30, bottom - 8)
    for i, (top, end) in enumerate(pairwise(rows)):
        _name(canvas, i, action, spec, RIGHT_X + 12, top, end)
        base, tallest = end - 6, end - top - 10
        canvas.fill((bars_x, base, bars_width, 1), RULE)
        pitch = min(bars_width / counts[i], 46.0)
        for k in range(counts[i]):
            share = (float(decision.q_values[i, k]) - scale.low) / (full - scale.low)
            height = max(1, round(np.clip(share, 0, 1) * tallest))
            x0, x1 = round(bars_x + k * pitch), round(bars_x + (k + 1) * pitch)
            gap = 2 if pitch >= 8 else 1 if pitch >= 4 else 0
            color = CHOSEN if k == decision.bins[i] else ALLOWED if decision.allowed[i, k] else FORBIDDEN
            canvas.fill((x0, base - height, max(1, x1 - x0 - gap), height), color)
    _count_hidden(canvas, n - (len(rows) - 1), bottom)


def _name(canvas: Canvas, i: int, action: np.ndarray, spec: ActionSpec, x: int, top: int, end: int) -> None:
    amount = _amount(float(action[i]), spec.units[i], spec.discrete[i] > 0)
    if end - top >= 38:
        canvas.text(x, end - 26, spec.names[i], 13, MUTED, room=104)
        canvas.text(x, end - 8, amount, 15, INK, bold=True, room=104)
    else:
        canvas.text(x, end - 7, f"{spec.names[i]} {amount}", 12, INK, room=104)


def _count_hidden(canvas: Canvas, hidden: int, bottom: int) -> None:
    if hidden > 0:
        canvas.text(RIGHT_X + RIGHT_WIDTH - 12, bottom - 4, f"and {hidden} more", 12, MUTED, align=1)


def _distribution(canvas: Canvas, decision: PolicyDecision, scale: ValueScale) -> None:
    """The probabilities of the returns that the whole action may bring."""
    if scale.locations is None:
        return
    box: Box = (RIGHT_X, 408, RIGHT_WIDTH, HEIGHT - MARGIN - 408)
    x, y, w, h = box
    canvas.fill(box, CARD)
    canvas.text(x + 12, y + 19, "Return expected of this action", 13, MUTED)
    canvas.text(x + w - 12, y + 20, f"{decision.value:.2f}", 17, INK, bold=True, align=1)
    left, right, top, base = x + 12, x + w - 12, y + 32, y + h - 20
    probs = decision.value_probs[-1]
    pitch = (right - left) / len(probs)
    tallest = max(float(probs.max()), 1e-9)

    def position(value: float) -> float:
        step = float(scale.locations[1] - scale.locations[0])  # pyright: ignore[reportOptionalSubscript]
        return left + ((value - float(scale.locations[0])) / step + 0.5) * pitch  # pyright: ignore[reportOptionalSubscript]

    for k, p in enumerate(probs):
        height = round(float(p) / tallest * (base - top))
        x0, x1 = round(left + k * pitch), round(left + (k + 1) * pitch)
        canvas.fill((x0, base - height, max(1, x1 - x0 - 1), height), ALLOWED)
    canvas.fill((left, base, right - left, 1), RULE)
    mean = position(decision.value)
    canvas.line(np.array([[mean, top - 2], [mean, base]]), CHOSEN, 2)
    for value in (scale.low, (scale.low + scale.high) / 2, scale.high):
        canvas.fill((round(position(value)), base, 1, 4), MUTED)
        canvas.text(position(value), y + h - 5, f"{value:.3g}", 12, MUTED, align=0.5)


def _bare_action(canvas: Canvas, frame: Frame, spec: ActionSpec) -> None:
    """The action alone, each dimension between its limits."""
    box: Box = (RIGHT_X, TOP, RIGHT_WIDTH, HEIGHT - MARGIN - TOP)
    canvas.fill(box, CARD)
    canvas.text(RIGHT_X + 12, TOP + 20, "Action, between its limits", 13, MUTED)
    rows = _rows(len(spec), TOP + 34, HEIGHT - MARGIN - 8, 72)
    left, right = RIGHT_X + 134, RIGHT_X + RIGHT_WIDTH - 24
    for i, (top, end) in enumerate(pairwise(rows)):
        _name(canvas, i, frame.action, spec, RIGHT_X + 12, top, end)
        middle = (top + end) / 2
        share = (float(frame.action[i]) - spec.low[i]) / (spec.high[i] - spec.low[i])
        zero = -spec.low[i] / (spec.high[i] - spec.low[i])
        start, stop = (left + (right - left) * float(np.clip(s, 0, 1)) for s in (zero, share))
        canvas.line(np.array([[left, middle], [right, middle]]), RULE, 2)
        canvas.line(np.array([[start, middle], [stop, middle]]), ALLOWED, 6)
        canvas.dot(stop, middle, 7, CHOSEN)
    _count_hidden(canvas, len(spec) - (len(rows) - 1), HEIGHT - MARGIN)

"""Cameras that went on sending one image while the robot moved: an episode that is readable, and teaches to act blindly."""

import math

import numpy as np

from qtransformer.types import Episode

LEAST_STEPS, LEAST_SECONDS = 10, 0.3
"""What is shorter may be a camera that is slower than control."""
LEAST_MOTION, LEAST_CHANGE = 0.05, 1e-3
"""Of a proprioceptive value's range in the episode, and in its own unit: less is noise of the sensors, which a video of a still
scene does not show."""


def frozen_cameras(episode: Episode, control_hz: float, where: str) -> list[str]:
    """A sentence for every camera whose image is the very same over steps at each of which proprioception changed."""
    least = max(LEAST_STEPS, math.ceil(LEAST_SECONDS * control_hz))
    changed = (np.diff(episode.proprio, axis=0) != 0).any(1)
    told = []
    for camera, rows in episode.images.items():
        spans = [span for span in _runs(changed & _repeats(rows, changed), least) if _moves(episode.proprio, *span)]
        if spans:
            told.append(
                f"{where}: camera '{camera}' expected to change while the robot moves, found the very same image from step "
                f"{', '.join(f'{first} to {last}' for first, last in spans)}: it froze while recording; cut these steps out, "
                "or leave the episode or the camera out"
            )
    return told


def _repeats(rows: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Whether each image is followed by itself; false where nobody asks. One by one: a comparison of all doubles the memory."""
    return np.array([ask and np.array_equal(rows[step], rows[step + 1]) for step, ask in enumerate(asked)], bool)


def _runs(flags: np.ndarray, least: int) -> list[tuple[int, int]]:
    """First and last row of every stretch of at least `least` true steps; a step leads from its row to the next."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    return [(int(first), int(last)) for first, last in zip(edges[::2], edges[1::2], strict=True) if last - first >= least]


def _moves(proprio: np.ndarray, first: int, last: int) -> bool:
    least = np.maximum(LEAST_MOTION * np.ptp(proprio, axis=0), LEAST_CHANGE)
    return bool((np.ptp(proprio[first : last + 1], axis=0) > least).any())

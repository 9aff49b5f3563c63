"""What is remembered of an episode: all of proprioception at the last times that one of its values rose.

A robot that sees only the present frame closes its gripper again where it has just missed: after opening, everything looks as it
did before. Where and how it last closed is all it need know to go elsewhere. Unlike a history of frames, that costs next to nothing
and reaches back to the episode's beginning.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

MEMORIES = 2
"""How many times are remembered."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Which rises count."""

    index: int
    """Of the proprioceptive value that rises."""
    threshold: float
    """It has risen where it exceeds this and did not in the frame before."""

    def of_frames(self, proprio: Float[np.ndarray, "f p"], episode_start: Int[np.ndarray, "f"]) -> Float[np.ndarray, "f m p"]:
        """What is remembered at every frame of a stream of episodes, the latest first; NaN where there is nothing yet.

        `episode_start` is the index of the first frame of each frame's episode. A rise counts from the frame on that shows it.
        """
        now, above = np.arange(len(proprio)), proprio[:, self.index] > self.threshold
        rose = above & ~np.roll(above, 1) & (now > episode_start)
        last = np.maximum.accumulate(np.where(rose, now, -1))
        remembered = np.full((len(proprio), MEMORIES, proprio.shape[1]), np.nan, np.float32)
        found = last
        for m in range(MEMORIES):
            known = found >= episode_start
            remembered[known, m] = proprio[found[known]]
            found = np.where(found > 0, last[np.maximum(found - 1, 0)], -1)
        return remembered


class Recollection:
    """The same frame by frame. It does not change: what comes after a frame is another one."""

    def __init__(self, memory: Memory, rows: Float[np.ndarray, "m p"], above: bool = True) -> None:
        self.memory, self.rows, self._above = memory, rows, above

    @classmethod
    def fresh(cls, memory: Memory, values: int) -> "Recollection":
        """Of an episode of which nothing was seen; proprioception has so many values."""
        return cls(memory, np.full((MEMORIES, values), np.nan, np.float32))

    def after(self, proprio: Float[np.ndarray, "p"]) -> "Recollection":
        """With one frame more."""
        above = bool(proprio[self.memory.index] > self.memory.threshold)
        rows = np.stack([np.asarray(proprio, np.float32), *self.rows[:-1]]) if above and not self._above else self.rows
        return Recollection(self.memory, rows, above)

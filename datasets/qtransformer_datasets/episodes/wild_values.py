"""Single values far off all others: they stretch limits and normalisation until everything else is one bin, or one number."""

import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

FAR = 100.0
"""Times as far from the middle as the furthest other value: no tail of a measurement has such a void, and 256 bins then leave two
or three for all else."""
RARE = 1000
"""One value in so many may be wild, and two in any case: what comes more often, such as ends of episodes, is how the data are."""
SWITCH = 3.0
"""Distance from the middle up to which a rare value may be a switch (-1 or 1), whose rest is noise about 0."""
KEPT = 64
"""Values kept at either end; half as many at most are wild."""
LEAST = 30
"""Rows below which nothing is called rare."""
_BLOCK = 1 << 13
PROPRIO_REMEDY = (
    "normalisation takes its spread from that, and all else becomes one number: repair the step, or leave the episode out"
)


@dataclass(frozen=True, slots=True)
class WildValue:
    """The furthest of a dimension."""

    name: str
    """Of the dimension."""
    value: float
    episode: int
    step: int
    low: float
    """Least of the other values."""
    high: float
    """Greatest of the other values."""
    more: int
    """How many others are wild, too."""

    def sentence(self, where: str, kind: str, remedy: str) -> str:
        """`where` names the episode, `kind` is what has this dimension: proprio or action."""
        more = f" (and {self.more} more such values)" if self.more else ""
        return (
            f"{where}, step {self.step}: {kind} '{self.name}' expected near its other values, from {self.low:.4g} to "
            f"{self.high:.4g}, found {self.value:.4g}{more}; {remedy}"
        )


class WildValues:
    """Looks for them in all rows it is shown; keeps only the outermost ones and where they stood.

    A dimension is compared with nothing but itself. One that is the same but for a few values, such as a switch, has no wild ones:
    there is nothing that they would squeeze.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names, self._count = names, 0
        self._values, self._places = np.empty((0, len(names))), np.empty((0, len(names), 2), np.int64)

    def include(self, rows: np.ndarray, episodes: np.ndarray, steps: np.ndarray) -> None:
        """Numbers (N, d), and of every row its episode and its step (N,). Rows that are not finite are told elsewhere."""
        for start in range(0, len(rows), _BLOCK):  # what is copied below is a block, never a dataset
            block = slice(start, start + _BLOCK)
            finite = np.isfinite(rows[block]).all(1)
            self._include(rows[block][finite], np.stack([episodes[block], steps[block]], 1)[finite])

    def include_episode(self, rows: np.ndarray, episode: int) -> None:
        """The same of one episode from its first step on."""
        self.include(rows, np.full(len(rows), episode), np.arange(len(rows)))

    def found(self) -> list[WildValue]:
        """Of every dimension that has any, the furthest."""
        return [wild for dim in range(len(self._names)) if (wild := self._furthest(dim))]

    def _include(self, rows: np.ndarray, places: np.ndarray) -> None:
        values = np.concatenate([self._values, rows])
        places = np.concatenate([self._places, np.broadcast_to(places[:, None], (*rows.shape, 2))])
        if len(values) > 2 * KEPT:
            order = np.argpartition(values, (KEPT - 1, len(values) - KEPT), axis=0)
            order = np.concatenate([order[:KEPT], order[-KEPT:]])
            values, places = np.take_along_axis(values, order, 0), np.take_along_axis(places, order[..., None], 0)
        self._values, self._places, self._count = values, places, self._count + len(rows)

    def _furthest(self, dim: int) -> WildValue | None:
        values = self._values[:, dim]
        if self._count < LEAST:
            return None
        distances = np.abs(values - np.median(values))  # where not all are kept, from halfway between the ends
        tail = np.sort(distances)[-1 - min(max(2, self._count // RARE), KEPT // 2) :]
        voids = np.flatnonzero((tail[1:] > np.maximum(FAR * tail[:-1], SWITCH)) & (tail[:-1] > 0))
        if not len(voids):
            return None
        is_wild, at = distances > tail[voids[0]], int(distances.argmax())
        episode, step = self._places[at, dim].tolist()
        low, high = float(values[~is_wild].min()), float(values[~is_wild].max())
        return WildValue(self._names[dim], float(values[at]), episode, step, low, high, int(is_wild.sum()) - 1)


def warn_of_stretched_limits(
    found: WildValues, given: Collection[str], where: Callable[[int], str], repair: Callable[[WildValue], str]
) -> None:
    """Of limits of actions that are the extremes of the data. `given` are the dimensions whose limits are not, `where` names an
    episode, `repair` says what a user does about a value."""
    for wild in found.found():
        if wild.name not in given:
            remedy = f"limits reach to that, and all else shares a bin or two: {repair(wild)}"
            warnings.warn(wild.sentence(where(wild.episode), "action", remedy), stacklevel=4)

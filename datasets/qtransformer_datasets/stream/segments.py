"""Which segments make up batch k: a pure function of the seed and k, so that training resumes exactly and at once.

Frames are drawn from one or more *groups* of episodes (a source, the successes, an instruction), each a circular stream of its
own. An epoch of a group tiles its stream with step ranges that begin at a random phase, in random order; so an epoch visits
every frame of the group once (fewer than `steps` frames, anywhere alike, twice: the last tile overlaps the first). Groups take
turns in a fixed cycle that gives each its exact share. Batches are cut from the endless row of turns; of several ranks, each
takes every so manieth batch, so that together they read what one alone would.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from qtransformer.batch import Batch
from qtransformer.preprocess import encode_instruction
from qtransformer_datasets.stream.frames import Frames
from qtransformer_datasets.stream.image_rows import Buffers

MAX_CYCLE = 1 << 14
"""Turns in a cycle. Shares that need more (weights of many digits) are rounded to it."""
BLOCK = 512
"""Segments, in whole batches, of which everything but the images is worked out at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentPlan:
    """How the circular stream of a group's `num_frames` is cut into segments."""

    num_frames: int
    steps: int
    seed: int
    group: int = 0

    @property
    def segments_per_epoch(self) -> int:
        return -(-self.num_frames // self.steps)

    def epoch(self, index: int) -> np.ndarray:
        """First step frame of every segment of an epoch, in the order of visiting, int64 (segments_per_epoch,)."""
        generator = np.random.default_rng((self.seed, index, self.group) if self.group else (self.seed, index))
        phase = int(generator.integers(self.num_frames))
        tiles = generator.permutation(self.segments_per_epoch)
        return (phase + tiles * self.steps) % self.num_frames


class Turns:
    """The cycle in which groups take turns.

    After any number of turns, each group has had its share of them to within less than one (Tijdeman's chairman assignment); after
    whole cycles, exactly.
    """

    def __init__(self, shares: Sequence[Fraction]) -> None:
        """`shares`: positive, of any sum."""
        self._counts = _whole(shares)
        self.cycle, self._before = _chairmen(self._counts)

    def __call__(self, turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whose turn it is, and how many turns that group has had before; both int64 like `turns`."""
        cycles, place = np.divmod(turns, len(self.cycle))
        group = self.cycle[place]
        return group, cycles * self._counts[group] + self._before[place]


def _whole(shares: Sequence[Fraction]) -> np.ndarray:
    """The smallest whole numbers in the proportion of the shares, int64 (groups,)."""
    denominator = math.lcm(*(share.denominator for share in shares))
    counts = [int(share * denominator) for share in shares]
    if sum(counts) // math.gcd(*counts) > MAX_CYCLE:
        total = sum(shares)
        counts = [max(1, round(share / total * MAX_CYCLE)) for share in shares]
    return np.array(counts, np.int64) // math.gcd(*counts)


def _chairmen(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A cycle in which group g comes `counts[g]` times, as evenly as can be, and how often each turn's group has come before.

    R. Tijdeman, The chairman assignment problem (1980): of the groups that have fallen behind far enough, it is the turn of the one
    that would soonest be a whole turn behind. Both int64 (sum of counts,).
    """
    total, others = int(counts.sum()), max(1, 2 * len(counts) - 2)
    cycle, before, had = np.zeros(total, np.int64), np.zeros(total, np.int64), np.zeros(len(counts), np.int64)
    for turn in range(total):
        behind = others * (counts * (turn + 1) - had * total)
        urgency = np.where(behind >= total, ((others - 1) * total - behind) / counts, np.inf)
        group = cycle[turn] = urgency.argmin()
        before[turn] = had[group]
        had[group] += 1
    return cycle, before


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """How the streams of one or more groups are cut into batches."""

    plans: Sequence[SegmentPlan]
    turns: Turns
    batch_size: int

    def blocks(self, start: int, rank: int = 0, world_size: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Group and first step frame of every segment of the rank's batch `start` and of all that follow, a few batches at a time.

        Both int64 (batches of the block, batch_size).
        """
        size = max(1, BLOCK // self.batch_size)
        epochs: dict[tuple[int, int], np.ndarray] = {}
        lengths, places = np.array([plan.segments_per_epoch for plan in self.plans]), np.arange(self.batch_size)
        for first in itertools.count(start, size):
            numbers = np.arange(first, first + size) * world_size + rank
            groups, nth = self.turns(numbers[:, None] * self.batch_size + places)
            epoch, segment = np.divmod(nth, lengths[groups])
            wanted = list(zip(groups.ravel().tolist(), epoch.ravel().tolist(), strict=True))
            epochs = {key: epochs[key] if key in epochs else self.plans[key[0]].epoch(key[1]) for key in _still(epochs, wanted)}
            steps = [epochs[key][i] for key, i in zip(wanted, segment.ravel().tolist(), strict=True)]
            yield groups, np.array(steps).reshape(groups.shape)


def _still(epochs: dict[tuple[int, int], np.ndarray], wanted: list[tuple[int, int]]) -> set[tuple[int, int]]:
    """Epochs to keep at hand: those wanted now, and the last one of every group that is not."""
    groups = {group for group, _ in wanted}
    return set(wanted) | {key for key in epochs if key[0] not in groups}


class SegmentReader:
    """Gathers segments from groups of frames (whole episodes, in stream order) into batches."""

    def __init__(
        self,
        frames: Frames,
        groups: Sequence[np.ndarray],
        *,
        lead: int,
        steps: int,
        lookahead: int,
        bounds: np.ndarray | None = None,
        remembered: np.ndarray | None = None,
    ) -> None:
        self.lead, self.steps = lead, steps
        self._optional = {"return_bound": bounds, "remembered": remembered}
        self._offsets = np.arange(lead + steps + lookahead)
        self._sizes = np.array([len(group) for group in groups])
        self._begins = np.cumsum(self._sizes) - self._sizes
        self._order = np.concatenate(groups)
        self._age = np.arange(len(frames)) - frames.episode_start  # frames since the episode began: needs no care at the wrap
        self._bootstrapped = frames.truncated & ~frames.terminated
        self._instructions = np.stack([encode_instruction(text) for text in frames.instructions])
        self._frames, self._buffers = frames, dict[tuple[int, ...], Buffers]()

    def read(self, groups: np.ndarray, first_steps: np.ndarray) -> Iterator[Batch]:
        """Batches of segments whose step frames begin at the given places of their groups, both (batches, b).

        Images, which are nearly all of the bytes, are read batch by batch; the rest is gathered at once.
        """
        places = first_steps[..., None] - self.lead + self._offsets
        index = self._order[self._begins[groups][..., None] + places % self._sizes[groups][..., None]]

        def gather(rows: np.ndarray) -> torch.Tensor:
            # Not index_select: its threads wait for each other, 8 ms on a busy machine.
            return torch.from_numpy(rows.take(index, axis=0))

        frames = self._frames
        gathered = {
            "proprio": gather(frames.proprio),
            "instruction": torch.from_numpy(self._instructions.take(frames.instruction_id.take(index), axis=0)),
            "episode_start": torch.from_numpy(self._offsets - self._age.take(index)),
            "has_action": gather(frames.has_action),
            "actions": gather(frames.actions),
            "rewards": gather(frames.rewards),
            "terminated": gather(frames.terminated),
            "truncated": gather(self._bootstrapped),
            "lost_final": gather(frames.lost_final),
            "mc_return": gather(frames.mc_return),
            "success": gather(frames.success),
        }
        gathered |= {name: gather(rows) for name, rows in self._optional.items() if rows is not None}
        for own, *rows in zip(index, *(tensor.unbind() for tensor in gathered.values()), strict=True):
            yield Batch(
                lead=self.lead,
                steps=self.steps,
                images=self._gather_images(own),  # without a name here, that their memory is free once they are let go
                **dict(zip(gathered, rows, strict=True)),
            )

    def _gather_images(self, index: np.ndarray) -> dict[str, torch.Tensor]:
        images = {}
        for camera, rows in self._frames.images.items():
            shape = (*index.shape, *rows.shape[1:])
            if shape not in self._buffers:
                self._buffers[shape] = Buffers(shape)
            images[camera] = torch.from_numpy(rows.gather(index, self._buffers[shape].take()))
        return images

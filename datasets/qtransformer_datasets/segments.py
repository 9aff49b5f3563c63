"""Which segments of the stream make up batch k: a pure function of the seed and k, so that training resumes exactly.

The stream is circular. An epoch tiles it with step ranges that begin at a random phase, in random order; so an epoch
visits every frame once (fewer than `steps` frames, anywhere alike, twice: the last tile overlaps the first). Batches
are cut from the endless row of epochs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from qtransformer.batch import Batch
from qtransformer.preprocess import encode_instruction
from qtransformer_datasets.frames import Frames


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentPlan:
    """How a circular stream of `num_frames` is cut into batches."""

    num_frames: int
    batch_size: int
    steps: int
    seed: int

    @property
    def segments_per_epoch(self) -> int:
        return -(-self.num_frames // self.steps)

    def epoch(self, index: int) -> np.ndarray:
        """First step frame of every segment of an epoch, in the order of visiting, int64 (segments_per_epoch,)."""
        generator = np.random.default_rng((self.seed, index))
        phase = int(generator.integers(self.num_frames))
        tiles = generator.permutation(self.segments_per_epoch)
        return (phase + tiles * self.steps) % self.num_frames

    def batches(self, start: int) -> Iterator[np.ndarray]:
        """First step frames of batch `start` and all that follow, int64 (batch_size,) each."""
        epochs: dict[int, np.ndarray] = {}
        while True:
            serial = np.arange(start * self.batch_size, (start + 1) * self.batch_size)
            wanted = serial // self.segments_per_epoch
            epochs = {int(e): epochs[e] if e in epochs else self.epoch(int(e)) for e in np.unique(wanted)}
            yield np.array([epochs[int(e)][i] for e, i in zip(wanted, serial % self.segments_per_epoch, strict=True)])
            start += 1


class SegmentReader:
    """Gathers segments from the frames listed in `order` (whole episodes, in stream order) into batches."""

    def __init__(self, frames: Frames, order: np.ndarray, *, lead: int, steps: int, lookahead: int) -> None:
        self.lead, self.steps = lead, steps
        self._offsets = np.arange(lead + steps + lookahead)
        self._order = order
        self._age = np.arange(len(frames)) - frames.episode_start  # frames since the episode began: needs no care at the wrap
        self._bootstrapped = frames.truncated & ~frames.terminated
        self._instructions = np.stack([encode_instruction(text) for text in frames.instructions])
        self._frames = frames

    def read(self, first_steps: np.ndarray) -> Batch:
        """Segments whose step frames begin at the given places of `order`, shape (b,)."""
        places = first_steps[:, None] - self.lead + self._offsets
        index = self._order[places % len(self._order)]

        def gather(rows: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(rows[index])  # not index_select: its threads wait for each other, 8 ms on a busy machine

        frames = self._frames
        return Batch(
            lead=self.lead,
            steps=self.steps,
            images={camera: gather(rows) for camera, rows in frames.images.items()},
            proprio=gather(frames.proprio),
            instruction=torch.from_numpy(self._instructions[frames.instruction_id[index]]),
            episode_start=torch.from_numpy(np.maximum(self._offsets - self._age[index], 0)),
            has_action=gather(frames.has_action),
            actions=gather(frames.actions),
            rewards=gather(frames.rewards),
            terminated=gather(frames.terminated),
            truncated=gather(self._bootstrapped),
            lost_final=gather(frames.lost_final),
            mc_return=gather(frames.mc_return),
            success=gather(frames.success),
        )

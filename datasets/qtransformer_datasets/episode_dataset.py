"""Logged episodes in memory, ready to be drawn from."""

import copy
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from qtransformer.batch import Batch
from qtransformer.errors import DatasetError
from qtransformer.types import Episode, EpisodeSource
from qtransformer_datasets.dataset_stats import DatasetStats, measure
from qtransformer_datasets.episode_check import check_same_specs
from qtransformer_datasets.formats import open_episodes
from qtransformer_datasets.frames import Frames, array_fields, discounted_returns, load_frames
from qtransformer_datasets.segments import SegmentPlan, SegmentReader

Source = str | os.PathLike[str] | EpisodeSource


class EpisodeDataset:
    """All episodes of a path, a source, or a list of either whose specs agree. Images are held once, as uint8.

    `discount` sets the returns (`mc_return`, and those in `stats`); `with_discount` changes it without reading again.
    """

    def __init__(self, source: Source | Sequence[Source], discount: float = 0.98) -> None:
        sources = [_open(item) for item in _listed(source)]
        if not sources:
            raise DatasetError("expected at least one file or source, found an empty list; name one")
        self.action_spec, self.observation_spec = sources[0].action_spec, sources[0].observation_spec
        for other in sources[1:]:
            where = str(getattr(other, "path", type(other).__name__))
            check_same_specs((self.action_spec, self.observation_spec), (other.action_spec, other.observation_spec), where)
        self.discount = _checked_discount(discount)
        self._frames, self._records = load_frames(sources, self.discount)

    @property
    def num_frames(self) -> int:
        """Frames of the stream: steps plus one final observation per episode."""
        return len(self._frames)

    @property
    def num_steps(self) -> int:
        return self.num_frames - self.num_episodes

    @property
    def num_episodes(self) -> int:
        return len(self._records)

    def __len__(self) -> int:
        """Episodes: a dataset is itself an `EpisodeSource`."""
        return self.num_episodes

    def __iter__(self) -> Iterator[Episode]:
        return self.episodes()

    @property
    def lengths(self) -> list[int]:
        """Steps per episode."""
        return [record.length for record in self._records]

    @cached_property
    def stats(self) -> DatasetStats:
        return measure(self._frames, self._records)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over specs and content; the discount is not part of it. Images enter by their CRC-32, for speed."""
        digest = hashlib.sha256()
        specs = [self.action_spec.to_dict(), self.observation_spec.to_dict(), self._frames.instructions]
        digest.update(json.dumps(specs, sort_keys=True).encode())
        for camera, rows in sorted(self._frames.images.items()):
            digest.update(f"{camera} {rows.shape} {zlib.crc32(rows.data)}".encode())
        for name, array in array_fields(self._frames):
            if name != "mc_return":
                digest.update(f"{name} {array.shape} {array.dtype}".encode() + array.tobytes())
        return digest.hexdigest()

    def frames(self) -> Frames:
        """The stream itself, in flat arrays that are not copied."""
        return self._frames

    def episodes(self) -> Iterator[Episode]:
        """The episodes as they were logged; their arrays are views of the stream."""
        frames = self._frames
        for record in self._records:
            steps = slice(record.start, record.start + record.length)
            rows = slice(steps.start, steps.stop + 1)
            yield Episode(
                images={camera: images[rows] for camera, images in frames.images.items()},
                proprio=frames.proprio[rows],
                actions=frames.actions[steps],
                rewards=frames.rewards[steps],
                terminated=frames.terminated[steps],
                truncated=frames.truncated[steps],
                instruction=frames.instructions[frames.instruction_id[record.start]],
                success=record.success,
                has_final_observation=record.has_final_observation,
                info=record.info,
            )

    def with_discount(self, discount: float) -> "EpisodeDataset":
        """The same data, sharing its arrays, with returns under another discount."""
        other = copy.copy(self)
        other.__dict__.pop("stats", None)
        other.discount = _checked_discount(discount)
        returns = discounted_returns(self._frames.rewards, self._frames.has_action, discount)
        other._frames = replace(self._frames, mc_return=returns)
        return other

    def segments(
        self,
        *,
        batch_size: int,
        lead: int,
        steps: int,
        lookahead: int,
        seed: int,
        start: int = 0,
        filter: str = "all",
    ) -> Iterator[Batch]:
        """Endless batches of segments; batch k depends on nothing but the data, these settings and k, from `start` on.

        `filter="success"` draws from the stream of successful episodes only. See `segments.SegmentPlan` for the order.
        """
        _check_segments(batch_size=batch_size, steps=steps, lead=lead, lookahead=lookahead, seed=seed, start=start)
        order = self._order(filter)
        plan = SegmentPlan(num_frames=len(order), batch_size=batch_size, steps=steps, seed=seed)
        reader = SegmentReader(self._frames, order, lead=lead, steps=steps, lookahead=lookahead)
        return map(reader.read, plan.batches(start))

    def _order(self, filter: str) -> np.ndarray:
        """Frames to draw from, in stream order, int64."""
        if filter == "all":
            return np.arange(self.num_frames)
        if filter != "success":
            raise DatasetError(f"filter expected 'all' or 'success', found {filter!r}; choose one")
        order = np.flatnonzero(self._frames.success)
        if not len(order):
            raise DatasetError(f"filter 'success' found none among {self.num_episodes} episodes; use filter='all' or other data")
        return order


def _listed(source: Source | Sequence[Source]) -> list[Source]:
    return list(source) if isinstance(source, list | tuple) else [source]  # pyright: ignore[reportReturnType]


def _open(source: Source) -> EpisodeSource:
    return open_episodes(source) if isinstance(source, str | os.PathLike) else source


def _checked_discount(discount: float) -> float:
    if not 0.0 <= discount <= 1.0:
        raise DatasetError(f"discount expected from 0 to 1, found {discount}; choose for instance 0.98")
    return float(discount)


def _check_segments(*, batch_size: int, steps: int, **at_least_zero: int) -> None:
    for name, value, least in [
        ("batch_size", batch_size, 1),
        ("steps", steps, 1),
        *((k, v, 0) for k, v in at_least_zero.items()),
    ]:
        if value < least:
            raise DatasetError(f"segments: {name} expected at least {least}, found {value}; correct the setting")

"""Logged episodes, in memory or in a cache on disk, ready to be drawn from."""

import copy
import hashlib
import itertools
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial, reduce
from typing import cast

import numpy as np

from qtransformer.batch import Batch
from qtransformer.errors import ConfigError, DatasetError
from qtransformer.memory import Memory
from qtransformer.types import Episode, EpisodeSource
from qtransformer_datasets.cache.frame_cache import build_cache, open_cache
from qtransformer_datasets.episodes.check import check_same_specs
from qtransformer_datasets.episodes.protocols import LoggedEpisodes, Opening
from qtransformer_datasets.episodes.wild_values import PROPRIO_REMEDY
from qtransformer_datasets.formats import open_episodes
from qtransformer_datasets.stream.frames import (
    Frames,
    SourceFrames,
    array_fields,
    discounted_returns,
    image_bytes,
    join,
    logged_episode,
    read_into_memory,
    return_bounds,
)
from qtransformer_datasets.stream.groups import grouped
from qtransformer_datasets.stream.memory import machine_memory
from qtransformer_datasets.stream.prefetch import prefetched_from_disk
from qtransformer_datasets.stream.segments import BatchPlan, SegmentPlan, SegmentReader, Turns
from qtransformer_datasets.stream.stats import DatasetStats, measure
from qtransformer_datasets.stream.wild_proprio import wild_proprio
from qtransformer_datasets.views import EpisodeView, under_views

CACHES = ("auto", "always", "never")
_NOT_CONTENT = ("mc_return", "source_id", "timestamps")
"""Arrays of `Frames` that the fingerprint leaves out."""

Source = str | os.PathLike[str] | EpisodeSource


class EpisodeDataset:
    """All episodes of a path, a source, or a list of either whose specs agree. Images are held once, as uint8.

    Args:
        source: a path (see `formats.FORMATS`), a reader that `open_episodes` opened, any other `EpisodeSource`, or a list of these.
        discount: sets the returns (`mc_return`, and those in `stats`); `with_discount` changes it without reading again.
        weights: one positive number per source: their shares of the steps drawn. None: every step is drawn equally often.
        cache: "never" reads everything into memory. "always" keeps what was decoded in a cache on disk (see `frame_cache`) and
            maps it, so that neither memory nor the time of a start depends on the data's size. "auto" uses a cache that is there,
            and builds one of videos, and where images would take more than `memory_limit`. A source that is neither a path nor
            was opened by `open_episodes` or a `DataSource` is always read into memory. Batches are the same bit for bit.
        memory_limit: bytes; by default a quarter of the machine's memory, which leaves room for as many trainings beside this one.
    """

    def __init__(
        self,
        source: Source | Sequence[Source],
        discount: float = 0.98,
        *,
        weights: Sequence[float] | None = None,
        cache: str = "auto",
        memory_limit: int | None = None,
    ) -> None:
        sources = [_open(item) for item in _listed(source)]
        if not sources:
            raise DatasetError("expected at least one file or source, found an empty list; name one")
        self.action_spec, self.observation_spec = sources[0].action_spec, sources[0].observation_spec
        for other in sources[1:]:
            where = str(getattr(other, "path", type(other).__name__))
            check_same_specs((self.action_spec, self.observation_spec), (other.action_spec, other.observation_spec), where)
        self.discount = _checked_discount(discount)
        self._weights = _checked_weights(weights, len(sources))
        limit = machine_memory() // 4 if memory_limit is None else memory_limit
        loaded = _load(sources, cache, limit)
        self._frames, self._records = join(loaded, self.discount)
        self._warn_of_wild_proprio([partial(_where, source) for source in sources], [len(frames.records) for frames in loaded])

    def _warn_of_wild_proprio(self, where: Sequence[Callable[[int], str]], counts: Sequence[int]) -> None:
        """`where` names the episodes of each source, which has `counts` of them."""
        firsts = np.cumsum([0, *counts])
        for wild in wild_proprio(self._frames, self._records, self.observation_spec.proprio_names):
            number = int(np.searchsorted(firsts, wild.episode, "right")) - 1
            told = wild.sentence(where[number](wild.episode - int(firsts[number])), "proprio", PROPRIO_REMEDY)
            warnings.warn(told, stacklevel=3)

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
        """SHA-256 over specs and content; the discount, times and sources are not part of it. Images enter by their CRC-32, which a
        cache knows without reading them."""
        digest = hashlib.sha256()
        specs = [self.action_spec.to_dict(), self.observation_spec.to_dict(), self._frames.instructions]
        digest.update(json.dumps(specs, sort_keys=True).encode())
        for camera, rows in sorted(self._frames.images.items()):
            digest.update(f"{camera} {rows.shape} {rows.crc32()}".encode())
        for name, array in array_fields(self._frames):
            if name not in _NOT_CONTENT:
                digest.update(f"{name} {array.shape} {array.dtype}".encode() + array.tobytes())
        return digest.hexdigest()

    def verify(self) -> None:
        """Read every image and compare it with its checksum; opening a cache checks all but the images.

        Raises:
            DatasetError: the images of a camera are not what was cached.
        """
        for camera, rows in self._frames.images.items():
            if not rows.is_whole():
                raise DatasetError(
                    f"camera '{camera}': cached images differ from their checksum; delete the cache, it is built anew"
                )

    def frames(self) -> Frames:
        """The stream itself, in flat arrays that are not copied."""
        return self._frames

    def episodes(self) -> Iterator[Episode]:
        """The episodes as they were logged; their arrays are views of the stream, or copies of what only a cache holds."""
        frames, arrays = self._frames, dict(array_fields(self._frames))
        for record in self._records:
            rows = slice(record.start, record.start + record.length + 1)
            images = {camera: np.require(images[rows], requirements="W") for camera, images in frames.images.items()}
            yield logged_episode(arrays, frames.instructions, record, images)

    def with_discount(self, discount: float) -> "EpisodeDataset":
        """The same data, sharing its arrays, with returns under another discount."""
        other = copy.copy(self)
        for measured in ("stats", "_return_bounds"):
            other.__dict__.pop(measured, None)
        other.discount = _checked_discount(discount)
        returns = discounted_returns(self._frames.rewards, self._frames.has_action, discount)
        other._frames = replace(self._frames, mc_return=returns)
        return other

    @cached_property
    def _return_bounds(self) -> np.ndarray | None:
        return return_bounds(self._frames, self.discount)

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
        balance: str = "none",
        rank: int = 0,
        world_size: int = 1,
        memory: Memory | None = None,
    ) -> Iterator[Batch]:
        """Endless batches of segments; batch k depends on nothing but the data, these settings and k, from `start` on.

        `filter="success"` draws from successful episodes only. `balance` (none, success, source or instruction) draws as many steps
        from every such group. Rank r of w takes batches r, r + w, r + 2w ... of those that one alone would take. With a `memory`,
        batches hold what it remembers of every frame's episode. See `segments`.
        """
        _check_segments(batch_size=batch_size, steps=steps, lead=lead, lookahead=lookahead, seed=seed, start=start, rank=rank)
        if rank >= world_size:
            raise ConfigError(f"segments: rank expected below world_size {world_size}, found {rank}; correct the setting")
        groups, shares = grouped(self._frames, filter=filter, balance=balance, weights=self._weights)
        plans = [SegmentPlan(num_frames=len(group), steps=steps, seed=seed, group=i) for i, group in enumerate(groups)]
        plan = BatchPlan(plans=plans, turns=Turns(shares), batch_size=batch_size)
        remembered = memory and memory.of_frames(self._frames.proprio, self._frames.episode_start)
        reader = SegmentReader(
            self._frames,
            groups,
            lead=lead,
            steps=steps,
            lookahead=lookahead,
            bounds=self._return_bounds,
            remembered=remembered,
        )
        batches = itertools.chain.from_iterable(itertools.starmap(reader.read, plan.blocks(start, rank, world_size)))
        return prefetched_from_disk(batches) if any(rows.mapped for rows in self._frames.images.values()) else batches


def _listed(source: Source | Sequence[Source]) -> list[Source]:
    return list(source) if isinstance(source, list | tuple) else [source]  # pyright: ignore[reportReturnType]


def _open(source: Source) -> EpisodeSource:
    return open_episodes(source) if isinstance(source, str | os.PathLike) else source


def _where(source: EpisodeSource, index: int) -> str:
    """How messages name an episode, also of a source that knows no file."""
    own = getattr(source, "where", None)
    return own(index) if own else f"{getattr(source, 'path', type(source).__name__)}, episode {index}"


def _load(sources: Sequence[EpisodeSource], cache: str, memory_limit: int) -> list[SourceFrames]:
    """Each source from its cache or into memory; see `EpisodeDataset`."""
    if cache not in CACHES:
        raise ConfigError(f"cache expected one of {', '.join(CACHES)}, found {cache!r}; choose one")
    bases, views = zip(*map(under_views, sources), strict=True)
    cacheable = [i for i, base in enumerate(bases) if _opening(base) and cache != "never"]
    found = {i: open_cache(cast(LoggedEpisodes, bases[i])) for i in cacheable}
    missing = [i for i in cacheable if found[i] is None]
    too_large = cache == "auto" and sum(image_bytes(sources[i]) for i in missing) > memory_limit
    for i in missing:
        opening = _opening(bases[i])
        if cache == "always" or too_large or (opening and opening.is_slow):
            found[i] = build_cache(cast(LoggedEpisodes, bases[i]))
    return [_seen(frames, views[i]) if (frames := found.get(i)) else read_into_memory(source) for i, source in enumerate(sources)]


def _opening(source: EpisodeSource) -> Opening | None:
    """How a reader or a view of one was opened; None of any other source."""
    return getattr(source, "opening", None)


def _seen(frames: SourceFrames, views: Sequence[EpisodeView]) -> SourceFrames:
    return reduce(lambda seen, view: view.seen(seen), views, frames)


def _checked_weights(weights: Sequence[float] | None, count: int) -> list[float] | None:
    if weights is None:
        return None
    if len(weights) != count or not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ConfigError(f"weights expected {count} positive numbers, one per source, found {list(weights)}; correct them")
    return list(weights)


def _checked_discount(discount: float) -> float:
    if not 0.0 <= discount <= 1.0:
        raise ConfigError(f"discount expected from 0 to 1, found {discount}; choose for instance 0.98")
    return float(discount)


def _check_segments(*, batch_size: int, steps: int, **at_least_zero: int) -> None:
    for name, value, least in [
        ("batch_size", batch_size, 1),
        ("steps", steps, 1),
        *((k, v, 0) for k, v in at_least_zero.items()),
    ]:
        if value < least:
            raise ConfigError(f"segments: {name} expected at least {least}, found {value}; correct the setting")

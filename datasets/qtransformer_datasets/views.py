"""A source seen otherwise, without writing it anew: other cameras, smaller images, other labels, some of its episodes."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from qtransformer.errors import ConfigError, DatasetError, SpecMismatchError
from qtransformer.types import Episode, EpisodeSource, ObservationSpec
from qtransformer_datasets.episodes.check import check_same_specs
from qtransformer_datasets.episodes.protocols import LoggedEpisodes, Opening, PartReport
from qtransformer_datasets.stream.frames import SourceFrames, episode_rows, logged_episode, row_layout

Change = Callable[[int, Episode], Episode]
"""Called with an episode and its number."""


class EpisodeView:
    """Another source's episodes, changed as they are read; itself a `LoggedEpisodes`.

    A view that changes pixels knows its `opening` where its source does, and has a cache of its own. One that `keeps_pixels` is
    applied to the frames of its source, cached or not, without an image being read: see `under_views`.
    """

    def __init__(
        self,
        source: LoggedEpisodes,
        *,
        change: Change | None = None,
        observation_spec: ObservationSpec | None = None,
        indices: Sequence[int] | None = None,
        cameras: Mapping[str, str] | None = None,
        keeps_pixels: bool = False,
        opening: Opening | None = None,
    ) -> None:
        """`change` must keep the number of steps; `observation_spec` is the one after it; `indices` picks and orders episodes.

        `cameras` picks and names cameras, new name to the source's own. With `keeps_pixels`, `change` gives an episode other
        rewards, ends or success only, and gets it without images when it is applied to frames.
        """
        self.path: Path = source.path
        self.action_spec = source.action_spec
        self.observation_spec = observation_spec or source.observation_spec
        self.attributes: dict[str, Any] = source.attributes
        self.source, self.keeps_pixels, self.opening = source, keeps_pixels, opening
        self._change, self._indices, self._cameras = change, indices, cameras

    @property
    def problems(self) -> Sequence[str]:
        """Those of the source."""
        return self.source.problems

    @property
    def reports(self) -> Sequence[PartReport]:
        """Those of the source."""
        return self.source.reports

    @property
    def lengths(self) -> list[int]:
        """Steps per episode."""
        lengths = self.source.lengths
        return lengths if self._indices is None else [lengths[i] for i in self._indices]

    def __len__(self) -> int:
        return len(self.source) if self._indices is None else len(self._indices)

    def __iter__(self) -> Iterator[Episode]:
        if self._indices is None:
            return (self._seen(index, episode) for index, episode in enumerate(self.source))
        return map(self.read, range(len(self)))

    def read(self, index: int) -> Episode:
        """Episode `index`, counted from 0."""
        return self._seen(index, self.source.read(index if self._indices is None else self._indices[index]))

    def where(self, index: int) -> str:
        """How messages name that episode, as the source does."""
        return self.source.where(index if self._indices is None else self._indices[index])

    def says_success(self, index: int) -> bool:
        """Whether the data themselves say how that episode went."""
        return self.source.says_success(index if self._indices is None else self._indices[index])

    def seen(self, frames: SourceFrames) -> SourceFrames:
        """The source's frames as this view, which keeps pixels, shows them."""
        if self._cameras is not None:
            frames = replace(frames, images=_picked(frames.images, self._cameras))
        if self._change is None:
            return frames
        layout, records = row_layout(self.action_spec, self.observation_spec), []
        arrays = {name: rows.copy() for name, rows in frames.arrays.items()}
        for index, record in enumerate(frames.records):
            episode = self._change(index, logged_episode(frames.arrays, frames.instructions, record, {}))
            instruction = int(arrays["instruction_id"][record.start])
            for name, rows in episode_rows(episode, layout, record.start, instruction).items():
                arrays[name][record.start : record.start + len(rows)] = rows
            records.append(replace(record, success=episode.success))
        return replace(frames, arrays=arrays, records=records)

    def _seen(self, index: int, episode: Episode) -> Episode:
        if self._cameras is not None:
            episode = replace(episode, images=_picked(episode.images, self._cameras))
        return episode if self._change is None else self._change(index, episode)


class MergedEpisodes:
    """Several sources end to end; itself a `LoggedEpisodes`. Attributes are kept where all agree."""

    opening: Opening | None = None
    problems: Sequence[str] = ()
    reports: Sequence[PartReport] = ()

    def __init__(self, sources: Sequence[LoggedEpisodes]) -> None:
        first = sources[0]
        for other in sources[1:]:
            expected = (first.action_spec, first.observation_spec)
            check_same_specs(expected, (other.action_spec, other.observation_spec), str(other.path))
        self.path, self.action_spec, self.observation_spec = first.path, first.action_spec, first.observation_spec
        self.attributes = {
            name: value for name, value in first.attributes.items() if all(s.attributes.get(name) == value for s in sources)
        }
        self._sources = sources
        self._places = [(source, index) for source in sources for index in range(len(source))]

    @property
    def lengths(self) -> list[int]:
        """Steps per episode."""
        return [length for source in self._sources for length in source.lengths]

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Episode]:
        return chain.from_iterable(self._sources)

    def read(self, index: int) -> Episode:
        """Episode `index`, counted from 0 over all sources."""
        source, own = self._places[index]
        return source.read(own)

    def where(self, index: int) -> str:
        """How messages name that episode, as its own source does."""
        source, own = self._places[index]
        return source.where(own)

    def says_success(self, index: int) -> bool:
        """Whether the data themselves say how that episode went."""
        source, own = self._places[index]
        return source.says_success(own)


def select_episodes(source: LoggedEpisodes, indices: Sequence[int]) -> EpisodeView:
    """Some episodes, in the order of `indices`."""
    return EpisodeView(source, indices=indices)


def under_views(source: EpisodeSource) -> tuple[EpisodeSource, list[EpisodeView]]:
    """The source under all views that keep pixels, and these views, the innermost first."""
    views = list[EpisodeView]()
    while isinstance(source, EpisodeView) and source.keeps_pixels:
        views.insert(0, source)
        source = source.source
    return source, views


def select_cameras(source: LoggedEpisodes, names: Mapping[str, str]) -> EpisodeView:
    """The cameras that `names` lists, new name to the source's own; all others are dropped.

    Raises:
        SpecMismatchError: the source has no such camera.
    """
    spec = _spec_of_cameras(source, names)
    return EpisodeView(source, observation_spec=spec, cameras=names, keeps_pixels=True)


def keep_cameras(source: LoggedEpisodes, names: Collection[str]) -> LoggedEpisodes:
    """These cameras under their own names, as a source to be cached without the others.

    Raises:
        SpecMismatchError: the source has no such camera.
    """
    kept = {name: name for name in sorted(names)}
    spec = _spec_of_cameras(source, kept)
    if spec.cameras.keys() == source.observation_spec.cameras.keys():
        return source
    return EpisodeView(source, observation_spec=spec, cameras=kept, opening=_opening(source, cameras=list(kept)))


def shrink_images(source: LoggedEpisodes, size: tuple[int, int]) -> EpisodeView:
    """Every camera's images at `size` (h, w), each pixel the mean of the area it covers.

    Raises:
        ConfigError: a camera's images are smaller than that already.
    """
    spec = source.observation_spec
    for name, (height, width, _) in spec.cameras.items():
        if height < size[0] or width < size[1]:
            raise ConfigError(
                f"{source.path}: image_size expected at most camera '{name}'s {height} x {width}, found {size[0]} x {size[1]}; "
                "images are only made smaller"
            )
    return EpisodeView(
        source,
        change=lambda _, episode: replace(episode, images={name: _shrink(rows, size) for name, rows in episode.images.items()}),
        observation_spec=replace(spec, cameras=dict.fromkeys(spec.cameras, (*size, 3))),
        opening=_opening(source, image_size=list(size)),
    )


def relabel_success(source: LoggedEpisodes, success: bool) -> EpisodeView:
    """Every episode a success, or a failure."""
    return EpisodeView(source, change=lambda _, episode: replace(episode, success=success), keeps_pixels=True)


def say_success(source: LoggedEpisodes, success: bool) -> EpisodeView:
    """The same for episodes that do not say themselves how they went.

    Raises (while reading):
        DatasetError: one says the opposite. To write other labels is for `relabel_success`.
    """

    def said(index: int, episode: Episode) -> Episode:
        if episode.success != success and source.says_success(index):
            raise DatasetError(
                f"{source.where(index)}: success:{str(success).lower()} contradicts the data, which say that it "
                f"{'succeeded' if episode.success else 'failed'}; leave it out, or write other labels (`qtransformer data relabel`)"
            )
        return replace(episode, success=success)

    return EpisodeView(source, change=said, keeps_pixels=True)


def reward_success(source: LoggedEpisodes) -> EpisodeView:
    """Rewards from success; see `success_rewards`."""
    return EpisodeView(source, change=lambda _, episode: success_rewards(episode), keeps_pixels=True)


def success_rewards(episode: Episode) -> Episode:
    """1 at the last step of a success, which thereby ends the task (terminated), and 0 elsewhere.

    A log that merely stops after a success is truncated, and its last reward would be counted once more in the bootstrap. A
    failure keeps its end.
    """
    rewards = np.zeros(len(episode), np.float32)
    if not episode.success:
        return replace(episode, rewards=rewards)
    rewards[-1] = 1.0
    last = np.arange(len(episode)) == len(episode) - 1
    return replace(episode, rewards=rewards, terminated=last, truncated=np.zeros_like(last))


def shaped_rewards(source: LoggedEpisodes, scale: float, per_step: float) -> EpisodeView:
    """Every reward times `scale`, plus `per_step`."""

    def shaped(_: int, episode: Episode) -> Episode:
        return replace(episode, rewards=(scale * episode.rewards + per_step).astype(np.float32))

    return EpisodeView(source, change=shaped, keeps_pixels=True)


def noisy_rewards(source: LoggedEpisodes, spread: float, seed: int) -> EpisodeView:
    """Noise U(0, spread) on the last reward of every episode. An episode's draw follows from (seed, its number) alone."""

    def noisy(index: int, episode: Episode) -> Episode:
        rewards = episode.rewards.copy()
        rewards[-1] += spread * np.random.default_rng((seed, index)).random()
        return replace(episode, rewards=rewards)

    return EpisodeView(source, change=noisy, keeps_pixels=True)


def _spec_of_cameras(source: LoggedEpisodes, names: Mapping[str, str]) -> ObservationSpec:
    spec = source.observation_spec
    missing = [old for old in names.values() if old not in spec.cameras]
    if missing:
        raise SpecMismatchError(f"{source.path}: cameras expected among {sorted(spec.cameras)}, found {missing}; choose those")
    return replace(spec, cameras=_picked(spec.cameras, names))


def _picked(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {new: values[old] for new, old in names.items()}


def _opening(source: LoggedEpisodes, **view: Any) -> Opening | None:
    """How a view of the source is told apart from it in a cache; None where the source itself is not cached."""
    return source.opening and replace(source.opening, options={**source.opening.options, **view})


def _shrink(rows: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if rows.shape[1:3] == size:
        return rows
    return np.stack([cv2.resize(np.ascontiguousarray(row), size[::-1], interpolation=cv2.INTER_AREA) for row in rows])

"""What the readers of files have in common: episodes by number, clipped where that is asked for, and checked."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from qtransformer.errors import DatasetError
from qtransformer.types import ActionSpec, Episode, ObservationSpec
from qtransformer_datasets.episodes.check import check_episode, clip_actions
from qtransformer_datasets.episodes.limits import typed_limits
from qtransformer_datasets.episodes.protocols import Opening, PartReport

Opened = TypeVar("Opened")
"""What a reader opens once for as many episodes as are asked for: a file, or handles that keep what they decode."""


class EpisodeReader(ABC, Generic[Opened]):
    """The episodes of one dataset on disk; an `EpisodeSource`. A format says how many there are and how one is loaded."""

    path: Path
    action_spec: ActionSpec
    observation_spec: ObservationSpec
    attributes: dict[str, Any]
    """Free provenance: recipe, seed, versions; of a foreign dataset, what it tells of its origin."""
    clip_actions: bool
    """Move actions beyond the limits onto them instead of refusing their episode."""
    opening: Opening | None = None

    @property
    def problems(self) -> Sequence[str]:
        """What is wrong with the dataset as a whole; a format that finds such things says so."""
        return ()

    @property
    def reports(self) -> Sequence[PartReport]:
        """What there is to tell of the parts of a dataset, for formats that have parts."""
        return ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _open(self) -> AbstractContextManager[Opened]: ...

    @abstractmethod
    def _load(self, opened: Opened, index: int) -> Episode:
        """Episode `index` as it is logged."""

    @abstractmethod
    def where(self, index: int) -> str:
        """How messages name episode `index`: file, and its name there."""

    def says_success(self, index: int) -> bool:
        """Whether the data themselves say how episode `index` went; a format in which they can says so."""
        return False

    @cached_property
    def _extremes(self) -> tuple[np.ndarray, np.ndarray] | None:
        return self._measured_extremes()

    def _measured_extremes(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Least and greatest value of each action over the dataset, in its unit; None where it takes no option `limits`."""
        return None

    def _widening(self, names: Sequence[str]) -> str:
        """The option by which limits of these actions hold all of the dataset; empty where it takes none."""
        if self._extremes is None:
            return ""
        dims = [self.action_spec.names.index(name) for name in names]
        return typed_limits(names, *(ends[dims].tolist() for ends in self._extremes))

    def __iter__(self) -> Iterator[Episode]:
        with self._open() as opened:
            for index in range(len(self)):
                yield self._checked(opened, index)

    def read(self, index: int) -> Episode:
        """Episode `index`, counted from 0 in the dataset's order.

        Raises:
            DatasetError: there is none of this number, or it is not right.
        """
        if not 0 <= index < len(self):
            raise DatasetError(f"{self.path}: expected an episode from 0 to {len(self) - 1}, found {index}; check the index")
        with self._open() as opened:
            return self._checked(opened, index)

    def _checked(self, opened: Opened, index: int) -> Episode:
        episode = self._load(opened, index)
        if self.clip_actions:
            episode.actions, outside = clip_actions(episode.actions, self.action_spec)
            episode.info |= {"clipped_actions": outside} if outside else {}
        check_episode(episode, self.action_spec, self.observation_spec, self.where(index), self._widening)
        return episode

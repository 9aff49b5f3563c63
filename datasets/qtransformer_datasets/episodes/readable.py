"""Leaving bad episodes out, on request, whichever format they are in."""

import warnings
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from qtransformer.errors import DatasetError
from qtransformer.types import Episode
from qtransformer_datasets.episodes.protocols import LoggedEpisodes


class ReadableEpisodes:
    """The episodes of a reader that can be read and are right; itself an `EpisodeSource`.

    Every episode is read once at the start to find that out, so that lengths and numbers are known and never change.
    """

    def __init__(self, source: LoggedEpisodes) -> None:
        self.path: Path = source.path
        self.action_spec, self.observation_spec, self.attributes = source.action_spec, source.observation_spec, source.attributes
        self.reports = getattr(source, "reports", ())
        self.skipped: dict[int, str] = {}
        """Number in the file to what is wrong, of every episode left out."""
        self._source, self._good, self.lengths = source, list[int](), list[int]()
        for index in tqdm(range(len(source)), desc=f"check {self.path.name}", unit="episode", disable=None):
            try:
                self.lengths.append(len(source.read(index)))
                self._good.append(index)
            except DatasetError as error:
                self.skipped[index] = str(error)
        if not self._good:
            raise DatasetError(f"{self.path}: expected a readable episode, found none of {len(source)}: {self.skipped.get(0)}")
        if self.skipped:
            first = next(iter(self.skipped.values()))
            warnings.warn(f"{self.path}: skipped {len(self.skipped)} of {len(source)} episodes; the first: {first}", stacklevel=2)

    def __len__(self) -> int:
        return len(self._good)

    def __iter__(self) -> Iterator[Episode]:
        return (self.read(index) for index in range(len(self)))

    def read(self, index: int) -> Episode:
        """Readable episode `index`, counted from 0."""
        if not 0 <= index < len(self):
            raise DatasetError(f"{self.path}: expected an episode from 0 to {len(self) - 1}, found {index}; check the index")
        return self._source.read(self._good[index])

"""Leaving bad episodes out, on request, whichever format they are in."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from qtransformer.errors import DatasetError
from qtransformer.types import Episode
from qtransformer_datasets.episodes.protocols import LoggedEpisodes, Opening, PartReport


class ReadableEpisodes:
    """The episodes of a reader that can be read and are right; itself a `LoggedEpisodes`.

    Every episode is read once at the start to find that out, so that lengths and numbers are known and never change. What was
    decoded for that is kept, up to `keep_bytes` of images, until it is asked for: who reads everything once decodes it once.
    """

    problems: Sequence[str] = ()

    def __init__(self, source: LoggedEpisodes, keep_bytes: int = 0) -> None:
        self.path: Path = source.path
        self.action_spec, self.observation_spec, self.attributes = source.action_spec, source.observation_spec, source.attributes
        self.reports: Sequence[PartReport] = source.reports
        self.opening: Opening | None = None
        self.skipped: dict[int, str] = {}
        """Number in the file to what is wrong, of every episode left out."""
        self._source, self._good, self.lengths = source, list[int](), list[int]()
        self._kept = dict[int, Episode]()
        for index in tqdm(range(len(source)), desc=f"check {self.path.name}", unit="episode", disable=None):
            try:
                episode = source.read(index)
            except DatasetError as error:
                self.skipped[index] = str(error)
                continue
            self._good.append(index)
            self.lengths.append(len(episode))
            keep_bytes -= sum(rows.nbytes for rows in episode.images.values())
            if keep_bytes >= 0:
                self._kept[index] = episode
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
        number = self._good[index]
        kept = self._kept.pop(number, None)
        return self._source.read(number) if kept is None else kept

    def where(self, index: int) -> str:
        """How messages name that episode, by its number in the file."""
        return self._source.where(self._good[index])

    def says_success(self, index: int) -> bool:
        """Whether the data themselves say how that episode went."""
        return self._source.says_success(self._good[index])

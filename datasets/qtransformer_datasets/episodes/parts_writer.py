"""What the writers have in common: every episode is a part of its own until all are published in one step."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from qtransformer.errors import DatasetError
from qtransformer.types import ActionSpec, Episode, ObservationSpec
from qtransformer_datasets.episodes.check import check_episode
from qtransformer_datasets.episodes.parts import EpisodeParts, plain_json

Writer = TypeVar("Writer", bound="PartsWriter")
_FRESH, _MERGED = "fresh.tmp", "merged.tmp"
"""What is being written; a kill leaves it, and it is overwritten."""


class PartsWriter(ABC):
    """Append episodes, then `finish`; `with` finishes on a clean exit and keeps the parts on an exception."""

    path: Path
    action_spec: ActionSpec
    observation_spec: ObservationSpec

    @abstractmethod
    def _errors(self, where: str) -> AbstractContextManager[None]:
        """What the format's library raises while it writes, as a DatasetError."""

    @abstractmethod
    def _write_part(self, fresh: Path, episode: Episode, where: str) -> None:
        """Write an episode as the file or folder `fresh`, over whatever a kill left there."""

    @abstractmethod
    def _merge(self, merged: Path) -> None:
        """Join all parts into the file or folder `merged`, over whatever a kill left there."""

    def __len__(self) -> int:
        """Episodes safely on disk."""
        return self._parts.count

    def __enter__(self: Writer) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and not self._closed:
            self.finish()
        self.close()

    def append(self, episode: Episode) -> None:
        """Check an episode and put it on disk for good."""
        self._check_open()
        where = f"{self.path}, episode {len(self)}"
        check_episode(episode, self.action_spec, self.observation_spec, where)
        fresh = self._parts.folder / _FRESH
        with self._errors(where):
            self._write_part(fresh, episode, where)
            self._parts.add(fresh)

    def finish(self) -> None:
        """Publish all episodes as one dataset at `path`, in one step, and drop the parts."""
        self._check_open()
        if not len(self):
            raise DatasetError(f"{self.path}: expected at least one episode to publish, found none; append before finishing")
        merged = self._parts.folder / _MERGED
        with self._errors(str(merged)):
            self._merge(merged)
            self._parts.publish(merged)
        self._closed = True

    def close(self) -> None:
        """Let go without publishing: the parts stay, for `open_or_resume`."""
        self._closed = True
        self._parts.close()

    def _begin(
        self,
        path: Path,
        action_spec: ActionSpec,
        observation_spec: ObservationSpec,
        attributes: Mapping[str, Any] | None,
        layout: Mapping[str, Any],
        first_part: str,
    ) -> None:
        """Take the folder of parts, or make it. `layout`: what else a resumed run must share; `first_part`: name of part 0."""
        self.path, self.action_spec, self.observation_spec = path, action_spec, observation_spec
        self._recipe = {
            **layout,
            "action_spec": action_spec.to_dict(),
            "observation_spec": observation_spec.to_dict(),
            "attributes": plain_json(dict(attributes or {}), f"{path}, attributes"),
        }
        self._parts = EpisodeParts(path, self._recipe, first_part)
        self._closed = False

    def _check_open(self) -> None:
        if self._closed:
            raise DatasetError(f"{self.path}: expected an open writer, found a finished one; open another dataset")

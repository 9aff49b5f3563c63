"""What every reader and every writer is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from qtransformer.types import ActionSpec, Episode, ObservationSpec


class LoggedEpisodes(Protocol):
    """What every reader is: an `EpisodeSource` that knows its file.

    A reader may also have `problems`, sentences on what is wrong with the dataset as a whole that reading its episodes does not
    raise, and `reports`, one per part of the dataset, whose `text()` describes it; `data inspect` and `data validate` print both.
    """

    path: Path
    action_spec: ActionSpec
    observation_spec: ObservationSpec
    attributes: dict[str, Any]
    """Free provenance of the whole file: recipe, seed, robot, `env_args`."""

    @property
    def lengths(self) -> list[int]:
        """Steps per episode, without decoding images."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Episode]: ...

    def read(self, index: int) -> Episode:
        """Episode `index`, counted from 0."""
        ...


class EpisodeWriter(Protocol):
    """What every writer is. As a context it finishes on a clean exit, and publishes nothing on an exception."""

    def __len__(self) -> int: ...

    def append(self, episode: Episode) -> None:
        """Check an episode and take it."""
        ...

    def finish(self) -> None:
        """Publish everything in one step."""
        ...

    def close(self) -> None:
        """Let go without publishing."""
        ...

    def __enter__(self) -> "EpisodeWriter": ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None: ...

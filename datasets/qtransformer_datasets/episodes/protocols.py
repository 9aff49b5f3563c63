"""What every reader and every writer is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from qtransformer.types import ActionSpec, Episode, ObservationSpec


@dataclass(frozen=True, slots=True)
class Opening:
    """How `formats.open_episodes` opened a reader; what may be cached of it is told apart by this."""

    format: str
    """Its name."""
    options: Mapping[str, Any]
    """Of the reader; and where a view changes pixels, what it does."""
    is_slow: bool
    """Whether reading decodes video: then even a small dataset is worth a cache."""


class PartReport(Protocol):
    """What a reader tells of one part of its dataset, such as a bag."""

    def text(self) -> str:
        """For a person to read."""
        ...


class LoggedEpisodes(Protocol):
    """What every reader is: an `EpisodeSource` that knows its file."""

    path: Path
    action_spec: ActionSpec
    observation_spec: ObservationSpec
    attributes: dict[str, Any]
    """Free provenance of the whole file: recipe, seed, robot, `env_args`."""
    opening: Opening | None
    """How it was opened; None where that was not by `open_episodes`."""

    @property
    def problems(self) -> Sequence[str]:
        """What is wrong with the dataset as a whole that reading its episodes does not raise, a sentence each."""
        ...

    @property
    def reports(self) -> Sequence[PartReport]:
        """One per part of the dataset; `data inspect` and `data validate` print them and the problems."""
        ...

    @property
    def lengths(self) -> list[int]:
        """Steps per episode, without decoding images."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Episode]: ...

    def read(self, index: int) -> Episode:
        """Episode `index`, counted from 0."""
        ...

    def where(self, index: int) -> str:
        """How messages name that episode: its file, and its name or number there."""
        ...

    def says_success(self, index: int) -> bool:
        """Whether the data themselves say how that episode went; else it is inferred from rewards, say, or said by an option."""
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

"""Which adapter reads and writes which format: one line per format here, one file per format beside it.

Adapters are imported when they are used, so that a format's libraries are needed by its users only.
"""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from qtransformer.errors import ConfigError, DatasetError
from qtransformer.suggest import nearest, suggest
from qtransformer.types import ActionSpec, ObservationSpec
from qtransformer_datasets.episodes.missing import refuse_missing
from qtransformer_datasets.episodes.protocols import EpisodeWriter, LoggedEpisodes, Opening
from qtransformer_datasets.episodes.readable import ReadableEpisodes
from qtransformer_datasets.rosbag.bag_names import is_bag
from qtransformer_datasets.stream.memory import machine_memory


@dataclass(frozen=True, slots=True)
class Format:
    """A way of keeping episodes on disk."""

    name: str
    reader: str
    """`module:Class` of this package, called with a path and options."""
    writer: str | None
    """`module:Class` called with a path, the two specs, attributes and options; None where the format is import-only."""
    extra: str
    """What to install for it: `pip install -e '.[extra]'`; empty if nothing."""
    recognises: Callable[[Path], bool]
    slow: bool = False
    """Whether reading decodes video: then even a small dataset is worth a cache."""
    losses: str | None = None
    """`module:function` called with the two specs and the writer's options: what the writer cannot keep, as a mapping from
    a part (a field of `Episode`, or `action_spec`, `observation_spec`, `attributes`) to a sentence. None: it keeps everything."""
    report: str | None = None
    """`module:function` called with a path: `reports` as of a reader, of whatever lies there, without any options."""

    def load(self, target: str) -> Callable[..., Any]:
        """The reader's or the writer's class."""
        module, name = target.split(":")
        try:
            return getattr(import_module(f"qtransformer_datasets.{module}"), name)
        except ImportError as error:
            raise DatasetError(
                f"reading or writing {self.name} needs more packages ({error}); pip install -e '.[{self.extra}]' in the checkout"
            ) from error


def _is_hdf5(path: Path) -> bool:
    return path.suffix in (".hdf5", ".h5") or (path.is_file() and _first_bytes(path, 8) == b"\x89HDF\r\n\x1a\n")


def _first_bytes(path: Path, count: int) -> bytes:
    with path.open("rb") as file:  # not read_bytes: a film or a bag may be larger than memory
        return file.read(count)


def _is_minari(path: Path) -> bool:
    """By name; a main_data.hdf5 under another name needs format="minari"."""
    return any(
        place.name == "main_data.hdf5" and place.is_file()
        for place in (path, path / "main_data.hdf5", path / "data/main_data.hdf5")
    )


def _is_lerobot(path: Path) -> bool:
    return (path / "meta" / "info.json").is_file()


def _is_rosbag(path: Path) -> bool:
    """A bag, its storage file, or a folder of bags, finished or not."""
    return any(map(is_bag, [path, *path.iterdir()] if path.is_dir() else [path]))


FORMATS: tuple[Format, ...] = (
    Format("minari", "minari_reader:MinariEpisodes", None, "", _is_minari),
    Format("robomimic", "robomimic.reader:HDF5Episodes", "robomimic.writer:HDF5Writer", "", _is_hdf5),
    Format(
        "lerobot",
        "lerobot.reader:LeRobotEpisodes",
        "lerobot.writer:LeRobotWriter",
        "lerobot",
        _is_lerobot,
        slow=True,
        losses="lerobot.writer:losses",
    ),
    Format("rosbag", "rosbag.reader:BagEpisodes", None, "rosbag", _is_rosbag, report="rosbag.report:report_path"),
)
"""In the order in which they are asked whether a path is theirs."""
FILE_OPTIONS = ("contract",)
"""Options of readers that name a file. Another may be a file's name by chance, as a mask is: `filter_key=train`."""


MAX_LISTED = 6
"""Datasets of a folder that are named before the rest is only counted."""


def format_of(path: str | os.PathLike[str], name: str = "auto", *, writing: bool = False) -> Format:
    """The format of a path by its name, or by what lies there. For `writing`, import-only ones are not offered."""
    path = Path(path)
    if name != "auto":
        return _named(name, [f.name for f in FORMATS if f.writer or not writing])
    for candidate in FORMATS:
        if candidate.recognises(path):
            return candidate
    if not path.exists():
        refuse_missing(path)
    held = [entry for entry in sorted(path.iterdir()) if any(f.recognises(entry) for f in FORMATS)] if path.is_dir() else []
    if held:
        more = f" and {len(held) - MAX_LISTED} more" if len(held) > MAX_LISTED else ""
        names = ", ".join(entry.name for entry in held[:MAX_LISTED])
        several = f", or in a training a list: dataset=[{held[0]},{held[1]}]" if len(held) > 1 else ""
        raise DatasetError(
            f"{path}: expected a dataset, found a folder that holds {names}{more}; name one, such as {held[0]}{several}"
        )
    raise DatasetError(f"{path}: expected one of {', '.join(f.name for f in FORMATS)}, found none of them; name it by format=...")


def _named(name: str, offered: Sequence[str]) -> Format:
    for candidate in FORMATS:
        if candidate.name == name:
            return candidate
    near = nearest(name, offered)
    hint = f"; did you mean {near}?" if near else ""
    raise ConfigError(f"format expected one of auto, {', '.join(offered)}, found {name!r}{hint}")


def open_episodes(
    path: str | os.PathLike[str],
    format: str = "auto",
    on_bad_episode: Literal["stop", "skip"] = "stop",
    **options: Any,
) -> LoggedEpisodes:
    """A reader for whatever lies at `path`. It remembers how it was opened: `LoggedEpisodes.opening`.

    Args:
        path: file or directory.
        format: name in `FORMATS`, or "auto".
        on_bad_episode: "stop" raises a DatasetError when an episode is read that is damaged or wrong; "skip" reads every episode
            once at the start, and leaves those out with a warning that counts them. A reader whose dataset may be many files, each
            of which may be bad as a whole, takes it as an option of its own.
        options: of that format's reader; one it does not have is refused by name.
    """
    if on_bad_episode not in ("stop", "skip"):
        raise ConfigError(f"on_bad_episode expected 'stop' or 'skip', found {on_bad_episode!r}")
    kind = format_of(path, format)
    known, asked = reader_options(kind), {"on_bad_episode": on_bad_episode}
    refuse_unknown(options, known, f"{path}: {kind.name}")
    of_reader = {name: value for name, value in asked.items() if name in known}
    source: LoggedEpisodes = kind.load(kind.reader)(path, **options, **of_reader)
    if on_bad_episode == "skip":
        source = ReadableEpisodes(source, keep_bytes=machine_memory() // 16)
    source.opening = Opening(kind.name, {**asked, **options}, kind.slow)
    return source


def reader_options(kind: Format) -> list[str]:
    """Names of the options of a format's reader."""
    return [name for name in inspect.signature(kind.load(kind.reader)).parameters if name != "path"]


def opening_options() -> list[str]:
    """Names of the options of `open_episodes` itself, which every format has."""
    return [name for name in inspect.signature(open_episodes).parameters if name not in ("path", "format", "options")]


def create_writer(
    path: str | os.PathLike[str],
    action_spec: ActionSpec,
    observation_spec: ObservationSpec,
    attributes: Mapping[str, Any] | None = None,
    format: str = "auto",
    resume: bool = False,
    **options: Any,
) -> EpisodeWriter:
    """A writer of the named format, or of the one the path's name belongs to (`.hdf5`: robomimic).

    With `resume`, one that goes on after what a killed run of the same specs and attributes left, where the format can.
    """
    _, writer = _checked_writer(path, format, options)
    create = getattr(writer, "open_or_resume", writer) if resume else writer
    return create(path, action_spec, observation_spec, attributes, **options)


def writer_losses(
    path: str | os.PathLike[str],
    action_spec: ActionSpec,
    observation_spec: ObservationSpec,
    format: str = "auto",
    **options: Any,
) -> dict[str, str]:
    """What would be lost by writing there, part by part; see `Format.losses`. What cannot be written is refused already here."""
    kind, _ = _checked_writer(path, format, options)
    return dict(kind.load(kind.losses)(action_spec, observation_spec, **options)) if kind.losses else {}


def check_writing(path: str | os.PathLike[str], format: str, options: Mapping[str, Any]) -> None:
    """Raise where a format cannot be written, or its writer lacks an option: before anything is said to be written."""
    _checked_writer(path, format, options)


def _checked_writer(
    path: str | os.PathLike[str], format: str, options: Mapping[str, Any]
) -> tuple[Format, Callable[..., EpisodeWriter]]:
    """The format and its writer, for options that it has. They are named as the command line has them: `out.images`."""
    kind = format_of(path, format, writing=True)
    if kind.writer is None:
        writable = ", ".join(f.name for f in FORMATS if f.writer)
        raise DatasetError(f"{path}: {kind.name} can be read but not written; choose one of {writable}")
    writer = kind.load(kind.writer)
    own = ("path", "action_spec", "observation_spec", "attributes")
    known = [f"out.{name}" for name in inspect.signature(writer).parameters if name not in own]
    refuse_unknown([f"out.{name}" for name in options], known, f"{path}: {kind.name}")
    return kind, writer


def refuse_unknown(options: Iterable[str], known: Sequence[str], where: str, also: Sequence[str] = ()) -> None:
    """Raise ConfigError at an option that is not `known`. The answer takes those into account that `also` exist elsewhere."""
    for name in options:
        if name not in known:
            raise ConfigError(f"{where} has no option '{name}'; {suggest(name, list(dict.fromkeys([*known, *also])))}")

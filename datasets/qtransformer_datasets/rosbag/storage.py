"""A bag's raw messages, MCAP or sqlite3, through `rosbags`; no message definition found in a file is ever compiled.

What a compressed part declares is checked before it is unpacked, and a bag's list of files cannot lead out of its folder.
What a broken bag still holds is read by `salvage`, on demand only.
"""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from qtransformer.errors import ConfigError, DatasetError, QTransformerError
from qtransformer_datasets.rosbag.bag_names import METADATA, SUFFIXES, is_bag
from qtransformer_datasets.rosbag.message_types import BY_ROS_NAME
from qtransformer_datasets.rosbag.salvage import check_mcap, salvage_mcap, salvage_sqlite, unpack_zstd
from qtransformer_datasets.rosbag.strict_yaml import read_yaml

MAX_MESSAGE_BYTES = 1 << 28
"""What a compressed message may unpack to."""
LATEST_NS = 4 * 10**18
"""Times beyond the year 2096 are damage."""


class RawMessage(NamedTuple):
    topic: str
    receive_ns: int
    """When the recorder received it."""
    data: bytes
    """CDR."""


@dataclass(frozen=True, slots=True)
class Bag:
    """One bag, not held open: every reading opens its files anew."""

    path: Path
    files: tuple[Path, ...]
    types: dict[str, str]
    """Topic to ROS type."""
    declared: dict[str, int]
    """Messages per topic according to metadata.yaml, where there is one."""
    custom_data: dict[str, str]
    is_packed: bool
    """Whether every message is compressed with zstd."""
    is_salvage: bool = False
    """Whether the files are read by `salvage`."""
    damage: tuple[str, ...] = ()
    """What could not be read."""

    def messages(self, topics: Collection[str], start: int | None = None, stop: int | None = None) -> Iterator[RawMessage]:
        """Messages of some topics received in [start, stop) ns, file by file."""
        wanted = {topic for topic in topics if topic in self.types}
        for file in self.files if wanted else ():
            with bag_errors(str(self.path)):
                for message in self._of_file(file, wanted, start, stop):
                    if not 0 <= message.receive_ns < LATEST_NS:
                        raise DatasetError(f"{self.path}: {message.topic} was received in the year 2096 or later: damaged")
                    yield message._replace(data=unpack_zstd(message.data, MAX_MESSAGE_BYTES)) if self.is_packed else message

    def _of_file(self, file: Path, topics: set[str], start: int | None, stop: int | None) -> Iterator[RawMessage]:
        if self.is_salvage:
            for topic, _, receive_ns, data in _salvage(file, []):
                if topic in topics and (start is None or start <= receive_ns) and (stop is None or receive_ns < stop):
                    yield RawMessage(topic, receive_ns, data)
            return
        with Reader(file) as reader:
            connections = [c for c in reader.connections if c.topic in topics]
            if connections:  # none would mean all
                for connection, receive_ns, data in reader.messages(connections, start, stop):
                    yield RawMessage(connection.topic, receive_ns, data)


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """The message types of a ROS release: those we read are the same in all."""
    return get_typestore(Stores.ROS2_JAZZY)


@contextmanager
def bag_errors(where: str) -> Iterator[None]:
    """Turn whatever `rosbags` raises into a DatasetError that starts with `where`."""
    try:
        yield
    except DatasetError as error:
        raise error if str(error).startswith(where) else DatasetError(f"{where}: {error}") from error
    except QTransformerError:
        raise
    except PermissionError as error:
        raise DatasetError(f"{where}: cannot be opened ({error}); fix its permissions") from error
    except Exception as error:  # damaged bytes surface as nearly any type: ReaderError, apsw.Error, struct.error, TypeError, ...
        what = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(f"{where}: damaged bag ({what}); copy it again, or read what is left with partial=True") from error


def find_bags(path: Path) -> list[Path]:
    """The bags at a path: itself, or those in a folder of bags, in natural order."""
    if not path.exists():
        raise DatasetError(f"{path}: expected a bag or a folder of bags, found nothing; check the path")
    if is_bag(path):
        return [path]
    inside = [child for child in path.iterdir() if is_bag(child)] if path.is_dir() else []
    if not inside:
        raise DatasetError(f"{path}: expected a bag ({METADATA}, *.mcap, *.db3) or a folder of bags, found none; check the path")
    return sorted((_inside(child, path) for child in inside), key=_natural)


def open_bag(path: Path, partial: bool = False) -> Bag:
    """Look at a bag's topics. Raises DatasetError for one that is not whole, unless `partial`."""
    bag = Bag(path, (path,), {}, {}, {}, False)
    if path.is_dir():
        bag = _folder_bag(path, partial)
    try:
        with bag_errors(str(path)):
            return replace(bag, types=_types(bag.files))
    except DatasetError as error:
        if not partial:
            raise
        return salvaged(bag, str(error))


def salvaged(bag: Bag, reason: str) -> Bag:
    """The same bag, read for whatever is left of it."""
    types, damage = dict[str, str](), [reason]
    for file in bag.files:
        with bag_errors(str(bag.path)):
            types |= {topic: kind for topic, kind, _, _ in _salvage(file, damage)}
    return replace(bag, types=types, is_salvage=True, damage=(*bag.damage, *damage))


def _salvage(file: Path, damage: list[str]) -> Iterator[tuple[str, str, int, bytes]]:
    return (salvage_mcap if file.suffix == ".mcap" else salvage_sqlite)(file, damage)


def _folder_bag(path: Path, partial: bool) -> Bag:
    try:
        information = _metadata(path)
        files = [_inside(path / str(name).rpartition("/")[2], path) for name in information["relative_file_paths"]]
        mode = str(information.get("compression_mode") or "none").lower()
        if mode == "file":
            raise DatasetError(f"{path}: its files are compressed as a whole; unpack them (zstd -d FILE) and name those instead")
        topics = information["topics_with_message_count"]
        declared = {str(topic["topic_metadata"]["name"]): int(topic["message_count"]) for topic in topics}
        custom = {str(key): str(value) for key, value in (information.get("custom_data") or {}).items()}
        return Bag(path, tuple(files), {}, declared, custom, is_packed=mode == "message")
    except DatasetError as error:
        return _without_metadata(path, partial, error)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        damaged = DatasetError(f"{path}: {METADATA} cannot be read ({error!r}); rebuild it (ros2 bag reindex), or use partial=True")
        return _without_metadata(path, partial, damaged)


def _without_metadata(path: Path, partial: bool, error: DatasetError) -> Bag:
    files = sorted((_inside(child, path) for child in path.iterdir() if child.suffix in SUFFIXES), key=_natural)
    if not partial or not files:
        raise error
    return Bag(path, tuple(files), {}, {}, {}, False, damage=(str(error),))


def _metadata(path: Path) -> dict[str, Any]:
    if not (path / METADATA).exists():
        raise DatasetError(f"{path}: has no {METADATA}; rebuild it (ros2 bag reindex), or read the rest with partial=True")
    try:
        return read_yaml(_inside(path / METADATA, path))["rosbag2_bagfile_information"]
    except ConfigError as error:
        raise DatasetError(f"{error}; rebuild it (ros2 bag reindex), or use partial=True") from error


def _types(files: tuple[Path, ...]) -> dict[str, str]:
    """Topic to ROS type. Checks what can be checked without reading the messages."""
    types = dict[str, str]()
    for file in files:
        wal = file.with_name(file.name + "-wal")
        if wal.exists() and wal.stat().st_size:
            raise DatasetError(f"{wal.name} holds messages that a killed recorder never merged; open the bag once in sqlite3")
        if file.suffix == ".mcap":
            check_mcap(file)
        elif any(letter in str(file.absolute()) for letter in "%?#"):  # rosbags opens it by a URI, where these lead elsewhere
            raise DatasetError("the path of a sqlite3 bag must not contain %, ? or #; rename it")
        with Reader(file) as reader:
            for connection in reader.connections:
                _check_definition(connection.topic, connection.msgtype, connection.digest)
                kind = types.setdefault(connection.topic, connection.msgtype)
                if kind != connection.msgtype:
                    raise DatasetError(f"{connection.topic} has messages of two types, {kind} and {connection.msgtype}")
    return types


def _check_definition(topic: str, ros_type: str, digest: str) -> None:
    if not isinstance(topic, str) or not isinstance(ros_type, str):  # sqlite3 keeps whatever is put into a column
        raise DatasetError(f"its table of topics is damaged: expected a name and a type, found {topic!r} and {ros_type!r}")
    if digest and ros_type in BY_ROS_NAME and digest != typestore().hash_rihs01(ros_type):
        raise DatasetError(f"{topic} was recorded with a {ros_type} that is not the standard one; convert it before recording")


def _inside(child: Path, root: Path) -> Path:
    """The child itself, if following it does not lead out of the root."""
    if not child.resolve().is_relative_to(root.resolve()):
        raise DatasetError(f"{root}: {child.name} points outside the folder; copy it here instead of linking")
    return child


def _natural(path: Path) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", path.name)]

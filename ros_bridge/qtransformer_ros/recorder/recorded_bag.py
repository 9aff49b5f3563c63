"""A bag that is being recorded: an MCAP file in a folder that gets its name only when it is complete.

Until then the folder is called `<name>.partial`: what a killed recorder leaves is refused by readers, or salvaged with
`partial=True`. At most `flush`'s interval of messages is lost with it.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets.rosbag.bag_names import PARTIAL
from qtransformer_datasets.rosbag.index import BagIndex, IndexBuilder, message_time
from qtransformer_datasets.rosbag.storage import Bag, RawMessage
from qtransformer_datasets.rosbag.topic_contract import TopicContract


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicInfo:
    """What a bag says about a topic."""

    type: str
    """As in `sensor_msgs/msg/Image`."""
    type_hash: str = ""
    """RIHS01 of the publisher's type; by default that of the distribution."""
    qos: tuple[Qos, ...] = ()
    """What the publishers offer."""


def distribution_types(name: str) -> Typestore:
    """The message types of a ROS distribution, as `kilted`; those of Jazzy where it is not known by name."""
    return get_typestore(getattr(Stores, f"ROS2_{name.upper()}", Stores.ROS2_JAZZY))


class RecordedBag:
    """Raises DatasetError wherever the disk refuses."""

    def __init__(self, path: Path, contract: TopicContract, types: Typestore) -> None:
        self.path, self.partial = path, path.with_name(path.name + PARTIAL)
        self.contract, self.types = contract, types
        self.problems: list[str] = []
        """What was wrong with single messages."""
        self.counts: dict[str, int] = {}
        self._connections: dict[str, Connection] = {}
        self._bag = Bag(path, (), {}, {}, {}, is_packed=False)
        self._index = IndexBuilder(self._bag, contract)
        with disk_errors(self.partial):
            self._writer = Writer(self.partial, version=9, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
            self._storage.path = self._storage.path.rename(self.partial / f"{path.name}.mcap")

    @property
    def _storage(self) -> Any:
        return self._writer.storage

    def write(self, info: TopicInfo, message: RawMessage) -> None:
        """Append a message."""
        topic = message.topic
        if topic not in self._connections and not self._connect(topic, info):
            return
        with disk_errors(self.partial):
            self._writer.write(self._connections[topic], message.receive_ns, message.data)
        self.counts[topic] = self.counts.get(topic, 0) + 1
        if topic in self._index.wanted:
            try:
                self._index.add(message, message_time(self._bag, message, self.contract.clock))
            except DatasetError as error:
                self._complain(str(error).removeprefix(f"{self.path}: "))

    def index(self) -> BagIndex:
        """What a reader will find."""
        self._bag.types.update(dict.fromkeys(self._index.wanted - self._bag.types.keys(), ""))
        return self._index.build()

    def flush(self) -> None:
        """Give to the system what has been written so far: it outlives this process."""
        with disk_errors(self.partial):
            if self._storage.chunk.msgs:
                self._storage.close_chunk()
            self._storage.bio.flush()

    def publish(self, custom_data: Mapping[str, str]) -> Path:
        """Finish the bag and give it its name."""
        for key, value in custom_data.items():
            self._writer.set_custom_data(key, value)
        with disk_errors(self.partial):
            self._writer.close()
            self.partial.rename(self.path)
        return self.path

    def discard(self) -> None:
        """Delete what there is."""
        self.abandon()
        shutil.rmtree(self.partial, ignore_errors=True)

    def abandon(self) -> None:
        """Leave what there is unfinished."""
        with suppress(OSError):
            self._writer.abort()

    def _connect(self, topic: str, info: TopicInfo) -> bool:
        if info.type not in self.types.types:
            self._complain(f"{topic}: {info.type} is no standard message type: it is not recorded")
            return False
        definition, _ = self.types.generate_msgdef(info.type, ros_version=2)
        self._connections[topic] = self._writer.add_connection(
            topic,
            info.type,
            msgdef=definition,
            rihs01=info.type_hash or self.types.hash_rihs01(info.type),
            offered_qos_profiles=info.qos,
        )
        self._bag.types[topic] = info.type
        return True

    def _complain(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """One sentence for a full disk, missing rights, and the like."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise DatasetError(f"{path}: cannot be written ({why}); free space, or choose another folder") from error


def check_folder(folder: Path) -> None:
    """Make the folder, and see that files can be written there. Raises ConfigError."""
    probe = folder / f".write_test_{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{folder}: bags cannot be written there ({error.strerror}); choose another folder") from error


def next_name(folder: Path) -> str:
    """`episode_0007` after the highest number there is, of finished and unfinished bags alike."""
    numbers = [int(n) for child in folder.glob("episode_*") if (n := child.name.removeprefix("episode_").split(".")[0]).isdigit()]
    return f"episode_{max(numbers, default=0) + 1:04d}"


def offered(reliable: Sequence[bool], latched: Sequence[bool]) -> tuple[bool, bool]:
    """(reliable, latched) of a subscription that hears all publishers: as much as every one of them offers."""
    return bool(reliable) and all(reliable), bool(latched) and all(latched)

"""The payload of one episode: of all messages only those that a tick uses are deserialised, each once, in one pass."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtransformer.errors import DatasetError
from qtransformer.types import ObservationSpec
from qtransformer_datasets.rosbag.arrivals import TopicPart
from qtransformer_datasets.rosbag.contract_entries import ActionTopic, CameraTopic, NextStateMode, VectorTopic
from qtransformer_datasets.rosbag.index import BagIndex, deserialize, timed_messages
from qtransformer_datasets.rosbag.pieces import Piece
from qtransformer_datasets.rosbag.ros_messages import encode_image, encode_vector
from qtransformer_datasets.rosbag.shared_joints import told_by
from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS
from qtransformer_datasets.rosbag.topic_contract import TopicContract

_Place = Callable[[Any, int, Sequence[int]], None]
"""Takes a message, its time [ns] and the rows it fills."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """An episode in the units of its robot."""

    images: dict[str, np.ndarray]
    """Camera name to uint8 (T + 1, h, w, 3)."""
    proprio: np.ndarray
    """float64 (T + 1, p)."""
    actions: np.ndarray
    """float64 (T, n)."""


def decode(index: BagIndex, piece: Piece, contract: TopicContract, spec: ObservationSpec | None) -> Decoded:
    """Read a piece; without a spec, all but its images."""
    ticks, readings = piece.ticks.times, _Readings(index, contract)
    samples = iter(piece.ticks.samples)
    images = dict[str, np.ndarray]()
    for (name, camera), (_, part) in zip(contract.cameras.items(), index.readings(contract.cameras.values()), strict=True):
        positions = next(samples)
        if spec is not None:
            images[name] = _allocate(len(positions), spec.cameras[name], index)
            readings.add(part, positions, _image_place(camera, name, images[name]))
    proprio = [readings.add_vector(source, samples, ticks) for source in contract.proprio]
    commands = [readings.add_vector(source, samples, ticks[1:]) for source in contract.commanded]
    readings.run()
    state = np.concatenate([np.zeros((len(ticks), 0)), *proprio], axis=1)
    return Decoded(images, state, _actions(contract, state, commands))


class _Readings:
    """What is to be done with which message of a bag."""

    def __init__(self, index: BagIndex, contract: TopicContract) -> None:
        self.index, self.clock = index, contract.clock
        self.todo: dict[str, dict[int, list[tuple[_Place, list[int]]]]] = {}

    def add(self, part: TopicPart, positions: np.ndarray, place: _Place) -> None:
        """Have `place` called with the message at each position, once, and with all rows it fills."""
        rows: dict[int, list[int]] = {}
        for row, position in enumerate(part.places[positions].tolist()):
            rows.setdefault(position, []).append(row)
        for position, own in rows.items():
            self.todo.setdefault(part.topic, {}).setdefault(position, []).append((place, own))

    def add_vector(self, source: VectorTopic, samples: Iterator[np.ndarray], ticks: np.ndarray) -> np.ndarray:
        """An array (len(ticks), n) float64 that `run` will fill; of trajectories the point due at each tick.

        Takes as many of `samples` as there are parts of its topic that it reads.
        """
        found = np.zeros((len(ticks), len(source)))
        for _, part in self.index.readings([source]):
            self.add(part, next(samples), _vector_place(source, part, ticks, found))
        return found

    def run(self) -> None:
        """One pass over the stretch of the bag that holds them all."""
        receive = {topic: self.index.topics[topic].receive for topic in self.todo}
        used = [receive[topic][list(own)] for topic, own in self.todo.items()]
        start, stop = min(int(times.min()) for times in used), max(int(times.max()) for times in used) + 1
        if all((np.diff(times) >= 0).all() for times in receive.values()):
            position = {topic: int(np.searchsorted(times, start)) for topic, times in receive.items()}
        else:  # positions count in the order of recording: read from the beginning
            position, start, stop = dict.fromkeys(receive, 0), None, None
        left = sum(map(len, self.todo.values()))
        for message, time in timed_messages(self.index.bag, receive, self.clock, start, stop):
            topic = message.topic
            work = self.todo[topic].get(position[topic])
            if work is not None:
                self._do(work, message, time, position[topic])
                left -= 1
            position[topic] += 1
        if left:
            raise DatasetError(f"{self.index.bag.path}: has fewer messages than when it was opened; let its recorder finish first")

    def _do(self, work: list[tuple[_Place, list[int]]], message: Any, time: int, position: int) -> None:
        bag, topic = self.index.bag, message.topic
        if time != self.index.topics[topic].times[position]:
            raise DatasetError(f"{bag.path}: {topic} changed while it was read; let its recorder finish first")
        content = deserialize(bag, message)
        try:
            for place, rows in work:
                place(content, time, rows)
        except DatasetError as error:
            raise DatasetError(f"{bag.path}: {topic} at {time / NANOSECONDS:.3f} s: {error}") from error


def _vector_place(source: VectorTopic, part: TopicPart, ticks: np.ndarray, numbers: np.ndarray) -> _Place:
    own, columns = told_by(source, part.joints)

    def place(message: Any, time: int, rows: Sequence[int]) -> None:
        for row in rows:
            numbers[row, columns] = encode_vector(own, message, int(ticks[row]) - time)

    return place


def _image_place(camera: CameraTopic, name: str, images: np.ndarray) -> _Place:
    def place(message: Any, time: int, rows: Sequence[int]) -> None:
        image = encode_image(camera, message)
        if image.shape != images.shape[1:]:
            raise DatasetError(
                f"camera '{name}' expected {images.shape[1:]}, found {image.shape}; give its `size` in the contract to resize all"
            )
        images[rows] = image

    return place


def _actions(contract: TopicContract, state: np.ndarray, commands: list[np.ndarray]) -> np.ndarray:
    columns, remaining = list[np.ndarray](), iter(commands)
    for entry in contract.action:
        if isinstance(entry, ActionTopic):
            column = next(remaining)
            columns.append(column / contract.control_hz if entry.per_step else column)
            continue
        chosen = state[:, [contract.proprio_names.index(name) for name in entry.of]]
        columns.append(np.diff(chosen, axis=0) if entry.next_state is NextStateMode.difference else chosen[1:])
    return np.concatenate(columns, axis=1)


def _allocate(count: int, shape: tuple[int, ...], index: BagIndex) -> np.ndarray:
    try:
        return np.empty((count, *shape), np.uint8)
    except (MemoryError, ValueError) as error:
        raise DatasetError(f"{index.bag.path}: {count} images of {shape} do not fit into memory; give a smaller `size`") from error

"""From ROS messages to arrays: the same functions for bags and for a live robot, so that training sees what the robot sees.

Messages are looked at by their fields only: those of rclpy do as well as those of `rosbags`. Whatever a message cannot be
turned into is refused by a DatasetError that names the reason; nothing is guessed or filled with zeros.
"""

import hashlib
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import cv2
import numpy as np

from qtransformer.errors import DatasetError
from qtransformer.types import Observation
from qtransformer_datasets.episodes.image_header import PNG, declared_size
from qtransformer_datasets.rosbag.contract_entries import CameraTopic, JointField, VectorTopic
from qtransformer_datasets.rosbag.message_types import ARRAY_TYPES, FIXED_TYPES, JOINT_TYPES, SHARED_TYPES
from qtransformer_datasets.rosbag.shared_joints import listed, told_by, topic_of
from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS
from qtransformer_datasets.rosbag.topic_contract import TopicContract

DIGEST_KEY = "observation_sha256"
"""Beside its topics, what a policy's report of the samples it consumed calls the digest of what they became."""
MAX_PIXELS = 1 << 26
"""Pixels a compressed image may declare: decoding allocates them all."""
_RGB, _BGR = slice(0, 3), slice(2, None, -1)
_CHANNELS = {"rgb8": _RGB, "bgr8": _BGR, "rgba8": _RGB, "bgra8": _BGR, "mono8": [0, 0, 0]}
_DEPTH = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}


def encode_observation(contract: TopicContract, latest: Mapping[str, Any], instruction: str = "") -> Observation:
    """What a policy is given: from the latest message of each topic, by topic name; of topics that publishers share, of each of
    their parts (`shared_joints`)."""
    return {
        "images": {name: encode_image(camera, latest[camera.topic]) for name, camera in contract.cameras.items()},
        "proprio": encode_proprio([_encode_latest(source, latest) for source in contract.proprio]),
        "instruction": instruction,
    }


def observation_digest(observation: Observation) -> str:
    """SHA-256 of an observation's images, by camera name, and proprioception: two that agree are equal to the last bit."""
    digest = hashlib.sha256()
    for name in sorted(observation["images"]):
        image = np.ascontiguousarray(observation["images"][name])
        digest.update(f"{name} {image.shape} ".encode())
        digest.update(image.tobytes())
    digest.update(np.asarray(observation["proprio"], np.float32).tobytes())
    return digest.hexdigest()


def encode_proprio(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The contract's sources side by side, float32 (p,)."""
    return np.concatenate([np.zeros(0), *parts]).astype(np.float32)


def encode_image(camera: CameraTopic, message: Any) -> np.ndarray:
    """sensor_msgs/Image or CompressedImage to uint8 (h, w, 3), RGB, resized where the contract says a size."""
    compressed = camera.type == "CompressedImage"
    pixels, encoding = _decode(message) if compressed else _raw_pixels(message, camera.encoding or message.encoding)
    if camera.size is not None:
        pixels = resize(pixels, camera.size)
    # Channels last of all, where they cost least: resizing does not mix them. A copy, free of the message's bytes.
    return np.array(pixels[..., _CHANNELS[encoding]], order="C")


def sent_form(camera: CameraTopic, message: Any) -> str:
    """Height, width, and whether it has colours, of an image as it was sent: what never changes while a camera runs as it should.
    Refuses what can be seen to be wrong without decoding it: cheap enough for every frame of a camera, of which few are used."""
    if camera.type == "CompressedImage":
        height, width = _declared_size(np.frombuffer(message.data, np.uint8).data)
        is_grey = "mono" in str(message.format)
    else:
        pixels, encoding = _raw_pixels(message, camera.encoding or message.encoding)
        (height, width), is_grey = pixels.shape[:2], encoding == "mono8"
    return f"{height} x {width} {'grey' if is_grey else 'colour'}"


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Area interpolation of uint8 (h, w, c) to `size` = (height, width); an image of that size is returned as it is."""
    if image.shape[:2] == size:
        return image
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA).reshape(*size, -1)


def encode_vector(source: VectorTopic, message: Any, after_ns: int = 0) -> np.ndarray:
    """The contract's numbers of a message, float64 (n,), in the contract's order.

    Of a trajectory the point due `after_ns` nanoseconds after its stamp: the first not earlier, else the last.
    """
    if source.type == "JointTrajectory":
        return _trajectory_point(source, message, after_ns)
    if source.type in JOINT_TYPES:
        return _by_joint(source.joints, message.name, getattr(message, source.field.value), source.field.value)
    if source.type in FIXED_TYPES:
        values = FIXED_TYPES[source.type].values
        return np.array([attrgetter(values[name][0])(message) for name in source.chosen], np.float64)
    if source.type in ARRAY_TYPES:
        if len(message.data) != len(source):
            raise DatasetError(
                f"{source.type} expected {len(source)} elements ({', '.join(source.chosen)}), found {len(message.data)}; "
                "name every element in the contract's `values`"
            )
        return np.array(message.data, np.float64)
    return np.array([message.data], np.float64)


def word_of(message: Any) -> str:
    """std_msgs/String or Bool as text: Bool is `true` or `false`."""
    return str(message.data).lower() if isinstance(message.data, bool | np.bool_) else str(message.data)


def stamp_ns(stamp: Any) -> int:
    """builtin_interfaces/Time or Duration to nanoseconds."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def _encode_latest(source: VectorTopic, latest: Mapping[str, Any]) -> np.ndarray:
    """float64 (n,); every joint of a topic that publishers share from the message that names it."""
    if source.type not in SHARED_TYPES:
        return encode_vector(source, latest[source.topic])
    found, missing = np.zeros(len(source)), set(source.joints)
    for part, message in latest.items():
        if topic_of(part) != source.topic or missing.isdisjoint(message.name):
            continue
        own, columns = told_by(source, message.name)
        found[columns] = encode_vector(own, message)
        missing -= set(own.joints)
    if missing:
        raise DatasetError(f"{source.topic} expected the joints {listed(source.joints)}, found nobody that tells {listed(missing)}")
    return found


def _raw_pixels(message: Any, encoding: str) -> tuple[np.ndarray, str]:
    """A view of the message's bytes, (h, w, c); rows may be padded to `step`."""
    if encoding not in _DEPTH:
        raise DatasetError(
            f"image encoding {encoding[:40]!r} is not an 8-bit colour image; expected one of {', '.join(_DEPTH)}: "
            "convert it before logging, or overrule a wrong label by the contract's `encoding`"
        )
    height, width, step, depth = int(message.height), int(message.width), int(message.step), _DEPTH[encoding]
    data = np.frombuffer(message.data, np.uint8)
    if not (height > 0 and width > 0 and step >= width * depth and data.size >= step * height):
        raise DatasetError(
            f"image of {height} x {width} {encoding} with step {step} expected {step * height} bytes, found {data.size}; "
            "the message is damaged or mislabelled"
        )
    rows = data[: step * height].reshape(height, step)[:, : width * depth]
    return rows.reshape(height, width, depth), encoding


def _decode(message: Any) -> tuple[np.ndarray, str]:
    """A JPEG or PNG, of which only 8-bit images are taken."""
    label = str(message.format)
    if "compressedDepth" in label or "16UC1" in label or "32FC1" in label:
        raise DatasetError(f"compressed image format {label[:60]!r} is a depth image; only colour and grey of 8 bits are read")
    data = np.frombuffer(message.data, np.uint8)
    height, width = _declared_size(data.data)
    if not 0 < height * width <= MAX_PIXELS:
        raise DatasetError(f"compressed image declares {height} x {width} pixels, more than {MAX_PIXELS}; do not trust the file")
    # Orientation tags are not applied: the camera's geometry must not depend on one frame's metadata.
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise DatasetError(f"compressed image cannot be decoded ({error.err}); the message is damaged") from error
    if pixels is None or pixels.shape[:2] != (height, width):
        raise DatasetError("compressed image cannot be decoded; the message is damaged")
    return pixels, "bgr8"


def _declared_size(data: memoryview) -> tuple[int, int]:
    """(height, width) of an image of 8 bits, by its header alone."""
    try:
        size = declared_size(data)
    except ValueError as error:
        raise DatasetError(
            f"compressed image expected JPEG or PNG, found {error}; the message is damaged, or must be converted before logging"
        ) from error
    if bytes(data[: len(PNG)]) == PNG and data[24] > 8:
        raise DatasetError(f"compressed image is a PNG of {data[24]} bits; only colour and grey of 8 bits are read")
    return size


def _trajectory_point(source: VectorTopic, message: Any, after_ns: int) -> np.ndarray:
    points = message.points
    if not len(points):
        raise DatasetError("JointTrajectory has no points; a stop command cannot serve as an action: end the episode before it")
    due = next((p for p in points if stamp_ns(p.time_from_start) >= after_ns), points[-1])
    numbers = {
        JointField.position: due.positions,
        JointField.velocity: due.velocities,
        JointField.effort: due.effort,
    }[source.field]
    return _by_joint(source.joints, message.joint_names, numbers, source.field.value)


def _by_joint(joints: Sequence[str], names: Sequence[str], numbers: Sequence[float], field: str) -> np.ndarray:
    """The numbers of `joints`, wherever they stand in this message."""
    if len(numbers) != len(names):
        raise DatasetError(f"message has {len(names)} joints but {len(numbers)} numbers of {field}; choose another `field`")
    place = {name: i for i, name in enumerate(names)}
    missing = [joint for joint in joints if joint not in place]
    if missing:
        raise DatasetError(
            f"joints {', '.join(missing)} are not in the message, which has {', '.join(names)}; correct the contract"
        )
    if len(place) != len(names):
        raise DatasetError(f"message names a joint twice: {', '.join(names)}; repair what publishes it")
    return np.array([numbers[place[joint]] for joint in joints], np.float64)

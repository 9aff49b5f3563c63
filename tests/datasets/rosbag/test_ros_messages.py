"""Messages, looked at by their fields alone, become arrays; what cannot is refused by name."""

import struct
from array import array
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtransformer.errors import DatasetError
from qtransformer_datasets.rosbag.contract_entries import CameraTopic, JointField, VectorTopic
from qtransformer_datasets.rosbag.ros_messages import encode_image, encode_observation, encode_vector, resize, stamp_ns, word_of
from qtransformer_datasets.rosbag.strict_yaml import parse
from qtransformer_datasets.rosbag.topic_contract import TopicContract

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
RGB = CameraTopic(topic="/c")
JPEG = CameraTopic(topic="/c", type="CompressedImage")


def raw(pixels: np.ndarray, encoding: str, padding: int = 0, **changes: Any) -> Any:
    rows = np.pad(pixels.reshape(len(pixels), -1), ((0, 0), (0, padding)), constant_values=77)
    fields = {
        "height": len(pixels),
        "width": pixels.shape[1],
        "step": rows.shape[1],
        "encoding": encoding,
        "data": rows.reshape(-1),
    }
    return SimpleNamespace(**(fields | changes))


def packed(data: bytes, format: str = "jpeg") -> Any:
    return SimpleNamespace(format=format, data=data)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "logged"),
    [
        ("rgb8", PIXELS),
        ("bgr8", PIXELS[..., ::-1]),
        ("rgba8", np.dstack([PIXELS, np.full((2, 3), 9, np.uint8)])),
        ("bgra8", np.dstack([PIXELS[..., ::-1], np.full((2, 3), 9, np.uint8)])),
    ],
)
def test_colour_images_become_rgb(encoding: str, logged: np.ndarray, padding: int) -> None:
    found = encode_image(RGB, raw(np.ascontiguousarray(logged), encoding, padding))
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert np.array_equal(found, PIXELS)


def test_grey_images_become_three_equal_channels() -> None:
    found = encode_image(RGB, raw(PIXELS[..., 0], "mono8", 2))
    assert np.array_equal(found, np.stack([PIXELS[..., 0]] * 3, -1))
    small = encode_image(CameraTopic(topic="/c", size=(1, 1)), raw(PIXELS[..., 0], "mono8"))
    assert small.shape == (1, 1, 3)


@pytest.mark.parametrize("container", [bytes, lambda a: array("B", a.tobytes()), np.asarray, bytearray])
def test_data_may_come_in_any_buffer(container: Any) -> None:
    assert np.array_equal(encode_image(RGB, raw(PIXELS, "rgb8", data=container(PIXELS.reshape(-1)))), PIXELS)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1", "8UC3", "bayer_rggb8", "yuv422", ""])
def test_other_encodings_are_refused_by_name(encoding: str) -> None:
    with pytest.raises(DatasetError, match=f"encoding '{encoding}' is not an 8-bit colour image"):
        encode_image(RGB, raw(PIXELS, encoding))


def test_a_wrong_label_can_be_overruled() -> None:
    camera = CameraTopic(topic="/c", encoding="bgr8")
    assert np.array_equal(encode_image(camera, raw(PIXELS, "8UC3")), PIXELS[..., ::-1])


@pytest.mark.parametrize(
    "changes",
    [
        {"height": 3},
        {"width": 4},
        {"step": 4},
        {"height": 0},
        {"width": 2**31},
        {"height": 2**32 - 1},
        {"step": 2**32 - 1},
    ],
)
def test_a_size_the_bytes_do_not_hold_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(DatasetError, match="damaged or mislabelled"):
        encode_image(RGB, raw(PIXELS, "rgb8", **changes))


def test_the_message_may_be_reused_after_encoding() -> None:
    message = raw(PIXELS.copy(), "rgb8")
    found = encode_image(RGB, message)
    message.data[:] = 0
    assert np.array_equal(found, PIXELS)


def test_resizing_averages_areas() -> None:
    image = np.zeros((6, 6, 3), np.uint8)
    image[0, :3] = [90, 180, 9]
    assert resize(image, (2, 2))[0, 0].tolist() == [30, 60, 3]
    camera = CameraTopic(topic="/c", size=(2, 2))
    assert encode_image(camera, raw(np.ascontiguousarray(image[..., ::-1]), "bgr8", 3))[0, 0].tolist() == [30, 60, 3]
    assert resize(image, (6, 6)) is image


def test_lossless_compression_gives_the_pixels_back() -> None:
    data = cv2.imencode(".png", PIXELS[..., ::-1])[1].tobytes()
    assert np.array_equal(encode_image(JPEG, packed(data, "rgb8; png compressed bgr8")), PIXELS)


@pytest.mark.parametrize(("size", "channels"), [((84, 84), 3), ((48, 64), 3), ((7, 5), 1)])
def test_jpeg_is_decoded_as_rgb(size: tuple[int, int], channels: int) -> None:
    image = np.full((*size, 3), 128, np.uint8)
    image[:, : size[1] // 2, 0] = 255 if channels == 3 else 128
    data = cv2.imencode(".jpg", image[..., ::-1] if channels == 3 else image[..., :1])[1].tobytes()
    found = encode_image(JPEG, packed(data))
    assert found.shape == (*size, 3)
    assert np.abs(found.astype(int) - image).mean() < 8


def test_a_declared_size_is_checked_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    png = bytearray(cv2.imencode(".png", PIXELS)[1].tobytes())
    png[16:24] = struct.pack(">II", 60_000, 60_000)
    jpeg = bytearray(cv2.imencode(".jpg", PIXELS)[1].tobytes())
    sof = jpeg.index(b"\xff\xc0")
    jpeg[sof + 5 : sof + 9] = struct.pack(">HH", 65_000, 65_000)
    for data in (png, jpeg):
        with pytest.raises(DatasetError, match="declares"):
            encode_image(JPEG, packed(bytes(data)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected JPEG or PNG"),
        (b"GIF89a..........", "expected JPEG or PNG"),
        (b"\xff\xd8\xff", "ends within its own header"),
        (b"\xff\xd8\xff\xe0\x00\x00\x00\x00", "not a valid JPEG"),
        (b"\xff\xd8" + b"\xff" * 100, "ends within its own header"),
        (cv2.imencode(".png", PIXELS)[1].tobytes()[:40], "cannot be decoded"),
        (cv2.imencode(".png", PIXELS[..., 0].astype(np.uint16))[1].tobytes(), "PNG of 16 bits"),
    ],
)
def test_damaged_compressed_images_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        encode_image(JPEG, packed(data))


@pytest.mark.parametrize("label", ["16UC1; compressedDepth png", "16UC1; png compressed 16UC1", "32FC1; compressedDepth"])
def test_compressed_depth_is_refused_by_name(label: str) -> None:
    with pytest.raises(DatasetError, match="is a depth image"):
        encode_image(JPEG, packed(cv2.imencode(".png", PIXELS)[1].tobytes(), label))


@settings(deadline=None)
@given(st.permutations(["a", "b", "c", "d"]))
def test_joints_are_found_by_name_in_any_order(order: list[str]) -> None:
    place = {"a": 1.5, "b": -2.0, "c": 0.25, "d": 9.0}
    message = SimpleNamespace(name=order, position=[place[n] for n in order], velocity=[], effort=np.arange(4.0))
    source = VectorTopic(topic="/j", type="JointState", joints=("c", "a"), units=("rad",))
    assert encode_vector(source, message).tolist() == [0.25, 1.5]
    effort = VectorTopic(topic="/j", type="JointState", joints=("d",), field=JointField.effort, units=("Nm",))
    assert encode_vector(effort, message).tolist() == [order.index("d")]


@pytest.mark.parametrize(
    ("names", "position", "message"),
    [
        (["a", "x"], [1.0, 2.0], "joints b are not in the message, which has a, x"),
        (["a", "b"], [], "has 2 joints but 0 numbers of position"),
        (["a", "b", "a"], [1.0, 2.0, 3.0], "names a joint twice"),
        ([], [], "joints a, b are not in the message"),
    ],
)
def test_joints_that_are_not_there_are_an_error(names: list[str], position: list[float], message: str) -> None:
    source = VectorTopic(topic="/j", type="JointState", joints=("a", "b"), units=("rad",))
    with pytest.raises(DatasetError, match=message):
        encode_vector(source, SimpleNamespace(name=names, position=position))


@pytest.mark.parametrize(("after_ms", "expected"), [(0, 1.0), (100, 1.0), (101, 2.0), (200, 2.0), (300, 3.0), (9000, 3.0)])
def test_of_a_trajectory_the_point_that_is_due_counts(after_ms: int, expected: float) -> None:
    points = [
        SimpleNamespace(positions=[float(i)], time_from_start=SimpleNamespace(sec=0, nanosec=i * 100_000_000)) for i in (1, 2, 3)
    ]
    for point in points:
        point.velocities, point.effort = [], []
    source = VectorTopic(topic="/t", type="JointTrajectory", joints=("a",), units=("rad",))
    assert encode_vector(source, SimpleNamespace(joint_names=["a"], points=points), after_ms * 1_000_000).tolist() == [expected]
    with pytest.raises(DatasetError, match="no points"):
        encode_vector(source, SimpleNamespace(joint_names=["a"], points=[]))


def test_poses_twists_and_wrenches_give_the_values_asked_for() -> None:
    xyz, q = SimpleNamespace(x=1.0, y=2.0, z=3.0), SimpleNamespace(x=0.1, y=0.2, z=0.3, w=0.9)
    pose = SimpleNamespace(pose=SimpleNamespace(position=xyz, orientation=q))
    assert encode_vector(VectorTopic(topic="/p", type="PoseStamped"), pose).tolist() == [1, 2, 3, 0.1, 0.2, 0.3, 0.9]
    assert encode_vector(VectorTopic(topic="/p", type="PoseStamped", values=("qw", "x")), pose).tolist() == [0.9, 1]
    twist = SimpleNamespace(linear=xyz, angular=q)
    source = VectorTopic(topic="/v", type="TwistStamped", values=("vx", "vz", "wy"))
    assert encode_vector(source, SimpleNamespace(twist=twist)).tolist() == [1, 3, 0.2]
    assert source.dimension_units == ("m/s", "m/s", "rad/s")
    assert encode_vector(VectorTopic(topic="/v", type="Twist"), twist).tolist() == [1, 2, 3, 0.1, 0.2, 0.3]
    wrench = SimpleNamespace(wrench=SimpleNamespace(force=xyz, torque=q))
    source = VectorTopic(topic="/w", type="WrenchStamped", values=("fz", "tx"))
    assert encode_vector(source, wrench).tolist() == [3, 0.1]
    assert source.dimension_units == ("N", "Nm")


def test_arrays_need_a_name_for_every_element() -> None:
    source = VectorTopic(topic="/a", type="Float64MultiArray", values=("u", "v"), units=("1",))
    assert encode_vector(source, SimpleNamespace(data=array("d", [0.5, 2.0]))).tolist() == [0.5, 2.0]
    with pytest.raises(DatasetError, match=r"expected 2 elements \(u, v\), found 3"):
        encode_vector(source, SimpleNamespace(data=[1.0, 2.0, 3.0]))
    switch = VectorTopic(topic="/s", type="Bool", values=("closed",), units=("1",))
    assert encode_vector(switch, SimpleNamespace(data=True)).tolist() == [1.0]


def test_stamps_are_exact_to_the_nanosecond() -> None:
    assert stamp_ns(SimpleNamespace(sec=1_700_000_000, nanosec=123_456_789)) == 1_700_000_000_123_456_789


def test_words() -> None:
    assert word_of(SimpleNamespace(data="Done")) == "Done"
    assert word_of(SimpleNamespace(data=True)) == "true"
    assert word_of(SimpleNamespace(data=np.bool_(False))) == "false"


def test_a_live_observation_is_made_of_the_latest_messages() -> None:
    contract = parse(
        TopicContract,
        {
            "control_hz": 10,
            "tolerance_s": 0.1,
            "cameras": {"top": {"topic": "/c", "size": [1, 3]}},
            "proprio": [
                {"topic": "/s", "type": "Bool", "values": ["closed"], "units": "1"},
                {"topic": "/j", "type": "JointState", "joints": ["b", "a"], "units": "rad"},
            ],
            "action": [{"next_state": "absolute", "of": ["a.position"]}],
        },
        "test",
    )
    latest = {
        "/c": raw(PIXELS, "rgb8"),
        "/j": SimpleNamespace(name=["a", "b"], position=[1.0, 2.0]),
        "/s": SimpleNamespace(data=True),
    }
    found = encode_observation(contract, latest, "go")
    assert found["images"]["top"].shape == (1, 3, 3)
    assert found["proprio"].tolist() == [1.0, 2.0, 1.0]
    assert found["proprio"].dtype == np.float32
    assert found.get("instruction") == "go"

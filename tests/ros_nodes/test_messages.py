"""Messages from arrays, with the real message classes; no node runs."""

import numpy as np
import pytest
from std_msgs.msg import Bool, Float64MultiArray, Int32
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from qtransformer.errors import SpecMismatchError
from qtransformer_datasets.rosbag.contract_entries import ActionTopic
from qtransformer_datasets.rosbag.ros_messages import encode_vector, stamp_ns
from qtransformer_ros.arm.motion import JointMotion, PoseMotion, TwistMotion
from qtransformer_ros.nodes import messages

CHUNK = JointMotion(joints=("a", "b"), positions=np.array([[0.1, 0.2], [0.3, 0.4]]), times_s=(0.05, 0.1))
TWIST = TwistMotion(linear=np.array([0.1, 0.2, 0.3]), angular=np.array([0.4, 0.5, 0.6]))
POSE = PoseMotion(position=np.array([1.0, 2.0, 3.0]), orientation=np.array([0.0, 0.6, 0.0, 0.8]))


def sent(motion, kind: str) -> list:
    return list(messages.motion_messages(motion, kind, 5_000_000_000, "frame", 0.02, 0.1))


def test_a_trajectory_is_sent_once_and_starts_now() -> None:
    ((due, message),) = sent(CHUNK, "JointTrajectory")
    assert due == 0
    assert stamp_ns(message.header.stamp) == 0
    assert [stamp_ns(point.time_from_start) for point in message.points] == [50_000_000, 100_000_000]
    source = ActionTopic(topic="t", type="JointTrajectory", joints=("b", "a"), units=("rad",))
    np.testing.assert_allclose(encode_vector(source, message, 100_000_000), [0.4, 0.3])


def test_positions_are_streamed_one_message_per_point() -> None:
    stream = sent(CHUNK, "Float64MultiArray")
    assert [due for due, _ in stream] == [0.0, 0.05]
    assert [list(message.data) for _, message in stream] == [[0.1, 0.2], [0.3, 0.4]]
    (_, first), _ = sent(CHUNK, "JointState")
    assert (list(first.name), list(first.position)) == (["a", "b"], [0.1, 0.2])


@pytest.mark.parametrize("kind", ["TwistStamped", "Twist"])
def test_a_velocity_is_repeated_with_fresh_stamps_until_the_period_ends(kind) -> None:
    stream = sent(TWIST, kind)
    np.testing.assert_allclose([due for due, _ in stream], [0, 0.02, 0.04, 0.06, 0.08])
    np.testing.assert_allclose(encode_vector(ActionTopic(topic="t", type=kind), stream[-1][1]), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    if kind == "TwistStamped":
        assert stream[1][1].header.frame_id == "frame"
        assert stamp_ns(stream[1][1].header.stamp) == 5_020_000_000


def test_a_pose_is_what_the_encoder_reads_back() -> None:
    ((_, message),) = sent(POSE, "PoseStamped")
    np.testing.assert_allclose(encode_vector(ActionTopic(topic="t", type="PoseStamped"), message), [1, 2, 3, 0, 0.6, 0, 0.8])


def test_switches_are_numbers_of_their_type() -> None:
    assert messages.switch_message("Bool", np.array([0.6])) == Bool(data=True)
    assert messages.switch_message("Bool", np.array([0.4])) == Bool(data=False)
    assert messages.switch_message("Int32", np.array([1.9999])) == Int32(data=2)
    assert messages.switch_message("Float64MultiArray", np.array([0.5, 1.0])) == Float64MultiArray(data=[0.5, 1.0])


@pytest.mark.parametrize("motion", [CHUNK, TWIST, POSE], ids=lambda m: type(m).__name__)
def test_every_motion_can_be_looked_at_as_a_trajectory(motion) -> None:
    message = messages.proposed(motion)
    assert all(len(point.positions) + len(point.velocities) == len(message.joint_names) for point in message.points)


def request(names, rows) -> JointTrajectory:
    return JointTrajectory(joint_names=names, points=[JointTrajectoryPoint(positions=row) for row in rows])


def test_candidates_are_put_into_the_policys_order() -> None:
    found = messages.candidates(request(["y", "x"], [[1.0, 2.0], [3.0, 4.0]]), ("x", "y"), 10)
    np.testing.assert_array_equal(found, [[2, 1], [4, 3]])


@pytest.mark.parametrize(
    ("names", "rows", "message"),
    [
        (["x"], [[1.0]], "expected joint_names x, y"),
        (["x", "x"], [[1.0, 2.0]], "found x, x"),
        (["x", "y"], [], "from 1 to 2 points, found 0"),
        (["x", "y"], [[1.0, 2.0]] * 3, "from 1 to 2 points, found 3"),
        (["x", "y"], [[1.0, 2.0], [1.0]], "2 positions at point 1, found 1"),
    ],
)
def test_candidates_that_do_not_fit_are_refused(names, rows, message) -> None:
    with pytest.raises(SpecMismatchError, match=message):
        messages.candidates(request(names, rows), ("x", "y"), 2)


def test_consumed_stamps_keep_every_nanosecond() -> None:
    message = messages.consumed_message({"/a": 1_700_000_000_123_456_789}, {"images": {}, "proprio": np.zeros(1)}, 5)
    said = {pair.key: pair.value for pair in next(iter(message.status)).values}
    assert said["/a"] == "1700000000123456789"
    assert len(said["observation_sha256"]) == 64


def test_tables_say_their_shape() -> None:
    message = messages.table_message(np.arange(6.0).reshape(2, 3), "dimension", "bin")
    assert [(dim.label, dim.size, dim.stride) for dim in message.layout.dim] == [("dimension", 2, 6), ("bin", 3, 3)]
    assert list(message.data) == [0, 1, 2, 3, 4, 5]

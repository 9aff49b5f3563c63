"""Samples that stop, repeat, break or come from another time, and what the arm is told then: hold once, and then nothing."""

import math
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from qtransformer_datasets.rosbag.contract_entries import CameraTopic
from qtransformer_ros.control.effects import Effects
from tests.ros_bridge.hand_robot import (
    CAMERA,
    CONTRACT,
    HOLD,
    HZ,
    JOINTS,
    LIMITS,
    MS,
    PAUSED,
    RUNNING,
    START_NS,
    TOOL,
    Robot,
    image,
    is_held,
    joint_state,
    make,
    recover,
    tool_pose,
)

NAN = math.nan


# Streams


@pytest.mark.parametrize(
    ("alive", "reason", "timeout_s"), [(JOINTS, "image_stale: camera", 0.5), (CAMERA, "joints_stale: joint_states", 0.2)]
)
def test_a_stream_that_ends_is_held_within_its_timeout_and_a_period(
    robot: Robot, alive: str, reason: str, timeout_s: float
) -> None:
    began = robot.clock.mono_ns - 10 * MS
    while robot.runtime.state is RUNNING:
        robot.clock.pass_s(0.02)
        robot.see(alive)
        robot.do(robot.runtime.watch())
    assert timeout_s < (robot.clock.mono_ns - began) / 1e9 <= timeout_s + 1 / HZ
    is_held(robot, reason)


def test_after_a_hold_there_is_silence(robot: Robot) -> None:
    request = robot.ask()
    robot.clock.pass_s(0.6)
    robot.do(robot.runtime.watch())
    is_held(robot, "image_stale")
    robot.answer(request)
    for _ in range(30):
        robot.clock.pass_s(0.1)
        robot.do(robot.runtime.tick())
        robot.do(robot.runtime.watch())
    is_held(robot, "image_stale")
    assert robot.commands == []


def test_a_camera_that_repeats_its_stamp_is_stale(robot: Robot) -> None:
    stamp = robot.clock.time_ns
    for value in range(40):
        robot.clock.pass_s(0.02)
        robot.see(JOINTS)
        robot.do(robot.runtime.receive(CAMERA, image(stamp, value)))
        robot.do(robot.runtime.watch())
    is_held(robot, "image_stale")
    assert robot.runtime.snapshot().topics[CAMERA]["repeated_stamp"] == 39


def test_a_camera_that_repeats_its_pixels_is_frozen() -> None:
    robot = make(max_identical_images=5).run()
    for n in range(4):
        robot.clock.pass_s(0.02)
        robot.see(JOINTS)
        robot.do(robot.runtime.receive(CAMERA, image(robot.clock.time_ns, 99)))
        assert robot.runtime.state is RUNNING, n
    robot.clock.pass_s(0.02)
    robot.do(robot.runtime.receive(CAMERA, image(robot.clock.time_ns, 99)))
    is_held(robot, "image_stale: camera: the same image")


def test_a_recovered_stream_leaves_it_to_a_person(robot: Robot) -> None:
    robot.clock.pass_s(0.6)
    robot.do(robot.runtime.watch())
    recover(robot, 2)
    assert robot.runtime.state is HOLD  # two frames are no recovery
    recover(robot, 1)
    assert robot.runtime.state is PAUSED
    assert "image_stale" in robot.runtime.reason
    assert robot.commands == []
    assert robot.do(robot.runtime.start()).reset_history


def test_a_recovered_stream_resumes_by_itself_only_where_it_may() -> None:
    robot = make(auto_resume=True).run()
    robot.clock.pass_s(0.6)
    robot.do(robot.runtime.watch())
    recover(robot, 2)
    assert robot.runtime.state is HOLD
    recover(robot, 1)
    assert robot.runtime.state is RUNNING
    assert robot.heard[-1].reset_history
    robot.period()
    assert len(robot.commands) == 1


def test_late_samples_are_dropped_and_counted(robot: Robot) -> None:
    robot.position = (0.5, 0.5)
    robot.see()
    robot.do(robot.runtime.receive(JOINTS, joint_state(robot.clock.time_ns - 40 * MS, (9.0, 9.0))))
    assert robot.runtime.measured.joints == pytest.approx({"a": 0.5, "b": 0.5})
    assert robot.runtime.snapshot().topics[JOINTS]["out_of_order"] == 1
    assert robot.runtime.state is RUNNING


def test_stamps_of_another_clock_are_no_observation(robot: Robot) -> None:
    for n in range(3):
        robot.clock.pass_s(0.1)
        robot.see(JOINTS)
        robot.do(robot.runtime.receive(CAMERA, image(START_NS - 10**12 + n, n)))  # late: dropped
        robot.do(robot.runtime.receive(CAMERA, image(robot.clock.time_ns - 110 * MS, n)))
        assert robot.runtime.state is RUNNING
        assert robot.do(robot.runtime.tick()).request is None
    is_held(robot, "skew")
    assert robot.runtime.counts["skewed"] == 3


@pytest.mark.parametrize(("stopped", "word"), [(CAMERA, "image_stale: camera"), (JOINTS, "joints_stale: joint_states")])
def test_a_stream_that_stops_is_called_stale_although_stamps_drift_apart_first(stopped: str, word: str) -> None:
    robot = make(image_timeout_s=2.0, joint_timeout_s=2.0, max_sync_skew_s=0.05).run()
    going = JOINTS if stopped == CAMERA else CAMERA
    for _ in range(4):
        robot.period()
    for _ in range(3):
        assert robot.runtime.state is RUNNING
        robot.clock.pass_s(0.1)
        robot.see(going)
        robot.do(robot.runtime.tick())
    is_held(robot, f"{word}: nothing new for 0.")
    assert f"while {going} went on: their stamps are 0." in robot.runtime.reason
    assert robot.runtime.counts["skewed"] == 3


@pytest.mark.parametrize(("late", "word"), [((CAMERA, JOINTS), "image_stale: camera"), ((JOINTS,), "joints_stale: joint_states")])
def test_what_comes_steadily_but_late_is_stale(late: tuple[str, ...], word: str) -> None:
    robot = make(image_timeout_s=0.5, joint_timeout_s=0.5, max_sync_skew_s=10.0).run()
    robot.clock.time_ns += 600 * MS  # every stamp from here on is as old as that
    for topic in (CAMERA, JOINTS):
        behind = 600 * MS if topic in late else 0
        now = robot.clock.time_ns - behind
        robot.do(robot.runtime.receive(topic, image(now, 7) if topic == CAMERA else joint_state(now)))
    robot.do(robot.runtime.watch())
    is_held(robot, f"{word}: what comes is 0.60 s old")


def test_stamps_of_the_future_are_rejected(robot: Robot) -> None:
    for _ in range(3):
        assert robot.runtime.state is RUNNING
        robot.do(robot.runtime.receive(CAMERA, image(robot.clock.time_ns + 10**9)))
    is_held(robot, "rejected: camera: its stamp is in the future")


# Messages


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"encoding": "16UC1"}, "encoding '16UC1'"),
        ({"data": np.zeros(47, np.uint8)}, "expected 48 bytes, found 47"),
        ({"step": 3}, "with step 3"),
        ({"height": 0}, "image of 0 x 4"),
        ({"height": 2}, "were 4 x 4 colour, and now one is 2 x 4 colour"),
        ({"encoding": "mono8"}, "were 4 x 4 colour, and now one is 4 x 4 grey"),
        ({"data": None}, ""),
        ({"width": "x"}, ""),
    ],
)
def test_a_broken_image_is_rejected_and_the_third_holds(robot: Robot, broken: dict[str, Any], why: str | None) -> None:
    for n in range(3):
        assert robot.runtime.state is RUNNING
        robot.clock.pass_s(0.01)
        message = image(robot.clock.time_ns, n)
        vars(message).update(broken)
        robot.do(robot.runtime.receive(CAMERA, message))
    is_held(robot, f"rejected: {CAMERA}")
    assert why in robot.runtime.reason
    assert robot.runtime.snapshot().topics[CAMERA]["rejected"] == 3


def test_one_broken_image_is_forgiven_and_never_seen(robot: Robot) -> None:
    for _ in range(6):
        robot.do(robot.runtime.receive(CAMERA, image(robot.clock.time_ns + 1, 255, data=np.zeros(1, np.uint8))))
        robot.period()
    assert robot.runtime.state is RUNNING
    assert len(robot.commands) == 6


def test_padding_and_the_byte_order_flag_of_images_are_honoured(robot: Robot) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 12)
    padded = np.pad(pixels, ((0, 0), (0, 5)), constant_values=99).reshape(-1)
    robot.clock.pass_s(0.01)
    robot.see(JOINTS)
    robot.do(robot.runtime.receive(CAMERA, image(robot.clock.time_ns, step=17, data=padded, is_bigendian=1)))
    request = robot.do(robot.runtime.tick()).request
    assert request is not None
    assert np.array_equal(request.observation["images"]["wrist"].reshape(4, 12), pixels)


def test_a_compressed_image_that_is_damaged_inside_is_no_observation() -> None:
    contract = replace(CONTRACT, cameras={"wrist": CameraTopic(topic=CAMERA, type="CompressedImage", size=(4, 4))})
    robot = make(contract=contract)
    good = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))[1].tobytes()

    def see(data: bytes) -> None:
        robot.clock.pass_s(0.1)
        robot.see(JOINTS)
        robot.do(robot.runtime.receive(CAMERA, image(robot.clock.time_ns, data=data, format="png")))

    robot.do(robot.runtime.listeners(1))
    robot.do(robot.runtime.activate())
    see(good)
    robot.do(robot.runtime.start())
    for _ in range(3):
        assert robot.runtime.state is RUNNING
        see(good[:40] + b"\0" * 40)
        assert robot.do(robot.runtime.tick()).request is None
    is_held(robot, "rejected: compressed image cannot be decoded")
    assert robot.runtime.snapshot().topics[CAMERA]["rejected"] == 3


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (joint_state(0, (NAN, 0.0)), "a = nan"),
        (joint_state(0, (0.0, math.inf)), "b = inf"),
        (joint_state(0, (0.0, 1e39)), "b = 1e+39"),  # beyond float32
        (joint_state(0, (0.0,)), "2 joints but 1 numbers"),
        (joint_state(0, (0.0, 0.0), ("a", "c")), "joints a expected one publisher, found two"),
        (joint_state(0, (0.0, 0.0), ("a", "a")), "of messages that name a, b, and a; stop one of them"),
        (joint_state(0, (0.0, 0.0, 0.0), ("a", "b", "a")), "names a joint twice"),
        (joint_state(0, (), ()), "it names no joint"),
    ],
)
def test_joints_that_are_not_numbers_or_not_there_are_rejected_never_zero(robot: Robot, message: Any, why: str) -> None:
    robot.position = (0.3, 0.4)
    robot.see()
    for _ in range(3):
        assert robot.runtime.state is RUNNING
        robot.clock.pass_s(0.01)
        robot.do(robot.runtime.receive(JOINTS, message))
    is_held(robot, f"rejected: {JOINTS}")
    assert why in robot.runtime.reason
    assert robot.runtime.measured.joints == pytest.approx({"a": 0.3, "b": 0.4})


def test_joints_are_known_by_name_whatever_their_order_and_company() -> None:
    robot = make()
    robot.do(robot.runtime.listeners(1))
    robot.do(robot.runtime.activate())
    robot.see(CAMERA)
    robot.do(robot.runtime.receive(JOINTS, joint_state(robot.clock.time_ns, (0.2, 9.0, 0.1), ("b", "gripper", "a"))))
    robot.do(robot.runtime.start())
    robot.clock.pass_s(0.05)
    robot.do(robot.runtime.receive(JOINTS, joint_state(robot.clock.time_ns, (9.0, 0.2, 0.1), ("gripper", "b", "a"))))
    request = robot.do(robot.runtime.tick()).request
    assert request is not None
    assert request.observation["proprio"].tolist() == pytest.approx([0.1, 0.2])
    assert robot.runtime.measured.joints == {"a": 0.1, "b": 0.2}


def test_a_tool_pose_without_a_rotation_is_rejected() -> None:
    limits = replace(LIMITS, workspace_min=(0.0, 0.0, 0.0), workspace_max=(1.0, 1.0, 1.0))
    robot = make(limits, pose_topic=TOOL)
    robot.do(robot.runtime.receive(TOOL, tool_pose(robot.clock.time_ns, orientation=(0, 0, 0, 0))))
    assert robot.runtime.measured.position is None
    robot.do(robot.runtime.receive(TOOL, tool_pose(robot.clock.time_ns, (0.5, NAN, 0.5))))
    assert robot.runtime.measured.position is None
    robot.do(robot.runtime.receive(TOOL, tool_pose(robot.clock.time_ns, orientation=(0, 0, 0, 1.01))))
    assert robot.runtime.measured.orientation is not None
    assert robot.runtime.measured.orientation[3] == 1
    assert robot.runtime.snapshot().topics[TOOL] == {"rejected": 2, "taken": 1}


def test_a_tool_measured_in_another_frame_is_refused_by_name() -> None:
    """Its numbers would be taken for those of the base, in holds and in the workspace."""
    robot = make(replace(LIMITS, workspace_min=(0.0, 0.0, 0.0)), pose_topic=TOOL)
    for frame, position in (("base_link", 0.1), ("/base_link", 0.2), ("", 0.3)):
        robot.do(robot.runtime.receive(TOOL, tool_pose(robot.clock.time_ns, (position, 0.5, 0.5), frame=frame)))
        assert robot.runtime.measured.position is not None
        assert robot.runtime.measured.position[0] == position
        robot.clock.pass_s(0.1)
    robot.see(CAMERA, JOINTS)
    for _ in range(5):
        robot.do(robot.runtime.receive(TOOL, tool_pose(robot.clock.time_ns, (0.9, 0.5, 0.5), frame="base")))
    assert robot.runtime.measured.position[0] == 0.3
    assert "expected 'base_link', found 'base'" in robot.runtime.complaint()


# Time


def test_time_that_goes_back_resets_and_holds_without_a_burst(robot: Robot) -> None:
    robot.period()
    request = robot.ask()
    robot.clock.time_ns -= 10**10
    found = robot.do(robot.runtime.watch())
    assert (found.hold, found.reset_history) == (True, True)
    is_held(robot, "time_jump")
    assert robot.answer(request) == Effects()
    assert [robot.do(robot.runtime.tick()) for _ in range(20)] == [Effects()] * 20
    assert robot.runtime.snapshot().ages_s == {CAMERA: None, JOINTS: None}
    assert robot.runtime.measured.joints == {}, "a hold waits for where the arm is now: a simulator may have put it elsewhere"
    recover(robot)  # samples of the new time count, though older than the old ones
    assert robot.runtime.state is PAUSED


def test_samples_from_before_a_jump_do_not_count_as_fresh(robot: Robot) -> None:
    robot.clock.pass_s(0.6)
    robot.do(robot.runtime.watch())
    for _ in range(4):
        robot.clock.pass_s(0.01)
        robot.see()
    robot.clock.time_ns -= 10**10
    recover(robot, 2)
    assert robot.runtime.state is HOLD
    recover(robot, 1)
    assert robot.runtime.state is PAUSED


def test_a_clock_that_is_slewed_has_not_jumped(robot: Robot) -> None:
    robot.do(robot.runtime.watch())
    robot.clock.time_ns -= 49 * MS
    assert robot.do(robot.runtime.watch()) == Effects()
    robot.clock.time_ns -= 2 * MS
    assert robot.do(robot.runtime.watch()).hold


def test_ages_go_by_the_clock_that_never_jumps(robot: Robot) -> None:
    robot.clock.time_ns += 10**13
    assert robot.do(robot.runtime.watch()) == Effects()
    assert robot.runtime.state is RUNNING
    robot.clock.mono_ns += 10**9
    robot.do(robot.runtime.watch())
    is_held(robot, "image_stale")

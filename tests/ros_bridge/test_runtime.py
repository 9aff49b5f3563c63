"""Every way in which a running policy can go wrong, and what the arm is told then: hold once, and then nothing."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hand_robot import (
    CAMERA,
    CONTRACT,
    HZ,
    JOINTS,
    LIMITS,
    MS,
    START_NS,
    TOOL,
    HandClock,
    Robot,
    image,
    joint_state,
    make,
    to_joints,
    tool_pose,
)

from qtransformer.errors import ConfigError, SpecMismatchError
from qtransformer_datasets.rosbag.topic_contract import CameraTopic, Clock, TextRule, VectorTopic
from qtransformer_ros.effects import Effects
from qtransformer_ros.motion import Command, TwistMotion
from qtransformer_ros.run_state import RunState
from qtransformer_ros.runtime import PolicyRuntime
from qtransformer_ros.runtime_settings import BelowMinValue, RuntimeSettings
from qtransformer_ros.safety_limits import OutOfBounds, SafetyLimits

NAN = math.nan
RUNNING, PAUSED, HOLD, ESTOP, FAULT, IDLE = (
    RunState.running,
    RunState.paused,
    RunState.hold,
    RunState.estop,
    RunState.fault,
    RunState.idle,
)


def is_held(robot: Robot, reason: str, state: RunState = HOLD, holds: int = 1) -> None:
    assert robot.runtime.state is state, robot.runtime.reason
    assert robot.runtime.reason.startswith(reason), robot.runtime.reason
    assert robot.holds == holds


def recover(robot: Robot, frames: int = 3) -> None:
    for _ in range(frames):
        robot.clock.pass_s(0.01)
        robot.see()
    robot.do(robot.runtime.watch())


# Acting


def test_an_observation_becomes_a_command_within_its_limits(robot: Robot) -> None:
    robot.position = (0.1, 0.2)
    request = robot.ask()
    assert request.observation["proprio"].tolist() == pytest.approx([0.1, 0.2])
    assert request.observation["images"]["wrist"].shape == (4, 4, 3)
    assert request.stamps == {CAMERA: robot.clock.time_ns, JOINTS: robot.clock.time_ns}
    found = robot.answer(request, (0.15, 0.9))
    assert found.command is not None
    # b may go 1 rad/s for a tenth of a second, from where it was measured
    assert found.command.motion.positions == pytest.approx(np.array([[0.15, 0.3]]), abs=1e-6)
    assert found.proposed is found.command
    assert not found.hold
    assert robot.runtime.snapshot().clamps == {"action": 0, "step": 1, "velocity": 1}


def test_a_period_after_the_other(robot: Robot) -> None:
    for _ in range(20):
        robot.period()
    counts = robot.runtime.snapshot().counts
    assert len(robot.commands) == counts["commands"] == counts["requests"] == 20
    assert counts.get("misses", 0) == 0
    assert robot.runtime.snapshot().inference_p50_ms == pytest.approx(20)


def test_actions_are_what_an_environment_would_be_given(robot: Robot) -> None:
    seen: list[np.ndarray] = []
    robot.runtime._to_command = lambda action: seen.append(action) or to_joints(action)
    robot.answer(robot.ask(), (0.1, 7.0))
    spec = CONTRACT.action_spec()
    assert np.array_equal(seen[0], spec.to_units(spec.to_scaled(np.array([np.float32(0.1), 3.0]))))
    assert robot.runtime.clamps["action"] == 1


def test_it_starts_paused_and_waits() -> None:
    robot = make()
    assert robot.runtime.state is IDLE
    assert robot.do(robot.runtime.start()).refused.startswith("cannot start: IDLE")
    robot.do(robot.runtime.activate())
    robot.do(robot.runtime.listeners(1))
    assert robot.runtime.state is PAUSED
    assert "image_stale: camera: nothing came yet" in robot.do(robot.runtime.start()).refused
    robot.see()
    assert robot.do(robot.runtime.tick()) == Effects()
    found = robot.do(robot.runtime.start())
    assert (found.reset_history, found.changed, found.refused) == (True, True, "")
    assert robot.runtime.state is RUNNING


def test_it_starts_by_itself_with_its_first_samples_where_it_may() -> None:
    robot = make(start_paused=False)
    robot.do(robot.runtime.activate())
    robot.see(JOINTS)
    robot.do(robot.runtime.watch())
    assert robot.runtime.state is HOLD
    robot.see()
    robot.do(robot.runtime.watch())
    assert robot.runtime.state is HOLD  # nobody listens
    robot.do(robot.runtime.listeners(1))
    robot.do(robot.runtime.watch())
    assert robot.runtime.state is RUNNING
    assert robot.holds == 0


def test_a_burst_of_ticks_decides_once(robot: Robot) -> None:
    robot.answer(robot.ask())
    assert [robot.do(robot.runtime.tick()) for _ in range(50)] == [Effects()] * 50
    assert robot.runtime.state is RUNNING


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
    assert robot.runtime.measured.joints == {"a": 0.5, "b": 0.5}
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
        ({"height": 2}, "were 4 x 4, and now one is 2 x 4"),
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
        (joint_state(0, (0.0, 0.0), ("a", "c")), "joints b are not in the message"),
        (joint_state(0, (0.0, 0.0), ("a", "a")), "joints b are not in the message"),
        (joint_state(0, (0.0, 0.0, 0.0), ("a", "b", "a")), "names a joint twice"),
        (joint_state(0, (), ()), "joints a, b are not in the message"),
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
    assert robot.runtime.measured.joints == {"a": 0.3, "b": 0.4}


def test_joints_are_known_by_name_whatever_their_order_and_company(robot: Robot) -> None:
    robot.clock.pass_s(0.05)
    robot.see(CAMERA)
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


# Actions


@pytest.mark.parametrize("bad", [(NAN, 0.0), (0.0, math.inf), (0.0,), (0.0, 0.0, 0.0)])
def test_an_action_that_is_none_holds_and_the_third_in_a_row_is_a_fault(robot: Robot, bad: tuple[float, ...]) -> None:
    for n in range(1, 4):
        robot.answer(robot.ask(), bad)
        is_held(robot, "bad_action", HOLD if n < 3 else FAULT, holds=n)
        if n < 3:
            recover(robot)
            robot.do(robot.runtime.start())
    assert robot.commands == []
    assert robot.do(robot.runtime.start()).refused.startswith("cannot start: FAULT")
    recover(robot, 5)
    assert robot.runtime.state is FAULT
    found = robot.do(robot.runtime.reset())
    assert (found.reset_history, found.changed, robot.runtime.state) == (True, True, PAUSED)


def test_a_good_action_between_bad_ones_starts_the_count_again(robot: Robot) -> None:
    for _ in range(2):
        for bad in range(2):
            robot.answer(robot.ask(), (NAN, NAN))
            assert robot.runtime.state is HOLD, bad
            recover(robot)
            robot.do(robot.runtime.start())
        robot.period()
    assert robot.runtime.state is RUNNING


def test_inference_that_raises_counts_as_a_bad_action(robot: Robot) -> None:
    for _ in range(3):
        assert robot.runtime.state is RUNNING
        robot.ask()
        robot.do(robot.runtime.failed(SpecMismatchError("camera 'wrist' is missing")))
        assert "SpecMismatchError: camera 'wrist' is missing" in robot.runtime.reason
        recover(robot)
        robot.do(robot.runtime.start())
    is_held(robot, "inference_failed", FAULT, holds=3)


def test_a_defect_around_the_policy_is_not_blamed_on_the_network(robot: Robot) -> None:
    for _ in range(3):
        assert robot.runtime.state is RUNNING
        robot.do(robot.runtime.broke(KeyError("a")))
        assert robot.runtime.reason.startswith("internal_error: KeyError: 'a'")
        recover(robot)
        robot.do(robot.runtime.start())
    is_held(robot, "internal_error", FAULT, holds=3)


def test_a_defect_in_making_commands_is_a_fault_and_no_crash(robot: Robot) -> None:
    robot.runtime._to_command = lambda action: 1 / 0
    robot.answer(robot.ask())
    is_held(robot, "fault: an action became no command: ZeroDivisionError", FAULT)


def test_a_command_that_is_not_finite_never_leaves(robot: Robot) -> None:
    twist = Command(motion=TwistMotion(linear=np.array([0.0, NAN, 0.0]), angular=np.zeros(3)))
    robot.runtime._to_command = lambda action: twist
    found = robot.answer(robot.ask())
    assert (found.command, found.proposed, found.hold) == (None, None, True)
    is_held(robot, "bad_action: linear expected finite numbers")


def test_a_limit_may_hold_instead_of_clamp() -> None:
    robot = make(replace(LIMITS, out_of_bounds=OutOfBounds.hold)).run()
    robot.position = (0.95, 0.0)
    robot.answer(robot.ask(), (1.02, 0.0))
    is_held(robot, "limits: position limit of a")
    assert robot.runtime.counts["refused"] == 1


def hold(robot: Robot) -> None:
    robot.do(robot.runtime.stop())
    robot.do(robot.runtime.start())


def miss_an_answer(robot: Robot) -> None:
    """Meanwhile the last command ends, and the arm stands."""
    robot.ask()
    robot.clock.pass_s(0.1)


@pytest.mark.parametrize("interrupt", [hold, miss_an_answer])
def test_motion_after_an_interruption_ramps_from_standing(interrupt: Callable[[Robot], None]) -> None:
    robot = make(replace(LIMITS, max_joint_accel=2.0)).run()
    ways = []
    for n in range(4):
        if n == 3:
            interrupt(robot)
        found = robot.answer(robot.ask(), (0.9, 0.0)).command
        assert found is not None
        ways.append(float(found.motion.positions[0, 0]) - robot.position[0])
        robot.position = (float(found.motion.positions[0, 0]), 0.0)
        robot.clock.pass_s(0.08)
    assert ways == pytest.approx([0.02, 0.04, 0.06, 0.02])


# Inference


def test_an_answer_that_is_late_is_a_miss_and_a_newer_request_replaces_it(robot: Robot) -> None:
    old = robot.ask()
    robot.clock.pass_s(0.1)
    new = robot.ask()
    assert robot.runtime.counts["misses"] == 1
    assert new.number == old.number + 1
    assert robot.answer(old) == Effects()
    assert robot.runtime.counts["dropped_answers"] == 1
    assert robot.answer(new).command is not None


def test_inference_that_is_always_late_is_held(robot: Robot) -> None:
    for n in range(4):
        assert robot.runtime.state is RUNNING, n
        robot.see()
        robot.do(robot.runtime.tick())
        robot.clock.pass_s(0.1)
    is_held(robot, "inference_late: 3 control periods")
    assert robot.runtime.counts["misses"] == 3


def test_a_miss_now_and_then_is_forgiven(robot: Robot) -> None:
    for _ in range(10):
        robot.ask()
        robot.clock.pass_s(0.1)
        robot.answer(robot.ask())
        robot.clock.pass_s(0.08)
    assert robot.runtime.state is RUNNING
    assert robot.runtime.counts["misses"] == len(robot.commands) == 10


def test_an_answer_older_than_its_timeout_is_not_acted_on(robot: Robot) -> None:
    request = robot.ask()
    robot.clock.pass_s(0.14)
    robot.see()
    assert robot.answer(request, after_s=0.02) == Effects()
    assert (robot.runtime.counts["misses"], robot.runtime.counts["dropped_answers"]) == (1, 1)


def test_nothing_queues_however_slow_the_network(robot: Robot) -> None:
    robot = make(max_consecutive_misses=10**6).run()
    waiting = []
    for _ in range(600):
        waiting = [robot.ask()]
        robot.clock.pass_s(0.1)
    assert robot.runtime.counts["misses"] == 599
    assert robot.answer(waiting[0], after_s=0.0).command is not None


def test_an_answer_from_before_a_reset_is_dropped(robot: Robot) -> None:
    request = robot.ask()
    assert robot.do(robot.runtime.reset()).reset_history
    assert robot.runtime.state is RUNNING
    assert robot.answer(request) == Effects()
    robot.clock.pass_s(0.05)
    assert robot.ask().generation > request.generation


def test_one_late_answer_is_one_miss(robot: Robot) -> None:
    request = robot.ask()
    robot.clock.pass_s(0.1)
    robot.do(robot.runtime.tick())  # nothing new to ask about
    robot.answer(request, after_s=0.06)
    assert robot.runtime.counts["misses"] == 1


def test_a_decision_on_a_world_that_went_stale_meanwhile_is_not_acted_on() -> None:
    robot = make(joint_timeout_s=0.05).run()
    robot.answer(robot.ask(), after_s=0.06)
    is_held(robot, "joints_stale")
    assert robot.commands == []


def test_samples_that_belong_together_now_and_then_are_no_skew(robot: Robot) -> None:
    for n in range(10):
        robot.clock.pass_s(0.12)
        robot.see(*([JOINTS] if n % 2 else []))
        if request := robot.do(robot.runtime.tick()).request:
            robot.answer(request, after_s=0)
    assert robot.runtime.state is RUNNING
    assert robot.runtime.counts["skewed"] == 5


def test_a_camera_may_change_its_size_at_a_reset(robot: Robot) -> None:
    robot.do(robot.runtime.reset())
    robot.do(robot.runtime.receive(CAMERA, image(robot.clock.time_ns, size=(8, 8))))
    assert "rejected" not in robot.runtime.snapshot().topics[CAMERA]


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


# People


def test_an_estop_latches_at_once_and_only_a_person_starts_again(robot: Robot) -> None:
    request = robot.ask()
    assert robot.do(robot.runtime.estop_heard(True)).hold
    is_held(robot, "estop", ESTOP)
    robot.answer(request)
    assert robot.do(robot.runtime.start()).refused.startswith("cannot start: ESTOP")
    assert "still says pressed" in robot.do(robot.runtime.estop(False)).refused
    robot.do(robot.runtime.estop_heard(False))
    assert robot.runtime.state is ESTOP  # the topic never unlatches
    robot.do(robot.runtime.reset())
    assert robot.runtime.state is ESTOP
    robot.do(robot.runtime.estop(False))
    assert robot.runtime.state is PAUSED
    recover(robot, 10)
    assert (robot.runtime.state, robot.commands, robot.holds) == (PAUSED, [], 1)
    robot.do(robot.runtime.start())
    robot.period()
    assert len(robot.commands) == 1


def test_an_estop_outlives_deactivation_and_comes_before_activation() -> None:
    robot = make()
    robot.do(robot.runtime.estop(True))
    assert robot.runtime.state is ESTOP
    robot.do(robot.runtime.activate())
    assert robot.runtime.state is ESTOP
    robot.do(robot.runtime.deactivate())
    assert robot.runtime.state is IDLE
    robot.do(robot.runtime.activate())
    assert robot.runtime.state is ESTOP
    robot.do(robot.runtime.estop(False))
    assert robot.runtime.state is PAUSED
    assert robot.holds == 0


def test_an_estop_does_not_wash_a_fault_away(robot: Robot) -> None:
    robot.runtime._to_command = lambda action: 1 / 0
    robot.answer(robot.ask())
    robot.do(robot.runtime.estop(True))
    robot.do(robot.runtime.estop(False))
    assert robot.runtime.state is FAULT


def test_nothing_moves_before_an_estop_that_must_be_heard_is_heard() -> None:
    robot = make(estop_timeout_s=0.3, start_paused=True)
    robot.do(robot.runtime.listeners(1))
    robot.do(robot.runtime.activate())
    robot.see()
    assert "estop_unheard" in robot.do(robot.runtime.start()).refused
    robot.do(robot.runtime.estop_heard(False))
    assert not robot.do(robot.runtime.start()).refused
    assert robot.runtime.state is RUNNING


def test_an_estop_that_falls_silent_counts_as_pressed() -> None:
    robot = make(estop_timeout_s=0.3)
    robot.clock.pass_s(10)
    assert robot.do(robot.runtime.watch()) == Effects()  # nobody listens for it before activation
    robot.do(robot.runtime.estop_heard(False))
    robot.run()
    for _ in range(5):
        robot.clock.pass_s(0.1)
        robot.see()
        robot.do(robot.runtime.estop_heard(False))
        robot.do(robot.runtime.watch())
    assert robot.runtime.state is RUNNING
    for _ in range(4):
        robot.clock.pass_s(0.1)
        robot.see()
        robot.do(robot.runtime.watch())
    is_held(robot, "estop: its topic was silent", ESTOP)
    assert "silent" in robot.do(robot.runtime.estop(False)).refused
    robot.do(robot.runtime.estop_heard(False))
    robot.do(robot.runtime.estop(False))
    assert robot.runtime.state is PAUSED


def test_commands_that_nobody_hears_are_not_sent(robot: Robot) -> None:
    request = robot.ask()
    robot.do(robot.runtime.listeners(0))
    is_held(robot, "no_listener")
    robot.answer(request)
    assert robot.commands == []
    recover(robot)
    assert robot.runtime.state is HOLD
    assert "no_listener" in robot.do(robot.runtime.start()).refused
    robot.do(robot.runtime.listeners(1))
    recover(robot)
    assert robot.runtime.state is PAUSED


def test_it_gives_way_to_another_that_commands_the_arm(robot: Robot) -> None:
    robot.do(robot.runtime.rivals(0))
    assert robot.runtime.state is RUNNING
    robot.do(robot.runtime.rivals(1))
    is_held(robot, "rival: 1 other publisher")
    recover(robot)
    assert robot.runtime.state is HOLD
    assert "rival" in robot.do(robot.runtime.start()).refused
    robot.do(robot.runtime.rivals(0))
    recover(robot)
    assert robot.runtime.state is PAUSED


def test_a_robot_that_forbids_motion_pauses_the_policy(robot: Robot) -> None:
    robot.do(robot.runtime.enable_motion(True))
    assert robot.runtime.state is RUNNING
    robot.do(robot.runtime.enable_motion(False))
    is_held(robot, "motion_disabled", PAUSED)
    assert "motion_disabled" in robot.do(robot.runtime.start()).refused
    robot.do(robot.runtime.enable_motion(True))
    assert robot.runtime.state is PAUSED
    assert robot.do(robot.runtime.start()).changed


@pytest.mark.parametrize(("event", "state"), [("stop", PAUSED), ("deactivate", IDLE)])
def test_stop_and_deactivation_hold_once(robot: Robot, event: str, state: RunState) -> None:
    request = robot.ask()
    for _ in range(2):
        robot.do(getattr(robot.runtime, event)())
    robot.answer(request)
    assert (robot.runtime.state, robot.holds, robot.commands) == (state, 1, [])


def test_an_episode_that_is_too_long_is_paused() -> None:
    robot = make(max_episode_s=1.0).run()
    for _ in range(12):
        robot.see()
        request = robot.do(robot.runtime.tick()).request
        if request:
            robot.answer(request, after_s=0.0)
        robot.clock.pass_s(0.1)
    is_held(robot, "episode_over", PAUSED)
    assert len(robot.commands) == 10


def test_a_dry_run_proposes_and_commands_nothing() -> None:
    robot = make(dry_run=True)
    robot.do(robot.runtime.activate())
    robot.see()
    robot.do(robot.runtime.start())  # nobody listens, and nobody needs to
    found = robot.answer(robot.ask())
    assert (found.command, found.proposed is not None) == (None, True)
    robot.do(robot.runtime.estop(True))
    assert (robot.holds, robot.runtime.state) == (0, ESTOP)


# Values


def test_an_action_of_little_value_holds_or_asks() -> None:
    for way, state in ((BelowMinValue.hold, HOLD), (BelowMinValue.ask, PAUSED)):
        for value in (0.29, NAN, None):
            robot = make(min_value=0.3, below_min_value=way).run()
            robot.answer(robot.ask(), value=0.3)
            robot.clock.pass_s(0.08)
            robot.answer(robot.ask(), value=value)
            is_held(robot, "low_value", state)
            assert len(robot.commands) == 1


def build(limits: SafetyLimits = LIMITS, contract: Any = CONTRACT, **options: Any) -> PolicyRuntime:
    settings = RuntimeSettings(control_hz=HZ, **options.pop("settings", {}))
    return PolicyRuntime(contract, CONTRACT.action_spec(), limits, settings, HandClock(), to_command=to_joints, **options)


def test_what_can_never_work_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="cloned"):
        build(settings={"min_value": 0.1}, has_values=False, joint_topic=JOINTS)
    with pytest.raises(ConfigError, match="no topic measures them"):
        build()
    with pytest.raises(ConfigError, match="no topic measures the tool"):
        build(SafetyLimits(workspace_min=(0.0, 0.0, 0.0)))
    with pytest.raises(ConfigError, match="clock is receive"):
        build(contract=replace(CONTRACT, clock=Clock.receive), joint_topic=JOINTS, settings={"lockstep": True})
    bare = (VectorTopic(topic="force", type="Float64", values=("f",), units=("N",)),)
    with pytest.raises(ConfigError, match="messages of force have none"):
        build(contract=replace(CONTRACT, proprio=bare), joint_topic=JOINTS, settings={"lockstep": True})


@pytest.mark.parametrize("bad", [{"control_hz": 0.0}, {"control_hz": NAN}, {"image_timeout_s": -1.0}, {"max_episode_s": math.inf}])
def test_settings_that_mean_nothing_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        RuntimeSettings(**({"control_hz": HZ} | bad))


def test_an_answer_may_take_one_and_a_half_periods_by_default() -> None:
    assert RuntimeSettings(control_hz=4).answer_timeout_s == pytest.approx(0.375)
    assert RuntimeSettings(control_hz=4, inference_timeout_s=0.2).answer_timeout_s == 0.2


# Limits while running


def test_limits_are_only_tightened_while_running(robot: Robot) -> None:
    looser, tighter = replace(LIMITS, max_step_rad=0.6), replace(LIMITS, max_step_rad=0.01)
    assert "max_step_rad" in robot.runtime.change_limits(looser)
    assert robot.runtime.limits == LIMITS
    assert robot.runtime.change_limits(tighter) == ""
    found = robot.answer(robot.ask(), (0.05, 0.0)).command
    assert found is not None
    assert found.motion.positions[0, 0] == pytest.approx(0.01)
    robot.do(robot.runtime.stop())
    assert robot.runtime.change_limits(looser) == ""
    assert "configure again" in robot.runtime.change_limits(replace(LIMITS, joints={}))
    assert "configure again" in robot.runtime.change_limits(replace(LIMITS, workspace_min=(0.0, 0.0, 0.0)))


# Instruction


def test_an_instruction_by_topic_is_waited_for() -> None:
    robot = make(contract=replace(CONTRACT, instruction=TextRule(topic="task")))
    robot.do(robot.runtime.listeners(1))
    robot.do(robot.runtime.activate())
    robot.see()
    assert "waiting: for an instruction" in robot.do(robot.runtime.start()).refused
    robot.do(robot.runtime.receive("task", type("String", (), {"data": "pick up the cube"})()))
    robot.do(robot.runtime.start())
    assert robot.ask().observation["instruction"] == "pick up the cube"


# Lockstep


def lockstep(**settings: Any) -> Robot:
    robot = make(lockstep=True, image_timeout_s=0.01, joint_timeout_s=0.01, **settings)
    robot.do(robot.runtime.listeners(1))
    robot.do(robot.runtime.activate())
    robot.do(robot.runtime.start())
    assert robot.runtime.state is RUNNING
    return robot


def test_in_lockstep_every_complete_set_is_decided_on_once_however_long_it_takes() -> None:
    robot = lockstep()
    for _ in range(5):
        robot.see(JOINTS)
        assert robot.do(robot.runtime.tick()) == Effects()
        robot.see(CAMERA)
        request = robot.do(robot.runtime.tick()).request
        assert request is not None
        assert robot.do(robot.runtime.tick()) == Effects()
        robot.clock.mono_ns += 10**11
        robot.do(robot.runtime.watch())
        assert robot.answer(request).command is not None
        robot.clock.time_ns += 100 * MS
    assert len(robot.commands) == 5
    assert robot.runtime.counts["misses"] == 0


def test_in_lockstep_samples_of_two_instants_are_no_set() -> None:
    robot = lockstep()
    robot.see(JOINTS)
    robot.clock.time_ns += 100 * MS
    robot.see(CAMERA)
    assert robot.do(robot.runtime.tick()) == Effects()
    robot.see(JOINTS)
    assert robot.do(robot.runtime.tick()).request is not None


def test_in_lockstep_stamps_may_be_ahead_of_the_clock() -> None:
    robot = lockstep()
    for topic, message in ((JOINTS, joint_state(START_NS + 10**9)), (CAMERA, image(START_NS + 10**9))):
        robot.do(robot.runtime.receive(topic, message))
    assert robot.do(robot.runtime.tick()).request is not None


def test_in_lockstep_a_stop_before_the_answer_leaves_nothing_waiting_for_ever() -> None:
    robot = lockstep()
    robot.see()
    robot.do(robot.runtime.tick())
    robot.do(robot.runtime.stop())
    found = robot.do(robot.runtime.start())
    assert found.request is not None
    assert robot.answer(found.request).command is not None


def test_in_lockstep_an_episode_that_was_answered_is_not_answered_twice() -> None:
    robot = lockstep()
    robot.see()
    request = robot.do(robot.runtime.tick()).request
    assert request is not None
    robot.answer(request)
    robot.do(robot.runtime.stop())
    robot.do(robot.runtime.reset())
    assert robot.do(robot.runtime.start()).request is None


def test_in_lockstep_time_that_goes_back_keeps_the_sample_that_says_so() -> None:
    robot = lockstep(auto_resume=True)
    robot.see()
    robot.do(robot.runtime.tick())
    robot.clock.time_ns -= 10**10
    robot.see(JOINTS)
    assert robot.heard[-1].reset_history
    is_held(robot, "time_jump")
    robot.see(CAMERA)
    found = robot.do(robot.runtime.watch())
    assert robot.runtime.state is RUNNING
    assert found.request is not None


def test_in_lockstep_a_rejected_sample_holds_because_none_follows() -> None:
    robot = lockstep(auto_resume=True)
    robot.do(robot.runtime.receive(JOINTS, joint_state(robot.clock.time_ns, (NAN, 0.0))))
    is_held(robot, "rejected")


def test_in_lockstep_an_episode_is_as_long_as_its_steps() -> None:
    robot = lockstep(max_episode_s=0.3)
    for _ in range(4):
        robot.see()
        request = robot.do(robot.runtime.tick()).request
        robot.clock.mono_ns += 10**11
        if request:
            robot.answer(request)
        robot.clock.time_ns += 100 * MS
    is_held(robot, "episode_over", PAUSED)
    assert len(robot.commands) == 3

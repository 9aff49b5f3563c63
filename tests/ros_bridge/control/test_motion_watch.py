"""An arm that is told to move and measured in one place, to the last bit, is not measured."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qtransformer_ros.arm.motion import JointMotion, Motion, PoseMotion, TwistMotion
from qtransformer_ros.arm.safety import Measured
from qtransformer_ros.control.motion_watch import MotionWatch
from tests.ros_bridge.hand_robot import CAMERA, HZ, JOINTS, RUNNING, HandClock, Robot, is_held, joint_state, make

HERE = Measured(joints={"a": 0.1, "b": 0.2}, position=np.full(3, 0.5), orientation=np.array([0.0, 0.0, 0.0, 1.0]))
TURN = np.array([0.0, 0.0, np.sin(0.05), np.cos(0.05)])


def joints(a: float, b: float) -> Motion:
    return JointMotion(joints=("a", "b"), positions=np.array([[a, b]]), times_s=(0.1,))


def twist(x: float, turn: float = 0.0) -> Motion:
    return TwistMotion(linear=np.array([x, 0, 0]), angular=np.array([0, 0, turn]))


def pose(x: float, orientation: Any = HERE.orientation) -> Motion:
    return PoseMotion(position=np.array([x, 0.5, 0.5]), orientation=np.asarray(orientation))


def complaints(motion: Motion, times: int = 13, measured: Any = lambda n: HERE, timeout_s: float = 1.0) -> list[bool]:
    """Whether there was one, command after command, a tenth of a second apart."""
    clock = HandClock()
    watch = MotionWatch(clock, timeout_s, 0.1)
    found = []
    for n in range(times):
        found.append(bool(watch.complaint(motion, measured(n))))
        clock.pass_s(0.1)
    return found


@pytest.mark.parametrize("motion", [joints(0.1, 0.21), twist(0.05), twist(0.0, 0.1), pose(0.51), pose(0.5, TURN)])
def test_a_measurement_that_repeats_itself_under_a_motion_is_none(motion: Motion) -> None:
    assert complaints(motion) == [False] * 11 + [True] * 2
    assert not any(complaints(motion, timeout_s=0.0))


@pytest.mark.parametrize("motion", [joints(0.1, 0.2), joints(0.1001, 0.2), twist(0.001), pose(0.5)])
def test_who_is_told_to_stay_may_repeat_himself(motion: Motion) -> None:
    assert not any(complaints(motion, times=100))


def with_live(joints: bool, tool: bool) -> Any:
    """The n-th measurement: of what lives, the last bits change."""

    def measured(n: int) -> Measured:
        noise = n * 1e-12
        return replace(HERE, joints={"a": 0.1, "b": 0.2 + noise * joints}, position=np.array([0.5, 0.5, 0.5 + noise * tool]))

    return measured


def test_a_motion_is_judged_by_the_measurement_that_bounds_it() -> None:
    joints_live, tool_lives = with_live(True, False), with_live(False, True)
    assert not any(complaints(joints(0.1, 0.21), measured=joints_live))
    assert any(complaints(joints(0.1, 0.21), measured=tool_lives))
    for motion in (twist(0.05), pose(0.51)):
        assert not any(complaints(motion, measured=tool_lives))
        assert any(complaints(motion, measured=joints_live))


def test_without_a_tool_a_velocity_is_judged_by_the_joints_and_without_both_by_nothing() -> None:
    assert any(complaints(twist(0.05), measured=lambda n: Measured(joints={"a": 0.1})))
    assert not any(complaints(twist(0.05), measured=lambda n: Measured(joints={"a": 0.1 + n * 1e-12})))
    assert not any(complaints(twist(0.05), measured=lambda n: Measured()))


def repeat(robot: Robot, seconds: float) -> None:
    """Periods whose images are new, and whose joints say the same place under new stamps."""
    for _ in range(round(seconds * HZ)):
        robot.see(CAMERA)
        robot.do(robot.runtime.receive(JOINTS, joint_state(robot.clock.time_ns, (0.0, 0.0))))
        request = robot.do(robot.runtime.tick()).request
        if request is None:
            return
        robot.answer(request)
        robot.clock.pass_s(0.08)


def test_joints_repeated_under_new_stamps_hold_the_arm() -> None:
    robot = make().run()
    repeat(robot, 0.5)
    assert robot.runtime.state is RUNNING
    repeat(robot, 0.5)
    is_held(robot, "unmoved: told to move 0.60 s ago")
    assert len(robot.commands) == 6


def test_the_count_begins_anew_with_the_start() -> None:
    robot = make(start_paused=True).run()
    repeat(robot, 0.5)
    robot.do(robot.runtime.stop())
    robot.do(robot.runtime.start())
    repeat(robot, 0.5)
    assert robot.runtime.state is RUNNING, robot.runtime.reason


@pytest.mark.parametrize("settings", [{"dry_run": True}, {"unmoved_timeout_s": 0.0}])
def test_an_arm_that_is_not_told_or_not_timed_may_stand(settings: dict[str, Any]) -> None:
    robot = make(**settings).run()
    repeat(robot, 3.0)
    assert robot.runtime.state is RUNNING

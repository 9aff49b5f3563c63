"""Lockstep: every complete set of samples is decided on once, however long it takes."""

import math
from typing import Any

from qtransformer_ros.control.effects import Effects
from tests.ros_bridge.hand_robot import (
    CAMERA,
    JOINTS,
    MS,
    PAUSED,
    RUNNING,
    START_NS,
    Robot,
    image,
    is_held,
    joint_state,
    make,
)

NAN = math.nan


def lockstep(**settings: Any) -> Robot:
    robot = make(lockstep=True, image_timeout_s=0.01, joint_timeout_s=0.01, **settings)
    robot.do(robot.runtime.listeners(1))
    robot.do(robot.runtime.activate())
    robot.do(robot.runtime.start())
    assert robot.runtime.state is RUNNING
    return robot


def test_in_lockstep_every_complete_set_is_decided_on_once_however_long_it_takes() -> None:
    robot = lockstep()
    robot.noise = 0.0  # nor is an arm timed that stays where it is
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
    is_held(robot, "time_jump", holds=0)
    robot.see(CAMERA)
    found = robot.do(robot.runtime.watch())
    assert robot.runtime.state is RUNNING
    assert found.request is not None


def test_in_lockstep_a_rejected_sample_holds_because_none_follows() -> None:
    robot = lockstep(auto_resume=True)
    robot.do(robot.runtime.receive(JOINTS, joint_state(robot.clock.time_ns, (NAN, 0.0))))
    is_held(robot, "rejected", holds=0)


def test_in_lockstep_an_episode_is_as_long_as_its_steps() -> None:
    robot = lockstep(max_episode_s=0.3)
    for _ in range(4):
        robot.see()
        request = robot.do(robot.runtime.tick()).request
        robot.clock.mono_ns += 10**11
        if request:
            robot.answer(request)
        robot.clock.time_ns += 100 * MS
    is_held(robot, "episode_over", PAUSED, holds=0)
    assert len(robot.commands) == 3


def test_in_lockstep_nothing_is_commanded_by_a_hold() -> None:
    """The robot waits. A hold's twist would be taken for that of the next decision, and every later one for the one after."""
    robot = lockstep()
    robot.see()
    robot.do(robot.runtime.tick())
    robot.do(robot.runtime.stop())
    is_held(robot, "stopped", PAUSED, holds=0)

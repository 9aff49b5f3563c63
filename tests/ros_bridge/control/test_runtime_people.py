"""Who stops a policy and who may start it again: people, other publishers, the robot itself."""

import pytest

from qtransformer_ros.control.effects import Effects
from qtransformer_ros.control.run_state import RunState
from tests.ros_bridge.hand_robot import (
    ESTOP,
    FAULT,
    HOLD,
    IDLE,
    PAUSED,
    RUNNING,
    Robot,
    is_held,
    make,
    recover,
)


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
    assert robot.runtime.reason == "inactive: deactivated, with the e-stop latched"
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


def test_what_the_estop_said_before_an_activation_counts_no_more() -> None:
    robot = make(estop_timeout_s=0.3)
    robot.run(heard=True)
    robot.do(robot.runtime.deactivate())
    robot.clock.pass_s(3600)  # its battery is empty by now
    robot.do(robot.runtime.activate())
    robot.see()
    assert "estop_unheard" in robot.do(robot.runtime.start()).refused


def test_an_estop_that_falls_silent_counts_as_pressed() -> None:
    robot = make(estop_timeout_s=0.3)
    robot.clock.pass_s(10)
    assert robot.do(robot.runtime.watch()) == Effects()  # nobody listens for it before activation
    robot.run(heard=True)
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

"""A running policy: what becomes of its actions and settings."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qtransformer.errors import ConfigError, SpecMismatchError
from qtransformer_datasets.rosbag.contract_entries import StampSource, TextRule, VectorTopic
from qtransformer_ros.arm.motion import Command, TwistMotion
from qtransformer_ros.arm.safety_limits import OutOfBounds, SafetyLimits
from qtransformer_ros.control.effects import Effects
from qtransformer_ros.control.runtime import PolicyRuntime
from qtransformer_ros.control.runtime_settings import BelowMinValue, RuntimeSettings
from tests.ros_bridge.hand_robot import (
    CAMERA,
    CONTRACT,
    FAULT,
    HOLD,
    HZ,
    IDLE,
    JOINTS,
    LIMITS,
    PAUSED,
    RUNNING,
    HandClock,
    Robot,
    is_held,
    make,
    recover,
    to_joints,
)

NAN = math.nan


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


def test_who_was_asked_about_a_low_value_answers_for_one_action_by_starting() -> None:
    robot = make(min_value=0.3, below_min_value=BelowMinValue.ask).run()
    robot.answer(robot.ask(), value=0.2)
    is_held(robot, "low_value", PAUSED)
    robot.do(robot.runtime.start())
    robot.answer(robot.ask(), value=0.2)
    assert len(robot.commands) == 1, "a person has looked, and said so"
    robot.clock.pass_s(0.08)
    robot.answer(robot.ask(), value=0.2)
    is_held(robot, "low_value", PAUSED, holds=2)
    robot.do(robot.runtime.reset())
    robot.do(robot.runtime.start())
    robot.answer(robot.ask(), value=0.2)
    assert len(robot.commands) == 1, "a reset begins another episode, about which nobody was asked"
    robot.do(robot.runtime.estop(True))
    robot.do(robot.runtime.estop(False))
    robot.do(robot.runtime.start())
    robot.answer(robot.ask(), value=0.2)
    assert len(robot.commands) == 1, "who starts after an e-stop answers that, and no question of before"


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
        build(contract=replace(CONTRACT, clock=StampSource.receive), joint_topic=JOINTS, settings={"lockstep": True})
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

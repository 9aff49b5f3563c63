"""The simulated robot behind `qtransformer-sim`: commands in, motion out; no ROS."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pybullet", reason="PyBullet has wheels for Python 3.10 and 3.11 only")
from qtransformer_ros.simulated.faults import Faults
from qtransformer_ros.simulated.lockstep import LockstepRobot
from qtransformer_ros.simulated.real_time import RealTimeRobot
from qtransformer_ros.simulated.trajectory import CommandRefused, read_trajectory
from qtransformer_sim import GraspTask, make_env
from qtransformer_sim.env import ACTION_SPEC

JOINTS = tuple(f"joint_{i + 1}" for i in range(7))
REST = np.zeros(3)


def stamp(seconds: float) -> SimpleNamespace:
    whole = int(seconds // 1)
    return SimpleNamespace(sec=whole, nanosec=round((seconds - whole) * 1e9))


def trajectory(
    positions: Any, times: Any, *, joints: Any = JOINTS, velocities: Any = None, start: float = 0.0, effort: Any = ()
) -> SimpleNamespace:
    """A message shaped like trajectory_msgs/JointTrajectory."""
    velocities = [[]] * len(positions) if velocities is None else velocities
    points = [
        SimpleNamespace(positions=p, velocities=v, accelerations=[], effort=effort, time_from_start=stamp(t))
        for p, v, t in zip(positions, velocities, times, strict=True)
    ]
    return SimpleNamespace(joint_names=list(joints), points=points, header=SimpleNamespace(stamp=stamp(start)))


def run(robot: RealTimeRobot, seconds: float) -> list[np.ndarray]:
    """Joint positions after every physics step."""
    path = []
    for _ in range(round(seconds / robot.env.bullet.sim_dt)):
        robot.advance()
        path.append(robot.joint_positions())
    return path


@pytest.fixture(scope="module")
def blind() -> Iterator[Any]:
    env = make_env(cameras={})
    yield env
    env.close()


@pytest.fixture
def robot(blind: Any) -> RealTimeRobot:
    robot = RealTimeRobot(blind)
    robot.reset(0)
    return robot


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4),
    st.sampled_from([3.0, 4.0, 7.0, 10.0, 30.0]),
)
def test_a_velocity_brings_back_the_increment_to_the_bit(scaled: list[float], hz: float) -> None:
    """What `rollout` hands to the environment is what a twist of velocities, at any rate, hands to it."""
    action = ACTION_SPEC.to_units(np.array([*scaled, 1.0, -1.0], np.float32))
    velocities = [float(a) * hz for a in action[:4]]  # as a policy sends them
    steps: list[np.ndarray] = []

    def step(action: np.ndarray) -> Any:
        steps.append(action)
        return None, 0.0, False, False, {"success": False}

    lockstep = LockstepRobot.__new__(LockstepRobot)
    lockstep.__dict__.update(
        env=SimpleNamespace(step=step, observation_spec=SimpleNamespace(control_hz=hz)),
        _heard={},
        done=False,
        paused=False,
        stopped=False,
        steps=0,
        time_ns=10**9,
        period_ns=1,
        clock_offset_ns=0,
    )
    lockstep.twist(velocities[:3], [0.0, 0.0, velocities[3]])
    lockstep.gripper([float(action[4])])
    lockstep.terminate(bool(action[5] > 0.5))
    lockstep.step()
    np.testing.assert_array_equal(steps[0], action)
    assert steps[0].dtype == action.dtype


def test_lockstep_is_the_environment_bit_for_bit(blind: Any) -> None:
    rng = np.random.default_rng(0)
    low, high = np.array(ACTION_SPEC.low, np.float32), np.array(ACTION_SPEC.high, np.float32)
    actions = [rng.uniform(low, high).astype(np.float32) * np.float32([1, 1, 1, 1, 1, 0]) for _ in range(6)]
    blind.reset(seed=5)
    expected = [blind.step(a)[0]["proprio"] for a in actions]
    robot = LockstepRobot(blind)
    assert robot.reset(5) == 5
    for action, proprio in zip(actions, expected, strict=True):
        robot.gripper([float(action[4])])
        assert robot.step() is None
        robot.terminate(False)
        assert robot.step() is None
        robot.twist([float(v) * 4.0 for v in action[:3]], [0.0, 0.0, float(action[3]) * 4.0])
        assert robot.step() is not None
        assert robot.step() is None
        np.testing.assert_array_equal(robot.observation["proprio"], proprio)
    assert robot.steps == 6


def test_lockstep_ends_an_episode_once_and_ignores_what_comes_after(blind: Any) -> None:
    robot = LockstepRobot(blind)
    robot.reset(0)

    def say(declared: bool) -> Any:
        robot.twist(REST, REST)
        robot.gripper([0.0])
        robot.terminate(declared)
        return robot.step()

    assert say(False).event == ""
    assert say(True).event == "failure"
    assert say(False) is None
    assert robot.reset(0) == 0
    assert robot.step() is None


def test_the_next_episode_is_of_the_robots_own_task() -> None:
    class Other(GraspTask):
        """Another task than the usual one."""

    env = make_env(cameras={})
    env.task = Other()
    robot = LockstepRobot(env)
    robot.reset(0, split="test", num_objects=2)
    env.close()
    assert type(env.task) is Other
    assert len(env.task.objects) == 2


def test_lockstep_refuses_what_it_cannot_do(blind: Any) -> None:
    robot = LockstepRobot(blind)
    robot.reset(0)
    for refused, why in (
        (lambda: robot.twist([np.nan, 0, 0], REST), "linear velocity: expected 3 finite numbers"),
        (lambda: robot.twist(REST, [0.1, 0, 0]), "expected no turn about x and y"),
        (lambda: robot.twist(REST, REST, stamp_ns=1), "decided before this episode"),
        (lambda: robot.gripper([np.inf]), "gripper: expected 1 finite numbers"),
        (lambda: robot.gripper([0.0, 1.0]), "gripper: expected 1 finite numbers"),
        (lambda: robot.trajectory(trajectory([[0.0] * 7], [1.0])), "in lockstep .* found a trajectory"),
        (lambda: robot.positions([0.0] * 7), "in lockstep .* found joint positions"),
        (lambda: robot.pose([0.5, 0, 0.2], [0, 0, 0, 1]), "in lockstep .* found a target pose"),
    ):
        with pytest.raises(CommandRefused, match=why):
            refused()


def test_a_trajectory_is_passed_through_and_ends_at_its_target(robot: RealTimeRobot) -> None:
    start = robot.joint_positions()
    first, last = start + 0.1, start + np.linspace(0.2, -0.2, 7)
    robot.trajectory(trajectory([first, last], [0.5, 1.0]))
    path = run(robot, 1.3)
    np.testing.assert_allclose(path[59], first, atol=0.03)
    np.testing.assert_allclose(path[29], (start + first) / 2, atol=0.03)
    np.testing.assert_allclose(path[-1], last, atol=0.002)
    assert not robot.moving


def test_joints_are_matched_by_name(robot: RealTimeRobot) -> None:
    target = robot.joint_positions() + np.linspace(0.1, 0.2, 7)
    robot.trajectory(trajectory([target[::-1]], [0.5], joints=JOINTS[::-1]))
    np.testing.assert_allclose(run(robot, 0.8)[-1], target, atol=0.002)


def test_a_stream_of_trajectories_does_not_jerk(robot: RealTimeRobot) -> None:
    """Each message preempts the one before; the arm follows the line all the same."""
    start, path = robot.joint_positions(), []
    for i in range(10):
        robot.trajectory(trajectory([start + 0.02 * (i + 1), start + 0.02 * (i + 2)], [0.1, 0.2]))
        path += run(robot, 0.1)
    steps = np.diff(np.array(path)[24:, 0])
    assert steps.min() > 0
    assert steps.max() < 2 * np.median(steps)


BAD = {
    "a joint missing": (lambda q: trajectory([q[:6]], [1.0], joints=JOINTS[:6]), "expected the joints joint_1"),
    "a joint too many": (lambda q: trajectory([[*q, 0.0]], [1.0], joints=(*JOINTS, "extra")), "expected the joints joint_1"),
    "a joint twice": (lambda q: trajectory([q], [1.0], joints=(*JOINTS[:6], "joint_1")), "expected the joints joint_1"),
    "times that stand": (lambda q: trajectory([q, q], [1.0, 1.0]), "must increase strictly"),
    "times that fall": (lambda q: trajectory([q, q], [1.0, 0.5]), "must increase strictly"),
    "a negative time": (lambda q: trajectory([q], [-0.5]), "must increase strictly"),
    "NaN": (lambda q: trajectory([[*q[:6], np.nan]], [1.0]), "positions of point 0: expected 7 finite numbers"),
    "infinity": (lambda q: trajectory([q, [np.inf, *q[1:]]], [1.0, 2.0]), "positions of point 1: expected 7 finite numbers"),
    "NaN of a velocity": (
        lambda q: trajectory([q], [1.0], velocities=[[np.nan] * 7]),
        "velocities of point 0: expected 7",
    ),
    "too few numbers": (lambda q: trajectory([q[:6]], [1.0]), "positions of point 0: expected 7 finite numbers"),
    "no positions": (lambda q: trajectory([[]], [1.0]), "positions of point 0: expected 7 finite numbers"),
    "an end in motion": (lambda q: trajectory([q], [1.0], velocities=[[0.1] * 7]), "the last point must be at rest"),
    "effort": (lambda q: trajectory([q], [1.0], effort=[1.0]), "efforts are not supported"),
    "a stamp long past": (lambda q: trajectory([q], [0.1], start=0.5), "the trajectory ended .* s ago"),
    "a stamp of another clock": (lambda q: trajectory([q], [0.1], start=1.7e9), "set use_sim_time where it is published"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_trajectory_is_refused_and_moves_nothing(robot: RealTimeRobot, what: str) -> None:
    before = robot.joint_positions()
    make, why = BAD[what]
    with pytest.raises(CommandRefused, match=why):
        robot.trajectory(make(before + 0.3))
    np.testing.assert_allclose(run(robot, 0.3)[-1], before, atol=0.002)


def test_a_late_trajectory_is_joined_under_way() -> None:
    here, target = np.zeros(7), np.ones(7)
    late = read_trajectory(trajectory([target], [1.0], start=2.0), JOINTS, here, 2_500_000_000)
    np.testing.assert_allclose(late.at(2_500_000_000), 0.5)
    np.testing.assert_allclose(late.at(9_000_000_000), 1.0)


def test_waypoints_with_velocities_are_joined_smoothly() -> None:
    """Half-way of a cubic that starts and ends at rest: the middle, at 1.5 times the mean speed."""
    cubic = read_trajectory(trajectory([np.ones(7)], [1.0], velocities=[[0.0] * 7]), JOINTS, np.zeros(7), 10**9)
    np.testing.assert_allclose(cubic.at(1_500_000_000), 0.5)
    np.testing.assert_allclose((cubic.at(1_501_000_000) - cubic.at(1_499_000_000)) / 0.002, 1.5, rtol=1e-3)
    np.testing.assert_allclose(cubic.at(1_250_000_000), 0.15625)
    through = read_trajectory(
        trajectory([np.ones(7), np.zeros(7)], [1.0, 2.0], velocities=[[-0.5] * 7, [0.0] * 7]), JOINTS, np.zeros(7), 10**9
    )
    for before, after in ((1_999_000_000, 2_000_000_000), (2_000_000_000, 2_001_000_000)):
        np.testing.assert_allclose((through.at(after) - through.at(before)) / 0.001, -0.5, atol=0.02)


def test_a_trajectory_without_points_stops(robot: RealTimeRobot) -> None:
    robot.trajectory(trajectory([robot.joint_positions() + 0.5], [2.0]))
    run(robot, 0.5)
    robot.trajectory(trajectory([], []))
    stopped = run(robot, 0.1)[-1]
    np.testing.assert_allclose(run(robot, 1.0)[-1], stopped, atol=0.01)


def test_a_long_motion_of_a_dead_commander_is_broken_off(robot: RealTimeRobot) -> None:
    robot.cmd_timeout_s = 0.3
    start = robot.joint_positions()
    robot.trajectory(trajectory([start + 1.0], [2.0]))
    np.testing.assert_allclose(run(robot, 1.5)[-1], start + 0.15, atol=0.02)


def test_a_twist_moves_the_tool_in_its_frame_and_runs_out(robot: RealTimeRobot) -> None:
    before = robot.tool_pose()
    for _ in range(5):
        robot.twist([0.1, 0.0, 0.0], REST)
        run(robot, 0.1)
    run(robot, 0.25 + 0.1 + 0.2)
    moved = robot.tool_pose().position - before.position
    along = np.array([np.cos(before.yaw), np.sin(before.yaw), 0.0])
    # 0.4 s of commands, 0.25 s until the last runs out, 0.1 s of slowing down; the arm lags a little behind.
    assert moved @ along == pytest.approx(0.07, abs=0.012)
    assert np.linalg.norm(moved - (moved @ along) * along) < 0.004
    still = robot.joint_positions()
    np.testing.assert_allclose(run(robot, 0.5)[-1], still, atol=0.001)


def test_a_twist_that_runs_out_slows_down(robot: RealTimeRobot) -> None:
    robot.twist([0.0, 0.0, -0.1], REST)
    heights = []
    for _ in range(round(0.5 * 120)):
        robot.advance()
        heights.append(robot.tool_pose().position[2])
    full = heights[18] - heights[30]  # from 0.15 to 0.25 s
    slowing = heights[30] - heights[42]  # to 0.35 s: half as far, and the arm's lag
    assert full == pytest.approx(0.01, rel=0.1)
    assert 0.4 * full < slowing < 0.8 * full


def test_a_target_pose_is_reached(robot: RealTimeRobot) -> None:
    robot.pose([0.6, 0.05, 0.1], [0.0, 0.0, np.sin(0.15), np.cos(0.15)], "base_link")
    run(robot, 2.0)
    np.testing.assert_allclose(robot.tool_pose().position, [0.6, 0.05, 0.1], atol=0.004)
    assert robot.tool_pose().yaw == pytest.approx(0.3, abs=0.02)
    assert not robot.moving


def test_a_target_pose_that_cannot_be_is_refused(robot: RealTimeRobot) -> None:
    for position, quaternion, frame, why in (
        ([0.5, 0, np.nan], [0, 0, 0, 1], "", "finite numbers"),
        ([0.5, 0, 0.2], [0, 0, 0, 0], "", "expected a unit quaternion"),
        ([0.5, 0, 0.2], [1, 0, 0, 0], "", "expected a unit quaternion"),
        ([0.5, 0, 0.2], [0, 0, 0, 1], "world", "world"),
    ):
        with pytest.raises(CommandRefused, match=why):
            robot.pose(position, quaternion, frame)


def test_joint_positions_are_gone_to(robot: RealTimeRobot) -> None:
    target = robot.joint_positions() + 0.2
    robot.positions(target)
    np.testing.assert_allclose(run(robot, 0.5)[-1], target, atol=0.002)
    with pytest.raises(CommandRefused, match="joint positions: expected 7 finite numbers"):
        robot.positions(target[:3])


def test_the_estop_freezes_and_stays(robot: RealTimeRobot) -> None:
    robot.trajectory(trajectory([robot.joint_positions() + 1.0], [1.0]))
    run(robot, 0.5)
    robot.press()
    frozen = run(robot, 0.1)[-1]
    np.testing.assert_allclose(run(robot, 0.5)[-1], frozen, atol=0.005)
    for refused in (
        lambda: robot.trajectory(trajectory([], [])),
        lambda: robot.twist(REST, REST),
        lambda: robot.gripper([1.0]),
        lambda: robot.positions(frozen),
        lambda: robot.terminate(True),
    ):
        with pytest.raises(CommandRefused, match="the e-stop is pressed"):
            refused()
    robot.reset(1)
    assert robot.stopped
    robot.release()
    still = robot.joint_positions()
    np.testing.assert_allclose(run(robot, 0.3)[-1], still, atol=0.002)
    robot.twist(REST, REST)


def test_the_estop_stops_what_the_motors_were_told(robot: RealTimeRobot) -> None:
    """A far target is one command to the motors; not to repeat it does not stop them."""
    start = robot.joint_positions()
    robot.positions(start + 0.5)
    run(robot, 0.05)
    robot.press()
    assert np.abs(run(robot, 0.5)[-1] - start).max() < 0.3


def test_in_real_time_an_episode_ends_as_it_would_in_lockstep(robot: RealTimeRobot) -> None:
    robot.terminate(True)
    results = [r for _ in range(60) if (r := robot.advance())]
    assert [r.event for r in results] == ["failure"]
    robot.reset(0)
    results = [r for _ in range(7 * 120) if (r := robot.advance())]
    assert len(results) == 24
    assert results[-1].event == "timeout"


def test_a_close_on_nothing_costs_one_attempt_and_not_before_the_fingers_met(robot: RealTimeRobot) -> None:
    run(robot, 0.2)
    robot.gripper([1.0])
    run(robot, 0.2)
    assert robot.tool_state()["attempts_left"] == 3
    run(robot, 0.1)
    assert robot.tool_state()["attempts_left"] == 2
    assert robot.tool_state()["gripper_closed"] == 1
    assert robot.tool_state()["gripper_width"] < 0.01


def test_time_goes_on_over_a_reset(robot: RealTimeRobot) -> None:
    run(robot, 0.1)
    before = robot.time_ns
    robot.reset(0)
    assert robot.time_ns == before + 250_000_000
    run(robot, 1.0)
    assert robot.time_ns == before + 1_250_000_000


def test_faults_damage_what_they_say() -> None:
    faults, q = Faults(), np.arange(7.0)
    assert faults.joints(JOINTS, q) == (list(JOINTS), q.tolist())
    names, values = faults.joints(JOINTS, q, shuffle=True)
    assert dict(zip(names, values, strict=True)) == dict(zip(JOINTS, q, strict=True))
    assert names != list(JOINTS)
    _, values = faults.joints(JOINTS, q, nan="joint_3")
    assert np.isnan(values).tolist() == [i == 2 for i in range(7)]
    noise = [faults.joints(JOINTS, q, noise=0.1)[1][0] for _ in range(500)]
    assert np.std(noise) == pytest.approx(0.1, rel=0.1)
    old, new = np.zeros((1, 1, 3), np.uint8), np.ones((1, 1, 3), np.uint8)
    assert faults.image("wrist", 1, old) == (1, old)
    assert faults.image("wrist", 2, new, freeze=True) == (1, old)
    assert faults.image("wrist", 3, new, stick=True) == (3, old)
    assert faults.image("wrist", 4, new) == (4, new)
    assert np.mean([faults.drops(0.25) for _ in range(2000)]) == pytest.approx(0.25, abs=0.04)

"""Whatever a policy says, what leaves the filter is finite and within every limit, seen from where the arm is."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtransformer.errors import ConfigError
from qtransformer_ros.arm.motion import Command, JointMotion, PoseMotion, TwistMotion
from qtransformer_ros.arm.rotation import rotate, to_vector
from qtransformer_ros.arm.safety import Measured, Refusal, SafeCommand, joint_bounds, restrict
from qtransformer_ros.arm.safety_limits import JointRange, OutOfBounds, SafetyLimits, intersected, limited_joints, loosened

PERIOD = 0.25
JOINTS = {"a": JointRange(low=-1.0, high=1.0, velocity=2.0), "b": JointRange(low=-3.0, high=3.0, velocity=0.5)}
LIMITS = SafetyLimits(joints=JOINTS, max_step_rad=0.4, max_step_m=0.05, max_joint_accel=4.0)
BOX = SafetyLimits(workspace_min=(0.0, 0.0, 0.0), workspace_max=(1.0, 1.0, 1.0), max_step_m=0.05, max_step_rad=0.2)
UPRIGHT = np.array([0.0, 0.0, 0.0, 1.0])
TURNED = np.array([0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5)])
"""A quarter turn about z: the tool's x is the base's y."""
MIDDLE = Measured(joints={"a": 0.0, "b": 0.0}, position=np.full(3, 0.5), orientation=UPRIGHT)


def joints(*points: tuple[float, float], times: tuple[float, ...] = (), names: tuple[str, ...] = ("a", "b")) -> Command:
    times = times or tuple(PERIOD * (i + 1) for i in range(len(points)))
    return Command(motion=JointMotion(joints=names, positions=np.array(points), times_s=times))


def twist(linear: tuple[float, ...] = (0, 0, 0), angular: tuple[float, ...] = (0, 0, 0)) -> Command:
    return Command(motion=TwistMotion(linear=np.array(linear, float), angular=np.array(angular, float)))


def pose(position: tuple[float, ...], orientation: np.ndarray = UPRIGHT) -> Command:
    return Command(motion=PoseMotion(position=np.array(position, float), orientation=orientation))


def allowed(command: Command, limits: SafetyLimits = LIMITS, measured: Measured = MIDDLE) -> SafeCommand:
    found = restrict(command, limits, measured, PERIOD)
    assert isinstance(found, SafeCommand), found
    return found


def refused(command: Command, limits: SafetyLimits = LIMITS, measured: Measured = MIDDLE) -> Refusal:
    found = restrict(command, limits, measured, PERIOD)
    assert isinstance(found, Refusal)
    return found


def test_of_a_models_limits_and_ones_own_the_narrower_count() -> None:
    model = {"a": JointRange(low=-3, high=3, velocity=3, prismatic=True), "b": JointRange(low=-1, high=1, velocity=1)}
    own = {"a": JointRange(low=-0.5, high=4, velocity=0.2), "c": JointRange(low=0, high=1, velocity=1)}
    found = intersected(model, own)
    assert found == {"a": JointRange(low=-0.5, high=3, velocity=0.2, prismatic=True), "b": model["b"], "c": own["c"]}
    with pytest.raises(ConfigError, match=r"joint b: the model allows \[-1, 1\], the parameters \[2, 3\]"):
        intersected(model, {"b": JointRange(low=2, high=3, velocity=1)})


def test_what_is_within_all_limits_passes_unchanged() -> None:
    found = allowed(joints((0.2, -0.1)))
    assert found.clamps == ()
    assert found.command.motion.positions.tolist() == [[0.2, -0.1]]
    assert found.velocities == {"a": pytest.approx(0.8), "b": pytest.approx(-0.4)}


@pytest.mark.parametrize(
    ("limits", "measured", "wanted", "given", "kinds"),
    [
        (LIMITS, {"a": 0.9}, 1.1, 1.0, ["position"]),
        (replace(LIMITS, max_joint_accel=math.inf), {"a": 0.0}, 0.9, 0.4, ["step"]),
        # 4 rad/s^2 for a quarter of a second is 1 rad/s, and that for a quarter of a second 0.25 rad
        (LIMITS, {"a": 0.0}, 0.35, 0.25, ["acceleration"]),
        (replace(LIMITS, max_step_rad=9.0, max_joint_accel=math.inf), {"a": 0.0}, 0.9, 0.5, ["velocity"]),
        (LIMITS, {"a": -5.0}, 0.0, -4.75, ["step", "acceleration"]),  # outside: inwards, one step
        (LIMITS, {"a": -5.0}, -5.1, -5.0, ["position"]),  # outside: no further out
        (LIMITS, {"a": -5.0}, -5.0, -5.0, []),  # outside, and told to stay
    ],
)
def test_joint_clamps_by_hand(limits: SafetyLimits, measured: dict, wanted: float, given: float, kinds: list[str]) -> None:
    found = allowed(joints((wanted,), names=("a",)), limits, Measured(joints=measured))
    assert found.command.motion.positions[0, 0] == pytest.approx(given, abs=1e-12)
    assert [clamp.kind for clamp in found.clamps] == kinds


def test_a_chunk_is_followed_point_by_point() -> None:
    free = replace(LIMITS, max_joint_accel=math.inf)
    found = allowed(joints((0.1, 0.3), (0.9, 0.3)), free)
    # b may go 0.5 rad/s: 0.125 per point; a 0.4 rad per point
    assert found.command.motion.positions == pytest.approx(np.array([[0.1, 0.125], [0.5, 0.25]]))


def test_points_within_one_period_go_no_further_than_a_step_together() -> None:
    free = replace(LIMITS, max_joint_accel=math.inf)
    fine = tuple(PERIOD * (i + 1) / 10 for i in range(10))
    found = allowed(joints(*[(0.9,)] * 10, times=fine, names=("a",)), free)
    # a may go 2 rad/s: 0.05 per point, and 0.4 in the period
    assert found.command.motion.positions[:, 0] == pytest.approx(np.minimum(0.05 * np.arange(1, 11), 0.4))


def test_a_point_later_in_time_may_be_further_away() -> None:
    free = replace(LIMITS, max_joint_accel=math.inf)
    found = allowed(joints((0.9,), times=(2 * PERIOD,), names=("a",)), free)
    assert found.command.motion.positions[0, 0] == pytest.approx(0.8)


def test_speed_builds_up_over_commands_and_starts_from_rest_after_a_hold() -> None:
    limits = replace(LIMITS, max_joint_accel=1.0)
    wanted = joints((0.5,), names=("a",))
    first = allowed(wanted, limits, Measured(joints={"a": 0.0}))
    assert first.command.motion.positions[0, 0] == pytest.approx(0.0625)
    second = allowed(wanted, limits, Measured(joints={"a": 0.0625}, commanded_velocities=first.velocities))
    assert second.command.motion.positions[0, 0] == pytest.approx(0.0625 + 0.125)
    rested = allowed(wanted, limits, Measured(joints={"a": 0.0625}))
    assert rested.command.motion.positions[0, 0] == pytest.approx(0.125)


def test_slowing_down_is_never_delayed() -> None:
    limits = replace(LIMITS, max_joint_accel=0.1)
    found = allowed(joints((0.3,), names=("a",)), limits, Measured(joints={"a": 0.3}, commanded_velocities={"a": 2.0}))
    assert found.command.motion.positions[0, 0] == 0.3
    assert found.clamps == ()


def test_speed_after_a_chunk_is_that_of_the_segment_under_way() -> None:
    command = joints((0.05,), (0.15,), (0.2,), times=(PERIOD / 2, PERIOD, 2 * PERIOD), names=("a",))
    assert allowed(command).velocities["a"] == pytest.approx(0.1 / (PERIOD / 2))


def test_a_prismatic_joint_steps_in_metres() -> None:
    rail = SafetyLimits(joints={"rail": JointRange(low=0, high=2, velocity=9, prismatic=True)}, max_step_m=0.03, max_step_rad=1.0)
    found = allowed(joints((1.0,), names=("rail",)), rail, Measured(joints={"rail": 0.5}))
    assert found.command.motion.positions[0, 0] == pytest.approx(0.53)


def test_a_twist_is_shortened_and_keeps_its_direction() -> None:
    found = allowed(twist((0.3, 0.4, 0.0), (0.0, 0.0, -4.0)), BOX)
    assert found.command.motion.linear == pytest.approx(np.array([0.12, 0.16, 0.0]))  # 0.05 m in 0.25 s
    assert found.command.motion.angular == pytest.approx(np.array([0.0, 0.0, -0.8]))  # 0.2 rad in 0.25 s
    assert [(c.kind, c.what) for c in found.clamps] == [("step", "linear"), ("step", "angular")]


def test_a_twist_ends_at_the_wall_in_the_base_frame() -> None:
    near = replace(MIDDLE, position=np.array([0.5, 0.99, 0.5]), orientation=TURNED)
    found = allowed(twist((0.16, 0.0, 0.12)), BOX, near)  # 0.04 m along the base's y, 0.03 m up
    assert found.command.motion.linear == pytest.approx(np.array([0.04, 0.0, 0.12]))
    assert [(c.kind, c.what) for c in found.clamps] == [("workspace", "y")]
    assert "workspace limit of y" in refused(twist((0.16, 0, 0.12)), replace(BOX, out_of_bounds=OutOfBounds.hold), near).reason


def test_a_tool_outside_the_workspace_may_come_back_and_nothing_else() -> None:
    outside = replace(MIDDLE, position=np.array([1.2, 0.5, 0.5]))
    assert allowed(twist((0.1, 0.1, 0.0)), BOX, outside).command.motion.linear == pytest.approx(np.array([0.0, 0.1, 0.0]))
    assert allowed(twist((-0.1, 0.0, 0.0)), BOX, outside).command.motion.linear == pytest.approx(np.array([-0.1, 0.0, 0.0]))


def test_a_pose_is_approached_by_one_step() -> None:
    found = allowed(pose((0.8, 0.9, 0.5), TURNED), BOX)
    assert found.command.motion.position == pytest.approx(np.array([0.53, 0.54, 0.5]))
    angle = 2 * math.acos(found.command.motion.orientation @ UPRIGHT)
    assert angle == pytest.approx(0.2)
    assert found.command.motion.orientation == pytest.approx(np.array([0, 0, math.sin(0.1), math.cos(0.1)]))


@pytest.mark.parametrize(("wanted", "given"), [(0.19, 0.19), (0.3, 0.2), (3.1, 0.2), (-0.3, -0.2)])
def test_a_turn_is_cut_to_its_step(wanted: float, given: float) -> None:
    found = allowed(pose((0.5, 0.5, 0.5), np.array([0, 0, math.sin(wanted / 2), math.cos(wanted / 2)])), BOX)
    assert found.command.motion.orientation == pytest.approx(np.array([0, 0, math.sin(given / 2), math.cos(given / 2)]))


def test_a_pose_outside_the_workspace_ends_at_its_wall() -> None:
    found = allowed(pose((0.5, 0.5, -1.0)), BOX, replace(MIDDLE, position=np.array([0.5, 0.5, 0.01])))
    assert found.command.motion.position == pytest.approx(np.array([0.5, 0.5, 0.0]))


def test_a_quaternion_and_its_negative_are_one_rotation() -> None:
    found = allowed(pose((0.5, 0.5, 0.5), -UPRIGHT), BOX)
    assert found.clamps == ()
    assert to_vector(found.command.motion.orientation) == pytest.approx(np.zeros(3))


NOT_NUMBERS = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("bad", NOT_NUMBERS)
def test_what_is_not_finite_is_refused_wherever_it_stands(bad: float) -> None:
    assert refused(joints((0.1, bad))).not_finite
    assert refused(joints((0.1, 0.1), times=(bad,))).not_finite
    assert refused(twist((0, 0, bad)), BOX).not_finite
    assert refused(twist(angular=(0, bad, 0)), BOX).not_finite
    assert refused(pose((0.5, bad, 0.5)), BOX).not_finite
    assert refused(pose((0.5, 0.5, 0.5), np.array([bad, 0, 0, 1])), BOX).not_finite
    assert refused(replace(twist(), switches={"gripper": np.array([bad])}), BOX).not_finite


@pytest.mark.parametrize("bad", NOT_NUMBERS)
def test_a_measured_state_that_is_not_finite_bounds_nothing_and_is_refused(bad: float) -> None:
    position = refused(joints((0.1, 0.1)), measured=replace(MIDDLE, joints={"a": bad, "b": 0.0}))
    assert not position.not_finite
    assert position.reason == f"the measured position of joint a is {bad}"
    velocity = refused(joints((0.1, 0.1)), measured=replace(MIDDLE, commanded_velocities={"a": bad}))
    assert velocity.reason == f"the velocity last commanded to joint a is {bad}"
    refused(twist(), BOX, replace(MIDDLE, position=np.array([0.5, bad, 0.5])))
    refused(twist(), BOX, replace(MIDDLE, orientation=np.array([bad, 0, 0, 1])))


def test_what_cannot_be_bounded_is_refused() -> None:
    assert "no limits" in refused(joints((0.1,), names=("c",))).reason
    assert "not measured" in refused(joints((0.1, 0.1)), measured=Measured(joints={"a": 0.0})).reason
    assert "not measured" in refused(twist(), BOX, Measured()).reason
    assert "not measured" in refused(pose((0.5, 0.5, 0.5)), SafetyLimits(), Measured()).reason
    assert "increase" in refused(joints((0.1, 0.1), (0.1, 0.1), times=(0.2, 0.2))).reason
    assert "increase" in refused(joints((0.1, 0.1), times=(0.0,))).reason
    assert "twice" in refused(joints((0.1, 0.1), names=("a", "a"))).reason
    assert "at least one" in refused(Command(motion=JointMotion(joints=("a",), positions=np.zeros((0, 1)), times_s=()))).reason
    assert "length" in refused(pose((0.5, 0.5, 0.5), np.zeros(4)), BOX).reason
    assert "3 numbers" in refused(twist((0.0, 0.0)), BOX).reason
    assert "unit" in refused(twist(), BOX, replace(MIDDLE, orientation=np.full(4, 0.4))).reason


def test_a_twist_needs_no_measured_pose_where_no_workspace_is_set() -> None:
    assert allowed(twist((0.1, 0, 0)), SafetyLimits(), Measured()).clamps == ()


def test_joints_stand_still_once_the_tool_left_the_workspace() -> None:
    limits = replace(LIMITS, workspace_min=BOX.workspace_min, workspace_max=BOX.workspace_max)
    allowed(joints((0.1, 0.1)), limits)
    assert "outside" in refused(joints((0.1, 0.1)), limits, replace(MIDDLE, position=np.array([0.5, 0.5, -0.1]))).reason


def test_out_of_bounds_hold_refuses_only_what_leaves_the_bounds() -> None:
    strict = replace(LIMITS, out_of_bounds=OutOfBounds.hold)
    assert "position limit of a" in refused(joints((1.1, 0.0)), strict, replace(MIDDLE, joints={"a": 0.9, "b": 0.0})).reason
    assert [c.kind for c in allowed(joints((0.9, 0.0)), strict).clamps] == ["step", "acceleration"]


def test_limits_are_narrowed_and_slowed() -> None:
    ranges = {**JOINTS, "rail": JointRange(low=0, high=0.08, velocity=1, prismatic=True), "spin": JointRange(velocity=3)}
    found = limited_joints(ranges, ["spin", "rail", "a"], margin_rad=0.1, velocity_scale=0.5)
    assert list(found) == ["spin", "rail", "a"]
    assert found["a"] == JointRange(low=-0.9, high=0.9, velocity=1.0)
    assert (found["rail"].low, found["rail"].high) == (0, 0.08)
    assert found["spin"].high == math.inf
    with pytest.raises(ConfigError, match="joints c have no limits"):
        limited_joints(ranges, ["a", "c"])
    with pytest.raises(ConfigError, match="leaves nothing"):
        limited_joints(ranges, ["a"], margin_rad=1.0)
    with pytest.raises(ConfigError, match="velocity_scale"):
        limited_joints(ranges, ["a"], velocity_scale=1.5)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_limits_that_limit_nothing_are_refused(bad: float) -> None:
    for name in ("max_step_m", "max_step_rad", "max_joint_accel"):
        with pytest.raises(ConfigError, match=name):
            SafetyLimits(**{name: bad})
    with pytest.raises(ConfigError, match="velocity"):
        JointRange(low=0, high=1, velocity=bad)
    with pytest.raises(ConfigError, match="low < high"):
        JointRange(low=0, high=bad, velocity=1)
    with pytest.raises(ConfigError, match="workspace"):
        SafetyLimits(workspace_min=(0, 0, 0), workspace_max=(1, bad, 1))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"max_step_m": 0.06}, "max_step_m"),
        ({"max_joint_accel": math.inf}, "max_joint_accel"),
        ({"workspace_min": (-0.1, 0, 0)}, "workspace_min"),
        ({"workspace_max": (1, 1, math.inf)}, "workspace_max"),
        ({"joints": {**JOINTS, "c": JOINTS["a"]}}, "limits of joint c"),
        ({"joints": {**JOINTS, "a": replace(JOINTS["a"], velocity=2.1)}}, "limits of joint a"),
        ({"joints": {**JOINTS, "a": replace(JOINTS["a"], low=-1.1)}}, "limits of joint a"),
        ({"joints": {**JOINTS, "a": replace(JOINTS["a"], high=1.1)}}, "limits of joint a"),
        ({"joints": {**JOINTS, "a": replace(JOINTS["a"], prismatic=True)}}, "kind of joint a"),
    ],
)
def test_loosening_is_seen_and_its_reverse_is_not(change: dict, name: str) -> None:
    old = replace(LIMITS, workspace_min=(0, 0, 0), workspace_max=(1, 1, 1))
    new = replace(old, **change)
    assert loosened(old, new) == (name,)
    assert not loosened(old, old)
    assert not loosened(new, old) or "prismatic" in str(change)


def test_clamping_where_it_held_is_looser() -> None:
    assert loosened(replace(LIMITS, out_of_bounds=OutOfBounds.hold), LIMITS) == ("out_of_bounds",)


# Properties

ANY = st.floats(allow_nan=True, allow_infinity=True, width=64)
NUMBER = st.one_of(st.floats(-4, 4), ANY)
SMALL = st.floats(-3, 3)
SLACK = 1 + 1e-9


@given(
    st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=4),
    st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4),
    st.tuples(SMALL, SMALL),
    st.tuples(SMALL, SMALL),
)
def test_every_joint_motion_is_finite_and_within_all_limits(
    points: list[tuple[float, float]], gaps: list[float], here: tuple[float, float], speed: tuple[float, float]
) -> None:
    times = tuple(np.cumsum(gaps[: len(points)]).tolist())
    measured = Measured(joints=dict(zip("ab", here, strict=True)), commanded_velocities=dict(zip("ab", speed, strict=True)))
    found = restrict(joints(*points, times=times), LIMITS, measured, PERIOD)
    assert isinstance(found, SafeCommand) == bool(np.isfinite(points).all())
    if isinstance(found, Refusal):
        assert found.not_finite
        return
    path = np.vstack([here, found.command.motion.positions])
    after = np.diff([0.0, *times])
    assert np.isfinite(path).all()
    for j, name in enumerate("ab"):
        own, way = JOINTS[name], np.diff(path[:, j])
        assert (path[:, j] >= min(own.low, here[j]) - 1e-12).all()
        assert (path[:, j] <= max(own.high, here[j]) + 1e-12).all()
        assert (np.abs(way) <= LIMITS.max_step_rad * np.maximum(1, after / PERIOD) * SLACK + 1e-12).all()
        gone = np.abs(path[1:, j] - here[j])
        assert (gone <= LIMITS.max_step_rad * np.maximum(1, np.array(times) / PERIOD) * SLACK + 1e-12).all()
        velocity = way / after
        assert (np.abs(velocity) <= own.velocity * SLACK + 1e-12).all()
        before = np.array([speed[j], *velocity[:-1]])
        gained = np.where(velocity * before > 0, np.abs(velocity) - np.abs(before), np.abs(velocity))
        assert (gained <= LIMITS.max_joint_accel * after + 1e-9).all()


@given(
    st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=4),
    st.lists(st.floats(1e-3, 1.0), min_size=4, max_size=4),
    SMALL,
    SMALL,
    st.sampled_from([0.1, 4.0, math.inf]),
    st.booleans(),
)
def test_every_bound_of_a_joint_holds_the_previous_position_so_that_clamping_to_all_ends_within_all(
    targets: list[float], gaps: list[float], start: float, velocity: float, accel: float, prismatic: bool
) -> None:
    joint, limits = replace(JOINTS["a"], prismatic=prismatic), replace(LIMITS, max_joint_accel=accel)
    previous, time = start, 0.0
    for target, dt in zip(targets, gaps, strict=False):
        time += dt
        bounds = joint_bounds(joint, limits, start, previous, velocity, time=time, dt=dt, period_s=PERIOD)
        assert all(low <= previous <= high for _, low, high in bounds)
        for order in (bounds, bounds[::-1]):
            given = target
            for _, low, high in order:
                given = min(max(given, low), high)
            assert all(low <= given <= high for _, low, high in bounds)
        velocity, previous = (given - previous) / dt, given


@given(st.lists(NUMBER, min_size=6, max_size=6), st.tuples(SMALL, SMALL, SMALL), st.tuples(SMALL, SMALL, SMALL, SMALL))
def test_every_twist_is_finite_short_and_ends_in_the_workspace(
    numbers: list[float], here: tuple[float, float, float], quaternion: tuple[float, ...]
) -> None:
    size = math.hypot(*quaternion)
    orientation = np.array(quaternion) / size if size > 1e-3 else UPRIGHT
    measured = Measured(position=np.array(here), orientation=orientation)
    found = restrict(twist(tuple(numbers[:3]), tuple(numbers[3:])), BOX, measured, PERIOD)
    if isinstance(found, Refusal):
        assert not np.isfinite(numbers).all() or np.abs(numbers).max() > 1e150
        return
    motion = found.command.motion
    assert np.isfinite([motion.linear, motion.angular]).all()
    assert np.linalg.norm(motion.linear) * PERIOD <= BOX.max_step_m * SLACK
    assert np.linalg.norm(motion.angular) * PERIOD <= BOX.max_step_rad * SLACK
    end = here + rotate(orientation, motion.linear) * PERIOD
    assert (end >= np.minimum(here, BOX.workspace_min) - 1e-9).all()
    assert (end <= np.maximum(here, BOX.workspace_max) + 1e-9).all()


@given(st.lists(NUMBER, min_size=7, max_size=7), st.tuples(SMALL, SMALL, SMALL))
def test_every_pose_is_finite_near_and_in_the_workspace(numbers: list[float], here: tuple[float, float, float]) -> None:
    measured = Measured(position=np.array(here), orientation=TURNED)
    found = restrict(pose(tuple(numbers[:3]), np.array(numbers[3:])), BOX, measured, PERIOD)
    if isinstance(found, Refusal):
        return
    motion = found.command.motion
    assert np.isfinite([*motion.position, *motion.orientation]).all()
    assert np.linalg.norm(motion.position - here) <= BOX.max_step_m * SLACK
    assert (motion.position >= np.minimum(here, BOX.workspace_min) - 1e-9).all()
    assert (motion.position <= np.maximum(here, BOX.workspace_max) + 1e-9).all()
    assert np.linalg.norm(motion.orientation) == pytest.approx(1)
    assert 2 * math.acos(min(1.0, abs(float(motion.orientation @ TURNED)))) <= BOX.max_step_rad + 1e-6

"""The arm moves like one: bounded speed, straight increments in the gripper's frame, nothing stored up when blocked."""

import itertools
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pybullet")
from qtransformer_sim import CartesianController, GripperPose, Workspace
from qtransformer_sim.controller import MAX_LEAD
from qtransformer_sim.studio import Studio

JOINT_SPEED_LIMIT = 3.0
"""[rad/s]: the controller's limit and a little for the solver."""


def test_no_teleport_between_substeps(each_arm, act):
    env = each_arm
    env.reset(seed=0)
    joints = [env.arm.joint_positions()]
    original = env.bullet.stepSimulation

    def step_and_record():
        original()
        joints.append(env.arm.joint_positions())

    env.bullet.stepSimulation = step_and_record
    try:
        for action in (act(dz=-0.07, dx=0.05), act(dyaw=0.5, dy=-0.05), act(gripper=1), act(gripper=1, dz=0.07, dyaw=-0.5)):
            env.step(action)
    finally:
        env.bullet.stepSimulation = original
    speeds = np.abs(np.diff(joints, axis=0)) / env.bullet.sim_dt
    assert len(joints) == 1 + 4 * 30
    assert speeds.max() < JOINT_SPEED_LIMIT


def test_increments_are_in_the_gripper_frame(each_arm, act):
    env = each_arm
    env.reset(seed=0)
    env.step(act(dyaw=0.4))
    before = env.arm.gripper_pose()
    env.step(act(dx=0.03))
    moved = env.arm.gripper_pose().position - before.position
    expected = 0.03 * np.array([np.cos(before.yaw), np.sin(before.yaw), 0.0])
    np.testing.assert_allclose(moved, expected, atol=0.003)


def test_the_arm_holds_still_while_the_fingers_move(each_arm, act):
    env = each_arm
    env.reset(seed=0)
    before = env.arm.gripper_pose().position
    env.step(act(dx=0.05, dz=-0.07, gripper=1))
    np.testing.assert_allclose(env.arm.gripper_pose().position, before, atol=0.003)


def test_a_start_pose_is_reached(each_arm):
    env = each_arm
    env.reset(seed=0)
    target = GripperPose(np.array([0.5, 0.08, 0.15]), 0.7)
    env.arm.reset(target)
    measured = env.arm.gripper_pose()
    np.testing.assert_allclose(measured.position, target.position, atol=0.001)
    assert measured.yaw == pytest.approx(target.yaw, abs=0.005)


def test_every_corner_of_the_workspace_is_within_the_joints_limits(each_arm):
    each_arm.reset(seed=0)
    arm, bullet = each_arm.arm, each_arm.bullet
    infos = [bullet.getJointInfo(arm.body, j) for j in range(bullet.getNumJoints(arm.body))]
    limits = {info[1].decode(): info[8:10] for info in infos}
    low, high = np.transpose([limits[name] for name in arm.model.joints])
    box = arm.model.workspace
    for *corner, yaw in itertools.product(*zip(box.low, box.high, strict=True), (-box.max_yaw, 0.0, box.max_yaw)):
        joints = arm.solve_ik(GripperPose(np.array(corner), yaw))
        assert (joints > low).all(), corner
        assert (joints < high).all(), corner


def test_the_gripper_closes_on_nothing_within_a_control_step(each_arm, act):
    each_arm.reset(seed=0)
    assert each_arm.arm.gripper_width() > 0.075
    each_arm.step(act(gripper=1))
    assert each_arm.arm.gripper_width() < 0.01
    assert each_arm.task.attempts_left == 2


def test_the_stand_in_is_cheap_and_has_the_same_links(each_arm):
    """Small meshes only (the originals take megabytes); the joints, by whose names everything is found, are the same."""
    each_arm.reset(seed=0)
    arm, bullet = each_arm.arm, each_arm.bullet
    studio = Studio()
    studio.build(arm, [], arm.model.workspace)
    joints = [
        [world.getJointInfo(body, j)[1] for j in range(world.getNumJoints(body))]
        for world, body in ((bullet, arm.body), (studio.bullet, studio._arm))
    ]
    studio.close()
    assert joints[0] == joints[1]
    meshes = {shape[4].decode() for shape in bullet.getVisualShapeData(arm.body)} - {""}
    assert meshes
    for mesh in meshes:
        assert Path(mesh).stat().st_size < 50_000, mesh


def test_the_wrist_camera_sees_between_the_fingertips(each_arm):
    each_arm.reset(seed=0)
    frame = each_arm.arm.gripper_to_base()
    eye, tips = (frame @ [*point, 1.0] for point in (each_arm.arm.model.camera("wrist").position, (0.0, 0.0, 0.015)))
    body = each_arm.bullet.rayTest(eye[:3].tolist(), tips[:3].tolist())[0][0]
    assert body != each_arm.arm.body


@pytest.fixture
def controller():
    workspace = Workspace((0.4, -0.1, 0.0), (0.7, 0.1, 0.3), max_yaw=1.0)
    return CartesianController(workspace, lambda pose: np.array([*pose.position, pose.yaw]), 0.25)


def test_commands_never_leave_the_workspace(controller):
    pose = GripperPose(np.array([0.68, 0.0, 0.01]), 0.9)
    command = controller.command(np.array([0.05, 0.05, -0.07, 0.5]), pose, np.zeros(4))
    assert controller.workspace.contains(command.positions[:3])
    assert command.positions[2] == 0.0
    assert command.positions[3] == 1.0


def test_a_blocked_arm_stores_up_no_motion(controller):
    blocked = GripperPose(np.array([0.55, 0.0, 0.2]), 0.0)
    for _ in range(10):
        controller.command(np.array([0.0, 0.0, -0.05, 0.0]), blocked, np.zeros(4))
    assert blocked.position[2] - controller.commanded.position[2] <= 0.05 + MAX_LEAD + 1e-9


def test_speeds_let_all_joints_arrive_together(controller):
    pose = GripperPose(np.array([0.55, 0.0, 0.2]), 0.0)
    joints = np.array([*pose.position, 0.0])
    command = controller.command(np.array([0.04, 0.02, -0.06, 0.2]), pose, joints)
    np.testing.assert_allclose(np.abs(command.positions - joints) / command.speeds, 0.8 * 0.25, rtol=1e-6)

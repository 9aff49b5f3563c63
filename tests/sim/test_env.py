"""The environment's contract: spaces, specs, what ends an episode, and what it costs."""

import warnings

import numpy as np
import pytest

pytest.importorskip("pybullet")
from gymnasium.utils.env_checker import check_env

from qtransformer.errors import ConfigError, QTransformerError
from qtransformer_sim import GraspEnv, make_env
from qtransformer_sim import env as env_module


def descend_and_miss(env, act):
    """Close high above everything, then open: one attempt is gone."""
    env.step(act(gripper=1))
    return env.step(act())


def test_gymnasium_finds_nothing_to_complain_about():
    env = make_env(cameras={"wrist": (16, 16)})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env)
    env.close()
    # The one remark that is left: render modes can only be compared for environments registered by name.
    assert [str(w.message) for w in caught if "not having a spec" not in str(w.message)] == []


@pytest.mark.parametrize(("asked", "told"), [(7.0, "6.66667 or 7.05882"), (80.0, "60 or 120"), (200.0, "120")])
def test_a_rate_that_physics_cannot_keep_is_refused_with_the_nearest(asked: float, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"divide physics_hz=120, found {asked:g}.*; choose control_hz={told}, or physics_hz="):
        make_env(control_hz=asked)


def test_a_control_step_lasts_as_long_as_its_rate_says(act, monkeypatch) -> None:
    for rate, physics in ((6.66667, 120.0), (7.0, 119.0), (120.0, 120.0)):
        env = make_env(control_hz=rate, physics_hz=physics, cameras={})
        env.reset(seed=0)
        taken = []
        monkeypatch.setattr(env.bullet, "stepSimulation", lambda env=env, taken=taken: taken.append(env.bullet.sim_dt))
        env.step(act())
        assert sum(taken) == pytest.approx(1 / rate, rel=1e-5)
        env.close()


def test_observations_match_the_spec(env):
    observation, info = env.reset(seed=1)
    spec = env.observation_spec
    assert observation["proprio"].shape == (len(spec.proprio_names),) == (len(spec.proprio_units),)
    assert observation["proprio"].dtype == np.float32
    assert {name: image.shape for name, image in observation["images"].items()} == dict(spec.cameras)
    assert observation["images"]["wrist"].dtype == np.uint8
    assert observation["instruction"] == "pick up any object"
    assert info == {"success": False, "seed": 1, "reason": ""}
    assert env.observation_space.contains(observation)


def test_action_space_is_the_spec_in_robot_units(env):
    assert env.action_spec.names == ("dx", "dy", "dz", "dyaw", "gripper", "terminate")
    assert env.action_spec.discrete == (0, 0, 0, 0, 2, 2)
    np.testing.assert_allclose(env.action_space.low, env.action_spec.low)
    np.testing.assert_allclose(env.action_space.high, env.action_spec.high)


def test_proprio_says_what_it_says(env, act):
    observation, _ = env.reset(seed=2)
    named = dict(zip(env.observation_spec.proprio_names, observation["proprio"], strict=True))
    pose = env.arm.gripper_pose()
    assert named["gripper_z"] == pytest.approx(pose.position[2], abs=1e-6)
    assert named["gripper_sin_yaw"] == pytest.approx(np.sin(pose.yaw), abs=1e-6)
    assert named["gripper_width"] > 0.1
    assert (named["gripper_closed"], named["attempts_left"]) == (0.0, 3.0)
    observation, *_ = env.step(act(gripper=1))
    named = dict(zip(env.observation_spec.proprio_names, observation["proprio"], strict=True))
    assert (named["gripper_closed"], named["attempts_left"]) == (1.0, 2.0)
    assert named["gripper_width"] < 0.02


def test_any_cameras_at_any_size():
    env = GraspEnv(cameras={"wrist": (20, 36), "front": (48, 32)})
    observation, _ = env.reset(seed=0)
    assert observation["images"]["wrist"].shape == (20, 36, 3)
    assert observation["images"]["front"].shape == (48, 32, 3)
    env.close()


def test_one_render_per_step_and_camera(monkeypatch, act):
    env = make_env(cameras={"wrist": (8, 8), "front": (8, 8)})
    renders = []
    original = env_module.render
    monkeypatch.setattr(env_module, "render", lambda *args, **kw: renders.append(args[1]) or original(*args, **kw))
    env.reset(seed=0)
    assert len(renders) == 2
    env.step(act(dz=-0.02))
    assert len(renders) == 4
    env.close()


def test_video_frames_do_not_disturb_the_episode(env, act):
    def rollout(film):
        env.reset(seed=6)
        frames = [env.render() for _ in range(film)]
        last = [env.step(act(dz=-0.05, dx=0.01))[0] for _ in range(3)][-1]
        return last, frames

    filmed, frames = rollout(film=1)
    plain, _ = rollout(film=0)
    assert frames[0].shape == (240, 320, 3)
    assert frames[0].dtype == np.uint8
    np.testing.assert_array_equal(filmed["images"]["wrist"], plain["images"]["wrist"])
    np.testing.assert_array_equal(filmed["proprio"], plain["proprio"])


def test_objects_are_in_the_wrist_camera_s_view(env):
    """A pale grey table and grey fingers: whatever is saturated is an object."""
    seen = 0
    for seed in range(10):
        image = env.reset(seed=seed)[0]["images"]["wrist"].astype(int)
        seen += int((np.ptp(image, axis=-1) > 40).sum() > 8)
    assert seen >= 9


def test_a_false_declaration_ends_the_episode(env, act):
    env.reset(seed=3)
    observation, reward, terminated, truncated, info = env.step(act(terminate=1))
    assert (reward, terminated, truncated, info["success"]) == (0.0, True, False, False)
    assert info["reason"] == "false declaration"
    assert env.observation_space.contains(observation)


def test_stepping_after_the_end_is_refused(env, act):
    env.reset(seed=3)
    env.step(act(terminate=1))
    with pytest.raises(QTransformerError, match="reset"):
        env.step(act())


def test_a_miss_can_be_retried_until_the_third(env, act):
    env.reset(seed=4)
    for left in (2, 1):
        _, reward, terminated, truncated, _ = descend_and_miss(env, act)
        assert (reward, terminated, truncated) == (0.0, False, False)
        assert env.task.attempts_left == left
    _, reward, terminated, truncated, info = env.step(act(gripper=1))
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert info["reason"] == "no attempts left"


def test_staying_closed_on_nothing_costs_one_attempt(env, act):
    env.reset(seed=4)
    for _ in range(4):
        env.step(act(gripper=1, dz=0.02))
    assert env.task.attempts_left == 2


def test_an_empty_table_ends_the_episode(env, act):
    env.reset(seed=5)
    for item in env.task.objects:
        env.bullet.resetBasePositionAndOrientation(item.body, [0.2, 0.6, -0.5], [0, 0, 0, 1])
    _, reward, terminated, _, info = env.step(act())
    assert (reward, terminated, info["reason"]) == (0.0, True, "no object within reach")


def test_the_time_limit_truncates_and_still_shows_the_end(act):
    env = make_env(cameras={"wrist": (8, 8)}, max_steps=3)
    env.reset(seed=0)
    ends = [env.step(act(dx=0.01))[2:4] for _ in range(2)]
    observation, reward, terminated, truncated, info = env.step(act(dx=0.01))
    assert ends == [(False, False)] * 2
    assert (reward, terminated, truncated, info["reason"]) == (0.0, False, True, "time limit")
    assert env.observation_space.contains(observation)
    env.close()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_actions_that_are_not_finite_are_refused(env, bad):
    env.reset(seed=0)
    with pytest.raises(QTransformerError, match="finite"):
        env.step(np.array([0, bad, 0, 0, 0, 0]))


def test_actions_of_the_wrong_length_are_refused(env):
    env.reset(seed=0)
    with pytest.raises(QTransformerError, match="6"):
        env.step(np.zeros(5))


def test_actions_out_of_range_are_clipped(env):
    env.reset(seed=0)
    start = env.arm.gripper_pose().position
    env.step(np.array([0, 0, -9.0, 0, 0, 0]))
    assert env.arm.gripper_pose().position[2] - start[2] == pytest.approx(env.action_spec.low[2], abs=0.005)


@pytest.mark.parametrize("wrong", [{"task": "juggle"}, {"arm": "octopus"}, {"cameras": {"nose": (8, 8)}}, {"split": "tset"}])
def test_unknown_names_are_refused_with_the_known_ones(wrong):
    with pytest.raises(ConfigError, match="must be one of"):
        make_env(**wrong)


def test_a_closed_environment_says_so():
    env = make_env()
    env.close()
    env.close()
    with pytest.raises(QTransformerError, match="closed"):
        env.reset(seed=0)

"""The expert succeeds, the recipes fail as they should, and both can be repeated."""

import numpy as np
import pytest

pytest.importorskip("pybullet")
from qtransformer_sim import RECIPES, NoisyExpert, RandomActor, ScriptedExpert, make_env
from qtransformer_sim.recipes import MODES


@pytest.fixture(scope="module")
def blind():
    """An environment without cameras: twice as fast, and the expert does not look."""
    env = make_env(cameras={})
    yield env
    env.close()


def rollout(env, actor, seed):
    """Success and actions (T, 6) of an episode."""
    observation, info = env.reset(seed=seed)
    actor.reset()
    actions, done = [], False
    while not done:
        actions.append(actor.act(observation))
        observation, reward, terminated, truncated, info = env.step(actions[-1])
        done = terminated or truncated
    assert reward == float(info["success"])
    return info["success"], np.array(actions)


@pytest.mark.parametrize(("arm", "split"), [("kuka", "train"), ("kuka", "test"), ("panda", "train")])
def test_the_expert_grasps(arm, split):
    env = make_env(arm=arm, cameras={}, split=split)
    results = [rollout(env, ScriptedExpert(env), seed) for seed in range(20)]
    env.close()
    assert np.mean([success for success, _ in results]) >= 0.85
    assert 6 <= np.mean([len(actions) for _, actions in results]) <= 12


def test_the_expert_tries_again_after_a_miss(blind):
    """An object that jumps aside while the fingers close is missed; the expert opens and grasps what it finds next."""
    expert = ScriptedExpert(blind)
    for seed in range(3):
        observation, info = blind.reset(seed=seed)
        expert.reset()
        done, disturbed = False, False
        while not done:
            action = expert.act(observation)
            if action[4] > 0.5 and not disturbed:
                disturbed = True
                body = expert.grasp.item.body
                blind.bullet.resetBasePositionAndOrientation(body, [0.55, 0.5, 0.02], [0, 0, 0, 1])
            observation, _, terminated, truncated, info = blind.step(action)
            done = terminated or truncated
        assert blind.task.attempts_left in (1, 2)
        assert info["success"]


def test_actions_are_within_the_limits_and_complete(blind):
    for name, recipe in RECIPES.items():
        actor = NoisyExpert(blind, recipe, seed=1)
        _, actions = rollout(blind, actor, seed=1)
        assert actions.dtype == np.float32, name
        assert actions.shape[1] == 6
        assert np.isfinite(actions).all()
        assert (actions >= np.float32(blind.action_spec.low)).all()
        assert (actions <= np.float32(blind.action_spec.high)).all()


def test_random_actions_do_not_grasp(blind):
    actor = RandomActor(blind.action_spec, seed=0)
    assert np.mean([rollout(blind, actor, seed)[0] for seed in range(30)]) <= 0.05


@pytest.mark.parametrize("name", ["demo", "low", "full", "stitching"])
def test_a_seed_repeats_modes_and_actions(blind, name):
    def play():
        actor = NoisyExpert(blind, RECIPES[name], seed=7)
        episodes = [rollout(blind, actor, seed)[1] for seed in (1, 2)]
        return actor.mode, episodes

    (mode, first), (again_mode, again) = play(), play()
    assert mode == again_mode
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["demo", "low", "full", "stitching"])
def test_modes_come_in_their_shares(name):
    recipe, rng = RECIPES[name], np.random.default_rng(0)
    drawn = [recipe.draw_mode(rng) for _ in range(4000)]
    assert np.mean([mode == "expert" for mode in drawn]) == pytest.approx(recipe.demo_share, abs=0.02)
    assert set(drawn) == set(recipe.modes) | ({"expert"} if recipe.demo_share else set())
    assert set(recipe.modes) <= set(MODES)


def test_the_expert_recipe_is_the_expert(blind):
    noisy, expert = NoisyExpert(blind, RECIPES["expert"], seed=0), ScriptedExpert(blind)
    np.testing.assert_array_equal(rollout(blind, noisy, 3)[1], rollout(blind, expert, 3)[1])
    assert noisy.mode == "expert"


def test_the_biased_recipes_fail_often(blind):
    """A coarse bar: the exact shares are measured over hundreds of episodes, see sim/README.md."""
    for name, low, high in (("demo", 0.1, 0.5), ("low", 0.0, 0.36)):
        results = [rollout(blind, NoisyExpert(blind, RECIPES[name], seed=seed), seed)[0] for seed in range(30)]
        assert low <= np.mean(results) <= high


def test_stitching_shows_the_best_route_in_failures_alone(blind):
    """Half of the episodes go where the expert goes and end without a close; none of them succeeds."""
    for seed in range(12):
        actor = NoisyExpert(blind, RECIPES["stitching"], seed=seed)
        success, actions = rollout(blind, actor, seed)
        closed = bool((actions[:, 4] > 0.5).any())
        assert actor.mode == ("right" if closed else "shy")
        assert closed or not success

"""The same seed is the same episode, bit for bit: in this process, after other episodes, and in a fresh one."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("pybullet")
from qtransformer.rollout import rollout
from qtransformer_sim import RECIPES, NoisyExpert, RandomActor, make_env
from qtransformer_sim.arm import ARMS


def episode_digest(env, seed: int) -> str:
    """Hash of every image, proprioception and reward of a noisy expert's episode."""
    digest = hashlib.sha256()
    actor = NoisyExpert(env, RECIPES["demo"], seed=seed)
    observation, _ = env.reset(seed=seed)
    actor.reset()
    done = False
    while not done:
        digest.update(observation["images"]["wrist"].tobytes() + observation["proprio"].tobytes())
        observation, reward, terminated, truncated, _ = env.step(actor.act(observation))
        digest.update(np.float64(reward).tobytes())
        done = terminated or truncated
    digest.update(observation["images"]["wrist"].tobytes() + observation["proprio"].tobytes())
    return digest.hexdigest()


def test_an_episode_repeats_after_fifty_others(env):
    first = [episode_digest(env, seed) for seed in (11, 12)]
    other = RandomActor(env.action_spec, seed=0)
    for seed in range(50):
        observation, _ = env.reset(seed=1000 + seed)
        for _ in range(3):
            action = other.act(observation)
            action[5] = 0.0
            if any(env.step(action)[2:4]):
                break
    assert [episode_digest(env, seed) for seed in (11, 12)] == first


def test_an_episode_repeats_in_a_fresh_process(each_arm):
    script = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('t', sys.argv[1]);"
        "t = importlib.util.module_from_spec(spec); spec.loader.exec_module(t);"
        "print(t.episode_digest(t.make_env(arm=sys.argv[2]), 13))"
    )
    arm = next(name for name, model in ARMS.items() if model is each_arm.arm.model)
    fresh = subprocess.run([sys.executable, "-c", script, __file__, arm], capture_output=True, text=True, check=True)
    assert fresh.stdout.split()[-1] == episode_digest(each_arm, 13)


def test_the_seed_in_info_replays_an_unseeded_episode(env):
    observation, info = env.reset()
    again, _ = env.reset(seed=info["seed"])
    np.testing.assert_array_equal(observation["images"]["wrist"], again["images"]["wrist"])
    np.testing.assert_array_equal(observation["proprio"], again["proprio"])


def test_a_logged_episode_replays_bit_for_bit(env):
    """From its seed and its scaled actions alone, as robomimic's playback does it."""
    for seed in (11, 12, 13):
        episode = rollout(env, NoisyExpert(env, RECIPES["demo"], seed=seed), seed)
        observations = [env.reset(seed=episode.info["seed"])[0]]
        observations += [env.step(env.action_spec.to_units(action))[0] for action in episode.actions]
        np.testing.assert_array_equal([o["proprio"] for o in observations], episode.proprio)
        np.testing.assert_array_equal(observations[-1]["images"]["wrist"], episode.images["wrist"][-1])


def test_unseeded_episodes_differ(env):
    assert env.reset()[1]["seed"] != env.reset()[1]["seed"]


def test_two_environments_do_not_share_a_world(env):
    expected = episode_digest(env, 14)
    other = make_env(split="test")
    other.reset(seed=0)
    assert episode_digest(env, 14) == expected
    other.close()

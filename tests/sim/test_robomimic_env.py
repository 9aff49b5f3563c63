"""The simulator as robomimic's EnvBase, in the environment of `make peers`."""

import ast
import os
import subprocess
from pathlib import Path

import pytest

from qtransformer.cli import factories
from qtransformer_datasets.robomimic import writer

ROOT = Path(__file__).parents[2]
ROBOMIMIC = ROOT / ".venv-robomimic" / "bin" / "python"

SCRIPT = """
import json, warnings
import numpy as np
import robomimic.utils.env_utils as env_utils
import robomimic.utils.obs_utils as obs_utils
from qtransformer.errors import ConfigError, QTransformerError
from qtransformer_datasets.robomimic.writer import ENV_TYPE
from qtransformer_sim import robomimic_env

robomimic_env.register()
robomimic_env.register()
obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["proprio"], "rgb": ["wrist_image"]}})
kwargs = {"control_freq": 4.0, "max_steps": 5, "cameras": {"wrist": [24, 32]}}
meta = {"env_name": "qtransformer_sim:make_env", "type": ENV_TYPE, "env_kwargs": kwargs}
env = env_utils.create_env_from_metadata(meta, use_image_obs=True)
assert json.loads(json.dumps(env.serialize())) == meta
assert env.type == ENV_TYPE and env.action_dimension == 6

np.random.seed(3)
first = env.reset()
np.random.seed(3)
again = env.reset()
assert all(np.array_equal(first[key], again[key]) for key in first)
assert first["wrist_image"].shape == (3, 24, 32) and 0 <= first["wrist_image"].min() < first["wrist_image"].max() <= 1

states, observations = [env.get_state()], [first]
actions = np.random.uniform(-1, 1, (5, 6)) * [1, 1, 1, 1, 1, 0] - [0, 0, 0, 0, 0, 1]
for action in actions:
    observation, reward, done, info = env.step(action)
    states.append(env.get_state())
    observations.append(observation)
assert done and env.is_done() and env.is_success() == {"task": False} and reward == 0

with warnings.catch_warnings():
    warnings.simplefilter("error")
    for state, expected in zip(states, observations):  # by states, each after the one before
        found = env.reset_to(state)
        assert all(np.array_equal(found[key], expected[key]) for key in expected)
env.reset_to(states[0])
try:
    env.reset_to(states[2])
    raise SystemExit("a state was skipped")
except QTransformerError as error:
    assert "in their order" in str(error)
env.reset_to(states[0])
states[1]["states"][2] += 0.5
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    env.reset_to(states[1])
assert any("diverged" in str(item.message) for item in caught), "another action went unnoticed"

assert env.render(mode="rgb_array", height=48, width=64).shape == (48, 64, 3)
assert env.render(mode="rgb_array", height=24, width=32, camera_name="side").shape == (24, 32, 3)
panda = env_utils.create_env_from_metadata(meta | {"env_kwargs": kwargs | {"arm": "panda"}}, use_image_obs=True)
assert "wrist" in panda.env.arm.model.mounts, "its wrist camera sits as on the other arm: nothing is tested"
panda.reset()
film = panda.render(mode="rgb_array", height=24, width=32, camera_name="wrist")
assert np.array_equal(film, panda.env.image("wrist")), "a film from another place than the logged camera"
for bad in ({"camera_name": "nose", "mode": "rgb_array"}, {"mode": "human"}):
    try:
        env.render(**bad)
        raise SystemExit(f"{bad} was accepted")
    except ConfigError:
        pass
try:
    env_utils.create_env_from_metadata(meta | {"env_name": "os:system"})
    raise SystemExit("a file chose what code runs")
except ConfigError as error:
    assert "another simulator" in str(error)
data_env = env_utils.create_env_for_data_processing(meta, ["wrist"], 8, 8, reward_shaping=False)
assert data_env.reset()["wrist_image"].shape == (8, 8, 3)
assert env_utils.get_env_class(env_type=ENV_TYPE) is robomimic_env.RobomimicEnv
print("all well")
"""


@pytest.mark.slow
@pytest.mark.skipif(not ROBOMIMIC.exists(), reason="robomimic is not installed: make peers")
def test_the_simulator_as_an_env_base() -> None:
    paths = os.pathsep.join(str(ROOT / room) for room in ("", "sim", "datasets"))
    done = subprocess.run([str(ROBOMIMIC), "-c", SCRIPT], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert "all well" in done.stdout, done.stdout + done.stderr


def test_what_rooms_say_that_may_not_import_each_other_is_the_same() -> None:
    """Read, not imported: the module needs robomimic."""
    tree = ast.parse((ROOT / "sim" / "qtransformer_sim" / "robomimic_env.py").read_text())
    said = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    expected = {"ENV_TYPE": writer.ENV_TYPE, "ENV_NAME": factories.SIMULATOR, "_TRAINING_SEEDS": factories.TRAINING_SEEDS}
    assert {name: eval(ast.unparse(said[name]), {}) for name in expected} == expected

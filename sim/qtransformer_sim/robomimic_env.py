"""robomimic's view of the simulator: an `EnvBase`, so that robomimic's own playback, training and evaluation run in it.

robomimic looks up an environment's class by the number in `env_args`, in a function that knows its own numbers only. This module
adds ours to that function, then starts the script it is asked for:

    python -m qtransformer_sim.robomimic_env robomimic.scripts.playback_dataset --dataset demo.hdf5 --use-actions \\
        --render_image_names agentview --video_path demo.mp4

playback_dataset.py has default cameras for its own simulators only, so it must be told one of ours, or "agentview".
"""
# pyright: reportMissingImports=false
# robomimic is installed in .venv-robomimic only (benchmarks/robomimic_env.sh).

import runpy
import sys
import warnings
from typing import Any

import numpy as np
import robomimic.utils.env_utils as env_utils
import robomimic.utils.obs_utils as obs_utils
from robomimic.envs.env_base import EnvBase

from qtransformer.errors import ConfigError, QTransformerError
from qtransformer_sim.camera import CAMERAS, render
from qtransformer_sim.env import make_env

ENV_TYPE = 100
"""`type` in the `env_args` of our files; robomimic's own numbers are small."""
ENV_NAME = "qtransformer_sim:make_env"
"""The only name accepted: which code runs is not for a file to say."""
_TRAINING_SEEDS = 10**9
"""`qtransformer collect` takes its scenes from here on; those drawn by `reset` stay below."""


class RobomimicEnv(EnvBase):
    """One simulated arm. Actions are scaled to [-1, 1] and observations are named as in our files.

    A state is (seed, step, action that led here, proprioception): from the seed an episode repeats bit for bit. So `reset_to`
    takes the states of an episode in their order, which is how robomimic's scripts go through them.
    """

    def __init__(
        self,
        env_name: str,
        render: bool = False,
        render_offscreen: bool = False,
        use_image_obs: bool = False,
        postprocess_visual_obs: bool = True,
        **kwargs: Any,
    ) -> None:
        """`kwargs` are those of `make_env`; robomimic's `control_freq` counts where `control_hz` is not given."""
        del render, render_offscreen  # a frame can always be had
        if env_name != ENV_NAME:
            raise ConfigError(f"env_args: env_name expected '{ENV_NAME}', found '{env_name}'; this file is of another simulator")
        self._kwargs, self._postprocess = dict(kwargs), postprocess_visual_obs
        frequency = kwargs.pop("control_freq", None)
        settings = ({} if frequency is None else {"control_hz": frequency}) | kwargs
        self.env = make_env(**(settings if use_image_obs else settings | {"cameras": {}}))
        self._done = self._success = False
        self._reward = 0.0

    def reset(self) -> dict[str, np.ndarray]:
        """Begin the episode of a seed from NumPy's global generator, which is what robomimic's scripts seed."""
        return self._begin(int(np.random.randint(_TRAINING_SEEDS)))  # noqa: NPY002

    def reset_to(self, state: dict[str, Any]) -> dict[str, np.ndarray]:
        """Begin an episode at its state 0, or go on to the state that follows."""
        row = np.asarray(state["states"], np.float64)
        seed, step, action = int(row[0]), int(row[1]), row[2 : 2 + self.action_dimension]
        if step == 0:
            self._begin(seed)
        elif (self._seed, self._step) == (seed, step - 1):
            self.step(action)
        elif (self._seed, self._step) != (seed, step):
            raise QTransformerError(
                f"reset_to() expected state 0 of an episode or the one after (seed {self._seed}, step {self._step}), "
                f"found (seed {seed}, step {step}); states are reached by acting, so give them in their order"
            )
        gap = float(np.abs(row - self.get_state()["states"]).max())
        if gap > 0:
            warnings.warn(f"playback diverged by {gap} at step {step} of seed {seed}", stacklevel=2)
        return self.get_observation()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, dict[str, Any]]:
        """Take a scaled action (n,)."""
        self._action = np.clip(np.asarray(action, np.float32), -1.0, 1.0)
        self._observation, self._reward, terminated, truncated, info = self.env.step(self.env.action_spec.to_units(self._action))
        self._done, self._success = terminated or truncated, info["success"]
        self._step += 1
        return self.get_observation(), self._reward, self._done, info

    def render(
        self,
        mode: str = "human",
        height: int | None = None,
        width: int | None = None,
        camera_name: str | None = None,
    ) -> np.ndarray:
        """uint8 (h, w, 3) of a camera of `CAMERAS` as mounted on this arm, or of the spectator: by robomimic's default name,
        "agentview", or by none.
        """
        if mode != "rgb_array":
            raise ConfigError(f"render() expected mode 'rgb_array', found '{mode}'; the simulator opens no window")
        size = (height or 240, width or 320)
        if camera_name in (None, "agentview"):
            return self.env.render(size)
        if camera_name not in CAMERAS:
            raise ConfigError(f"camera expected one of {['agentview', *CAMERAS]}, found '{camera_name}'")
        return render(self.env.bullet, self.env.arm.model.camera(camera_name), size, self.env.arm.gripper_to_base())

    def get_observation(self) -> dict[str, np.ndarray]:
        images = {f"{camera}_image": image for camera, image in self._observation["images"].items()}
        if self._postprocess:
            images = {key: _for_network(key, image) for key, image in images.items()}
        return {"proprio": self._observation["proprio"], **images}

    def get_state(self) -> dict[str, np.ndarray]:
        return {"states": np.array([self._seed, self._step, *self._action, *self._observation["proprio"]], np.float64)}

    def get_reward(self) -> float:
        return self._reward

    def get_goal(self) -> None:
        raise NotImplementedError("the tasks of this simulator have no goal observation")

    def set_goal(self, **kwargs: Any) -> None:
        raise NotImplementedError("the tasks of this simulator have no goal observation")

    def is_done(self) -> bool:
        return self._done

    def is_success(self) -> dict[str, bool]:
        return {"task": self._success}

    @property
    def action_dimension(self) -> int:
        return len(self.env.action_spec)

    @property
    def name(self) -> str:
        return ENV_NAME

    @property
    def type(self) -> int:
        return ENV_TYPE

    @property
    def rollout_exceptions(self) -> tuple[()]:
        return ()

    def serialize(self) -> dict[str, Any]:
        return {"env_name": self.name, "type": self.type, "env_kwargs": self._kwargs}

    @classmethod
    def create_for_data_processing(
        cls,
        env_name: str,
        camera_names: list[str],
        camera_height: int,
        camera_width: int,
        reward_shaping: bool,
        **kwargs: Any,
    ) -> "RobomimicEnv":
        if reward_shaping:
            raise ConfigError("the reward of this simulator is success, found shaped rewards asked for; leave --shaped out")
        kwargs["cameras"] = dict.fromkeys(camera_names, (camera_height, camera_width))
        rgb = [f"{name}_image" for name in camera_names]
        obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["proprio"], "rgb": rgb}})
        return cls(env_name, False, False, True, False, **kwargs)

    def _begin(self, seed: int) -> dict[str, np.ndarray]:
        self._observation, info = self.env.reset(seed=seed)
        self._seed, self._step, self._action = seed, 0, np.zeros(self.action_dimension, np.float32)
        self._reward, self._done, self._success = 0.0, False, info["success"]
        return self.get_observation()


def register() -> None:
    """Let robomimic find `RobomimicEnv` by its number. Registering twice is harmless."""
    own = env_utils.get_env_class

    def get_env_class(env_meta: Any = None, env_type: int | None = None, env: Any = None) -> type:
        if env_utils.get_env_type(env_meta, env_type, env) == ENV_TYPE:
            return RobomimicEnv
        return own(env_meta, env_type, env)

    env_utils.get_env_class = get_env_class


def _for_network(key: str, image: np.ndarray) -> np.ndarray:
    """As robomimic feeds images to its networks: (3, h, w) in [0, 1]. Keys its configuration does not use stay as they are."""
    if key in obs_utils.OBS_KEYS_TO_MODALITIES and obs_utils.key_is_obs_modality(key=key, obs_modality="rgb"):
        return obs_utils.process_obs(obs=image, obs_key=key)
    return image


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit("python -m qtransformer_sim.robomimic_env robomimic.scripts.<script> [its arguments]")
    register()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

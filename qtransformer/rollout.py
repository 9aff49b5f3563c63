"""One episode of an actor in an environment: the same loop collects data, evaluates policies and films them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qtransformer.types import Actor, Env, Episode

StepHook = Callable[[Any, np.ndarray], None]
"""Called with (observation, action in robot units) before every step."""


def rollout(env: Env, actor: Actor, seed: int, on_step: StepHook | None = None) -> Episode:
    """Act until the episode terminates or is truncated. The final observation is kept.

    The environment is given what is logged: actions as they come back from scaling, so that a log replays bit for bit.
    `Episode.info["values"]` holds, per step, the value the actor expected of its action (where the actor has one).
    """
    observation, info = env.reset(seed=seed)
    actor.reset()
    observations, actions, rewards, values = [observation], [], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        scaled = env.action_spec.to_scaled(np.clip(actor.act(observation), env.action_spec.low, env.action_spec.high))
        action = env.action_spec.to_units(scaled)
        if on_step is not None:
            on_step(observation, action)
        values.append(getattr(actor, "value", None))
        observation, reward, terminated, truncated, info = env.step(action)
        observations.append(observation)
        actions.append(scaled)
        rewards.append(reward)
    ends = np.zeros((2, len(actions)), bool)
    ends[:, -1] = terminated, truncated
    return Episode(
        images={name: np.stack([o["images"][name] for o in observations]) for name in env.observation_spec.cameras},
        proprio=np.stack([o["proprio"] for o in observations]).astype(np.float32),
        actions=np.stack(actions),
        rewards=np.asarray(rewards, np.float32),
        terminated=ends[0],
        truncated=ends[1],
        instruction=observations[0].get("instruction", ""),
        success=bool(info.get("success", False)),
        info={"seed": seed, "reason": info.get("reason", "")} | ({} if values[0] is None else {"values": values}),
    )

from typing import Any

import numpy as np

from qtransformer.evaluate import EpisodeResult, Evaluation, evaluate, run_episode
from qtransformer.intervals import wilson
from qtransformer.types import ActionSpec, ObservationSpec


class Countdown:
    """Ends after `seed % 4 + 1` steps: even seeds succeed and terminate with reward 1, odd ones run out of time."""

    action_spec = ActionSpec(("dx",), (-2.0,), (2.0,), ("m",), (0,))
    observation_spec = ObservationSpec({"eye": (2, 2, 3)}, ("t",), ("s",), 1.0)

    def _observation(self) -> dict[str, Any]:
        image = np.full((2, 2, 3), self.t, np.uint8)
        return {"images": {"eye": image}, "proprio": np.array([self.t], np.float32), "instruction": "wait"}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        del options
        assert seed is not None
        self.seed, self.t = seed, 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        del action
        self.t += 1
        over, good = self.t == self.seed % 4 + 1, self.seed % 2 == 0
        return self._observation(), float(over and good), over and good, over and not good, {"success": over and good}

    def close(self) -> None: ...


class Steady:
    value: float | None = 0.25

    def __init__(self) -> None:
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def act(self, observation: Any) -> np.ndarray:
        del observation
        return np.array([5.0])


def test_an_episode_is_judged_by_success_steps_reward_and_returns() -> None:
    result = run_episode(Countdown(), Steady(), seed=2, discount=0.5)
    assert result == EpisodeResult(
        seed=2, success=True, steps=3, reward=1.0, terminated=True, values=(0.25,) * 3, returns=(0.25, 0.5, 1.0)
    )
    lost = run_episode(Countdown(), Steady(), seed=1)
    assert (lost.success, lost.steps, lost.reward, lost.terminated) == (False, 2, 0.0, False)


def test_a_rollout_keeps_the_final_observation_and_scales_actions_within_limits() -> None:
    from qtransformer.rollout import rollout

    seen: list[float] = []
    episode = rollout(Countdown(), Steady(), 3, lambda observation, action: seen.append(float(observation["proprio"][0])))
    assert len(episode) == 4
    assert episode.proprio[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert episode.images["eye"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert episode.actions.tolist() == [[1.0]] * 4
    assert episode.truncated.tolist() == [False, False, False, True]
    assert not episode.terminated.any()
    assert episode.instruction == "wait"
    assert seen == [0, 1, 2, 3]


def test_evaluation_counts_resets_between_episodes_and_survives_its_dictionary() -> None:
    actor = Steady()
    evaluation = evaluate(Countdown(), actor, range(10))
    assert actor.resets == 10
    assert evaluation.success == 0.5
    assert evaluation.interval == wilson(5, 10)
    assert {"success", "low", "high", "episodes", "seconds"} <= evaluation.summary().keys()
    assert Evaluation.from_dict(evaluation.to_dict()) == evaluation
    assert str(evaluation) == "0.50 [0.24, 0.76] over 10 episodes"

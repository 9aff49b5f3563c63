"""One training, many ways of acting: each is what a training with those settings would have done with the same weights."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qtransformer import Policy
from qtransformer.acting import ActingConfig
from qtransformer.checkpoint import Artefact, write_checkpoint
from qtransformer.config import from_dict, to_dict
from qtransformer.errors import CheckpointError, ConfigError

STATS = {"proprio_mean": [0.1, -0.2], "proprio_std": [0.9, 1.1]}
TRAINED = {"proposals": 2, "behavior_mask": 0.1, "surprise": 0.3}
CPU = torch.device("cpu")


@pytest.fixture
def save(make_config, make_network, action_spec, observation_spec, make_episode, observe, tmp_path) -> Callable[..., Path]:
    """A checkpoint; `spoil` damages its network after its golden sample was taken."""

    def write(spoil: Callable[[Any], Any] = lambda network: None, **changes: Any) -> Path:
        config = make_config(**{"targets": TRAINED, **changes})
        network = make_network(config)
        policy = Policy(network, config, action_spec, observation_spec, CPU)
        artefact = Artefact(
            config=config,
            action_spec=action_spec,
            observation_spec=observation_spec,
            stats=STATS,
            network=network,
            golden=policy.golden_sample(observe(make_episode(3), 0)),
        )
        spoil(network)
        return write_checkpoint(tmp_path / "checkpoints", 1, artefact, {"m": torch.arange(3.0)}, {"step": 1})

    return write


@pytest.mark.parametrize(
    "asked",
    [
        {"proposals": 7},
        {"proposals": 0, "surprise": 0.0},
        {"behavior_mask": 0.9},
        {"surprise": 2.0},
        {"surprise": 0.0},
        {"proposals": 5, "behavior_mask": 0.01, "surprise": 1.0},
    ],
    ids=str,
)
def test_it_acts_as_a_training_with_those_settings_would_to_the_last_digit(asked, save, make_episode, observe) -> None:
    path = save()
    found, trained = Policy.from_checkpoint(path, "cpu", ActingConfig(**asked)), Policy.from_checkpoint(path, "cpu")
    config = replace(trained.config, targets=replace(trained.config.targets, **asked))
    twin = Policy(trained.network, config, trained.action_spec, trained.observation_spec, CPU)
    differs = False
    for seed in range(4):
        episode = make_episode(20, seed)
        for policy in (found, twin, trained):
            policy.reset()
        for t in range(20):
            a, b, c = (policy.decide(observe(episode, t)) for policy in (found, twin, trained))
            for name in ("action", "bins", "q_values", "value_probs", "allowed"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=f"{name} at step {t}")
            differs |= a.bins.tolist() != c.bins.tolist()
    assert differs, "these settings must matter, or this test shows nothing"
    assert found.config == trained.config, "what it was trained with stays told"


def test_a_checkpoint_is_verified_as_trained_whatever_it_shall_act_by(save, make_episode, observe) -> None:
    """Values after another first bin than the golden sample's cannot be compared with it: they would go unverified."""
    asked, trained, golden = ActingConfig(behavior_mask=1.0), {"behavior_mask": 0.01}, observe(make_episode(3), 0)
    path = save(targets=trained)
    first = [Policy.from_checkpoint(path, "cpu", how).decide(golden).bins[0] for how in (None, asked)]
    assert first[0] != first[1], "or this test shows nothing"
    path = save(lambda network: network.action_embedding.data.mul_(-1.0), targets=trained)
    for how in (None, asked):
        with pytest.raises(CheckpointError, match="does not act as it did when it was saved"):
            Policy.from_checkpoint(path, "cpu", how)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, ""),
        ({"proposals": 2, "surprise": 0.3}, ""),
        ({"proposals": 64}, "proposals=64 (trained: 2)"),
        ({"behavior_mask": 0.2, "surprise": 0.0}, "behavior_mask=0.2 (trained: 0.1), surprise=0.0 (trained: 0.3)"),
    ],
    ids=str,
)
def test_what_is_not_as_trained_is_told(asked: dict[str, Any], told: str, save) -> None:
    policy = Policy.from_checkpoint(save(), "cpu", ActingConfig(**asked))
    assert policy.not_as_trained == told
    assert policy.acting == ActingConfig(**{**TRAINED, **asked})


@pytest.mark.parametrize(
    ("trained", "asked", "message"),
    [
        ({}, {"proposals": -1}, r"^acting\.proposals=-1: .*must be at least 0"),
        ({}, {"proposals": 4097}, "must be at most 4096"),
        ({}, {"behavior_mask": 1.5}, "must lie between 0 and 1"),
        ({}, {"behavior_mask": float("nan")}, "must be a finite number"),
        ({}, {"surprise": -0.1}, "must be at least 0"),
        ({}, {"proposals": 0}, r"chooses among proposals.*surprise=0"),
        ({}, {"behavior_mask": 0.0}, r"needs the behaviour classifier.*set a small one"),
        ({"behavior_mask": 0.0}, {"proposals": 4, "behavior_mask": 0.1}, r"has not learned.*train with a mask"),
        ({"behavior_mask": 0.0}, {"proposals": 4}, "has not learned"),
        ({"behavior_mask": 0.0}, {"behavior_mask": 0.1}, "has not learned"),
    ],
    ids=str,
)
def test_what_no_training_may_act_by_is_refused(trained, asked, message, save) -> None:
    path = save(targets=trained or TRAINED)
    with pytest.raises(ConfigError, match=message):
        Policy.from_checkpoint(path, "cpu", ActingConfig(**asked))


def test_a_cloned_policy_has_no_settings_to_act_by(save) -> None:
    path = save(algo="bc")
    assert Policy.from_checkpoint(path, "cpu", ActingConfig()).acting is None
    with pytest.raises(ConfigError, match=r"acting\.behavior_mask=0\.2: a cloned policy"):
        Policy.from_checkpoint(path, "cpu", ActingConfig(behavior_mask=0.2))


def test_a_policy_without_classifier_still_acts_without_it(save) -> None:
    path = save(targets={"behavior_mask": 0.0})
    assert Policy.from_checkpoint(path, "cpu", ActingConfig(proposals=0, behavior_mask=0.0)).not_as_trained == ""


def test_it_is_recorded_as_any_configuration_is() -> None:
    asked = ActingConfig(proposals=8)
    assert from_dict(ActingConfig, to_dict(asked)) == asked

"""A probe finds what is linear in the features, on episodes that it was not fitted on, and nothing else."""

import numpy as np
import pytest
import torch

from qtransformer.checkpoint import Artefact
from qtransformer.errors import ConfigError
from qtransformer.log_evaluation import probing
from qtransformer.log_evaluation.probing import probe, r_squared, ridge_predictions
from qtransformer.log_evaluation.replay import replay
from qtransformer.policy import Policy


@pytest.fixture
def make_artefact(make_config, make_network, action_spec, observation_spec):
    def make(**changes) -> Artefact:
        config = make_config(**changes)
        stats = {"proprio_mean": [0.1, -0.2], "proprio_std": [0.9, 1.1]}
        return Artefact(
            network=make_network(config), config=config, action_spec=action_spec, observation_spec=observation_spec, stats=stats
        )

    return make


def test_r_squared_by_hand() -> None:
    """Truth 0 2 4 has variance 8/3; errors 1 0 1 have a mean square of 2/3."""
    truth = np.array([0.0, 2.0, 4.0])
    assert r_squared(np.array([1.0, 2.0, 3.0]), truth) == pytest.approx(0.75)
    assert r_squared(np.full(3, 2.0), truth) == pytest.approx(0.0)
    assert np.isnan(r_squared(np.zeros(3), np.ones(3)))


def test_what_is_linear_is_found_and_what_is_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    features = 5 + rng.normal(size=(400, 6))
    fitted, judged = np.arange(200), np.arange(200, 400)
    linear, noise = features @ rng.normal(size=6) + 3, rng.normal(size=400)
    assert r_squared(ridge_predictions(features, linear, fitted)[judged], linear[judged]) > 0.99
    assert abs(r_squared(ridge_predictions(features, noise, fitted)[judged], noise[judged])) < 0.1


def test_predictions_do_not_depend_on_what_is_judged() -> None:
    rng = np.random.default_rng(1)
    features, returns, fitted = rng.normal(size=(30, 4)), rng.normal(size=30), np.arange(10)
    before = ridge_predictions(features, returns, fitted)
    np.testing.assert_array_equal(before, ridge_predictions(features, np.where(np.arange(30) < 10, returns, 7.0), fitted))


def test_features_are_what_the_value_of_the_logged_action_is_made_of(make_artefact, make_episode) -> None:
    """The same values as a replay's, which takes another way to them."""
    artefact, episode = make_artefact(model={"history": 2}), make_episode(5, 3)
    features, values = probing._of_episode(artefact.network, episode)
    assert features.shape == (5, artefact.config.model.head_dim)
    policy = Policy(artefact.network, artefact.config, artefact.action_spec, artefact.observation_spec, torch.device("cpu"))
    replayed = replay(policy, [episode])
    np.testing.assert_allclose(values, replayed.q_logged[replayed.has_action, -1], atol=1e-5)


@pytest.mark.parametrize("kind", ["hl_gauss", "mse"])
def test_a_probe_compares_with_the_network_before_it_learned(kind: str, make_artefact, make_episode) -> None:
    episodes = [make_episode(4, seed) for seed in range(12)]
    artefact = make_artefact(value={"kind": kind})
    found = probe(artefact, episodes)
    assert found == probe(artefact, episodes), "the untrained network is the same every time"
    assert found.trained != found.untrained
    assert max(found.trained, found.untrained, found.own) <= 1


def test_cloning_and_too_few_episodes_are_refused(make_artefact, make_episode) -> None:
    with pytest.raises(ConfigError, match="found algo=bc"):
        probe(make_artefact(algo="bc"), [make_episode(3, seed) for seed in range(4)])
    with pytest.raises(ConfigError, match="two episodes"):
        probe(make_artefact(), [make_episode(3, 0)])

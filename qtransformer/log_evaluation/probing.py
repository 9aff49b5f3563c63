"""What frozen features know of returns: a linear probe, as "Stop Regressing" (Farebrother et al. 2024) compares losses by.

The features are those that the Q-head's last, linear layer sees of a logged action's last dimension, given the others. A ridge
regression from them to the returns of the log is fitted on the first half of the episodes and judged on the second: other scenes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from qtransformer.checkpoint import Artefact, build_network
from qtransformer.config import Algo
from qtransformer.errors import ConfigError
from qtransformer.log_evaluation.replay import contexts, stream
from qtransformer.models.q_transformer import QTransformer
from qtransformer.returns import returns_to_go
from qtransformer.types import Episode

RIDGE = 1e-3
"""Penalty as a share of the mean squared feature times the number of samples: a little, for features that are nearly the same."""


@dataclass(frozen=True, slots=True)
class Probe:
    """R^2 on episodes that the probe was not fitted on: 1 is all of the returns' variance, 0 no more than their mean."""

    trained: float
    own: float
    """Of the network's own values: low for `algo=q`, whose values are of a better policy than the log's."""
    untrained: float
    """Of a probe on a network of the same shape that has learned nothing."""


def probe(artefact: Artefact, episodes: Sequence[Episode]) -> Probe:
    """Probe a policy with values on logged episodes, on the device that its network is on.

    Raises:
        ConfigError: the policy clones, or there are fewer than two episodes.
    """
    if artefact.config.algo is Algo.bc:
        raise ConfigError("expected a policy with values (algo=q or mc), found algo=bc")
    if len(episodes) < 2:
        raise ConfigError(f"expected at least two episodes, one to fit and one to judge, found {len(episodes)}")
    discount = artefact.config.targets.discount
    returns = np.concatenate([returns_to_go(episode.rewards, discount) for episode in episodes])
    of_episode = np.repeat(np.arange(len(episodes)), [len(episode) for episode in episodes])
    fitted, judged = np.flatnonzero(of_episode < len(episodes) // 2), np.flatnonzero(of_episode >= len(episodes) // 2)

    def known(features: Float[np.ndarray, "k d"]) -> float:
        return r_squared(ridge_predictions(features, returns, fitted)[judged], returns[judged])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(artefact.config.seed)
        fresh = build_network(artefact.config, artefact.action_spec, artefact.observation_spec, artefact.stats)
    networks = artefact.network, fresh.to(artefact.network.proprio_mean.device)
    (trained, values), (untrained, _) = (_of_log(network, episodes) for network in networks)
    return Probe(known(trained), r_squared(values[judged], returns[judged]), known(untrained))


def ridge_predictions(
    features: Float[np.ndarray, "k d"], returns: Float[np.ndarray, "k"], fitted: Int[np.ndarray, "f"]
) -> Float[np.ndarray, "k"]:
    """Predictions of a ridge regression, with a constant, that was fitted on some of the rows."""
    x = (features - features[fitted].mean(0)).astype(np.float64)
    offset = returns[fitted].mean()
    gram = x[fitted].T @ x[fitted]
    penalty = RIDGE * np.trace(gram) / len(gram)
    return offset + x @ np.linalg.solve(gram + penalty * np.eye(len(gram)), x[fitted].T @ (returns[fitted] - offset))


def r_squared(predicted: Float[np.ndarray, "k"], truth: Float[np.ndarray, "k"]) -> float:
    """Share of the variance that a prediction explains; not a number where nothing varies."""
    variance = truth.var()
    return float(1 - ((predicted - truth) ** 2).mean() / variance) if variance else float("nan")


def _of_log(network: QTransformer, episodes: Sequence[Episode]) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, "k"]]:
    """Features and values of every logged action."""
    features, values = zip(*(_of_episode(network, episode) for episode in episodes), strict=True)
    return np.concatenate(features), np.concatenate(values)


@torch.no_grad()
def _of_episode(network: QTransformer, episode: Episode) -> tuple[Float[np.ndarray, "t d"], Float[np.ndarray, "t"]]:
    device, last = network.proprio_mean.device, network.num_dims - 1
    batch = stream([episode], discount=1.0, lookahead=0, memory=network.memory).to(device)
    context = contexts(network, batch)[: len(episode)]
    bins = network.tokenizer.encode(torch.from_numpy(episode.actions).to(device))
    hidden = network.hidden(context, bins)[:, last:]
    features = network.q_head.features(hidden, bins[:, last:, None], last)[:, 0, 0]
    return features.cpu().numpy(), network.value_head.q_values(network.q_head.out(features)).cpu().numpy()

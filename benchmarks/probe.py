"""What frozen networks know of returns: a linear probe on the features that their last, linear layer sees.

    qtransformer collect recipe=low episodes=1000 split=validation seed=900 out=data/probe.hdf5
    .venv/bin/python benchmarks/probe.py data/probe.hdf5 runs/a runs/b ...

For every run: the Q-head's penultimate features of the logged action's last dimension, given the others; ridge regression from
them to the discounted Monte-Carlo return on the first half of the episodes, judged by R^2 on the second half (other scenes), beside
the R^2 of the network's own values there (low for `algo=q`, whose values are of a better policy than the log's) and of a probe on a
network of the same shape that has learned nothing. "Stop Regressing"
(Farebrother et al. 2024) finds that features learned by HL-Gauss are better ones than those learned by regression: compare
`value=hl_gauss` and `value=mse` of `qtransformer study losses`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from qtransformer.checkpoint import build_network, read_checkpoint, resolve_checkpoint
from qtransformer.config import Algo
from qtransformer.errors import ConfigError
from qtransformer.evaluate import returns_to_go
from qtransformer.models.q_transformer import QTransformer
from qtransformer.preprocess import encode_instruction, images_to_float
from qtransformer.types import Episode
from qtransformer_datasets import open_episodes

RIDGE = 1e-3
"""Penalty as a share of the mean squared feature times the number of samples: a little, for features that are nearly the same."""


@torch.no_grad()
def features_and_values(network: QTransformer, episode: Episode) -> tuple[Float[np.ndarray, "t d"], Float[np.ndarray, "t"]]:
    """What the Q-head's last layer sees of every logged action, and what it makes of it."""
    frames = len(episode)
    images = {name: images_to_float(torch.from_numpy(x[:frames])[None]) for name, x in episode.images.items()}
    instruction = torch.from_numpy(np.asarray(encode_instruction(episode.instruction))).expand(1, frames, -1)
    tokens = network.encode_frames(images, torch.from_numpy(episode.proprio[:frames])[None], instruction)
    context = network.windows(tokens, torch.zeros(1, frames, dtype=torch.long), 0, frames)
    bins = network.tokenizer.encode(torch.from_numpy(episode.actions))
    head, last = network.q_head, network.num_dims - 1
    hidden = network.hidden(context, bins)[:, last]
    features = torch.nn.functional.gelu(head.project(hidden) + head.bin_embedding[last, bins[:, last]])
    return features.numpy(), network.value_head.q_values(head.out(features)).numpy()


def probed(
    features: Float[np.ndarray, "k d"], returns: Float[np.ndarray, "k"], fitted: Int[np.ndarray, "f"]
) -> Float[np.ndarray, "k"]:
    """Predictions of a ridge regression, with a constant, that was fitted on some of the rows."""
    x = (features - features[fitted].mean(0)).astype(np.float64)
    offset = returns[fitted].mean()
    gram = x[fitted].T @ x[fitted]
    penalty = RIDGE * np.trace(gram) / len(gram)
    return offset + x @ np.linalg.solve(gram + penalty * np.eye(len(gram)), x[fitted].T @ (returns[fitted] - offset))


def r_squared(predicted: Float[np.ndarray, "k"], truth: Float[np.ndarray, "k"]) -> float:
    return float(1 - ((predicted - truth) ** 2).mean() / truth.var())


def scores(network: QTransformer, episodes: Sequence[Episode], discount: float) -> tuple[float, float]:
    """R^2 of the probe and of the network's own values, on the second half of the episodes."""
    parts = [features_and_values(network, episode) for episode in episodes]
    features, values = (np.concatenate(x) for x in zip(*parts, strict=True))
    returns = np.concatenate([returns_to_go(episode.rewards, discount) for episode in episodes])
    of_episode = np.repeat(np.arange(len(episodes)), [len(episode) for episode in episodes])
    fitted, judged = (np.flatnonzero(side) for side in (of_episode < len(episodes) // 2, of_episode >= len(episodes) // 2))
    return r_squared(probed(features, returns, fitted)[judged], returns[judged]), r_squared(values[judged], returns[judged])


def main(data: str, *runs: str) -> None:
    episodes = list(open_episodes(data))
    print(f"{'':40}{'probe R^2':>12}{'own values R^2':>16}{'untrained R^2':>15}")
    for run in runs:
        found = read_checkpoint(resolve_checkpoint(run), torch.device("cpu"))
        if found.config.algo is Algo.bc:
            raise ConfigError(f"{run}: expected a policy with values (algo=q or mc), found algo=bc")
        discount = found.config.targets.discount
        torch.manual_seed(found.config.seed)
        fresh = build_network(found.config, found.action_spec, found.observation_spec, found.stats)
        probe, own = scores(found.network, episodes, discount)
        print(f"{str(Path(run))[-38:]:40}{probe:12.3f}{own:16.3f}{scores(fresh, episodes, discount)[0]:15.3f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

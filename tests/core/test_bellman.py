"""The per-dimension backup reaches the flat-action Q* of value iteration, and greedy decoding attains its maximum.

The network is the real `QTransformer` with a table in place of what it would learn; see `tabular`.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qtransformer.batch import Batch
from qtransformer.config import TrainConfig, ValueConfig, ValueKind
from qtransformer.learner import QLearner
from qtransformer.models.q_transformer import QTransformer
from qtransformer.targets import backup_from_next_dimension, backup_from_next_state, n_step, raise_to_floor
from qtransformer.value_heads import ValueHead, make_value_head
from qtransformer.value_heads.support import Support, count_beyond, find_support, initial_value, resolved, widened
from tests.core.tabular import DISCOUNT, MDP, Table, costly_mdp, learned_q, log_of, random_mdp, tabular_network


@torch.no_grad()
def fit_once(network: QTransformer, batch: Batch, target: Tensor, context: Tensor, bins: Tensor) -> None:
    """The minimiser of the loss over the whole log: per entry of the table, the mean of its targets."""
    head, hidden = network.value_head, network.hidden(context, bins)
    for i, table in enumerate(network.q_head.tables):  # pyright: ignore[reportArgumentType]
        where = (*Table.spelt(hidden[:, i], i), bins[:, i])
        total = torch.zeros_like(table).index_put_(where, target[:, i], accumulate=True)
        count = torch.zeros(table.shape[:-1]).index_put_(where, torch.ones(len(bins)), accumulate=True)[..., None]
        mean = total / count.clamp_min(1)
        logits = mean.clamp_min(1e-12).log()
        if head.num_outputs == 1:
            logits = torch.logit((mean - head.v_min) / (head.v_max - head.v_min), eps=1e-7)
        table.copy_(torch.where(count > 0, logits, table))


def config_of(head: ValueHead) -> ValueConfig:
    return ValueConfig(kind=next(k for k in ValueKind if type(make_value_head(ValueConfig(kind=k))) is type(head)), num_bins=51)


@torch.no_grad()
def iterate(
    network: QTransformer,
    batch: Batch,
    *,
    per_dimension: bool,
    floor: bool = False,
    chain: bool = False,
    support: Support | None = None,
) -> None:
    """Fitted iteration with the project's own targets until nothing moves. With `support`, the range widens as training lets it."""
    n = network.num_dims
    tokens = network.encode_frames(batch.images, batch.proprio, batch.instruction)
    context, ahead_context = (network.windows(tokens, batch.episode_start, frame, 1) for frame in (0, 1))
    bins = network.tokenizer.encode(batch.actions)[:, 0]
    ahead = n_step(batch, 1, DISCOUNT)
    rewards, discounts = ahead.rewards.flatten(), ahead.discounts.flatten()
    before, like = torch.zeros(()), config_of(network.value_head)
    for _ in range(300):
        head = network.value_head
        ahead_probs = network.greedy(ahead_context, 0.0, dims=None if chain else 1).chosen_probs[:, -1]
        output = network(context, bins)
        if per_dimension:
            allowed = network.allowed(output.policy_logits, 0.0)
            probs = backup_from_next_dimension(head, rewards, discounts, ahead_probs, output.q_values, output.q_logits, allowed)
        else:
            probs = backup_from_next_state(head, rewards, discounts, ahead_probs, n)
        bound = batch.mc_return[:, :1].expand(-1, n) if floor else torch.full((len(bins), n), -torch.inf)
        fit_once(network, batch, raise_to_floor(head, probs, bound)[0], context, bins)
        if support is not None:
            values = head.to_value(ahead_probs)
            beyond = count_beyond(head, rewards, discounts, values, ahead.valid.flatten())
            ends = widened(head.v_min, head.v_max, (support.lowest, support.highest), bool(beyond.below), bool(beyond.above))
            if ends != (head.v_min, head.v_max):
                network.rebin(context, make_value_head(replace(like, v_min=ends[0], v_max=ends[1])))
                before = torch.tensor(torch.inf)
                continue
        now = network(context, bins).q_values
        if (now - before).abs().max() < 1e-6:
            return
        before = now


def value_of_greedy(network: QTransformer, mdp: MDP, q: np.ndarray) -> np.ndarray:
    """Flat Q* of the joint action that greedy decoding picks, per state."""
    context = nn.functional.pad(torch.arange(len(q)).float()[:, None, None], (0, len(mdp.bins)))
    bins = network.greedy(context, 0.0).bins.numpy()
    return np.array([q[s, np.ravel_multi_index(tuple(bins[s]), mdp.bins)] for s in range(len(q))])


def resolution(head: ValueHead) -> float:
    """A hundredth of a bin of 51 (2e-4 of the range), for as many backups as the discount lets chain. What the encoding loses
    (1e-4 for HL-Gauss, float32 for the others) is all that may be lost: means of targets decode to means."""
    return 0.01 * (head.v_max - head.v_min) / 50 / (1 - DISCOUNT)


every_head = pytest.mark.parametrize("kind", list(ValueKind))
every_action = pytest.mark.parametrize("bins", [(5,), (3, 4), (4, 2, 3)], ids=lambda b: "x".join(map(str, b)))


@every_head
@every_action
@pytest.mark.parametrize("seed", [0, 1])
def test_per_dimension_backup_reaches_flat_q_star_and_greedy_its_maximum(kind: ValueKind, bins: tuple[int, ...], seed: int) -> None:
    mdp, head = random_mdp(bins, seed), make_value_head(ValueConfig(kind=kind))
    network = tabular_network(mdp, head)
    iterate(network, log_of(mdp), per_dimension=True)
    q_star = mdp.q_star()
    np.testing.assert_allclose(learned_q(network, mdp), q_star, atol=resolution(head))
    np.testing.assert_allclose(value_of_greedy(network, mdp, q_star), q_star.max(-1), atol=2 * resolution(head))


@every_head
def test_every_dimension_holds_the_maximum_over_the_dimensions_after_it(kind: ValueKind) -> None:
    mdp, head = random_mdp((3, 2, 4), 5), make_value_head(ValueConfig(kind=kind))
    network = tabular_network(mdp, head)
    iterate(network, log_of(mdp), per_dimension=True)
    q_star = mdp.q_star().reshape(3, 3, 2, 4)
    context = nn.functional.pad(torch.arange(3).float()[:, None, None], (0, 3))
    for first, second in product(range(3), range(2)):
        values = network(context, torch.tensor([[first, second, 0]] * 3)).q_values.detach().numpy()
        np.testing.assert_allclose(values[:, 0, :3], q_star.max((2, 3)), atol=resolution(head))
        np.testing.assert_allclose(values[:, 1, :2], q_star[:, first].max(-1), atol=resolution(head))
        np.testing.assert_allclose(values[:, 2, :4], q_star[:, first, second], atol=resolution(head))


def test_the_chain_bootstrap_has_the_same_fixed_point() -> None:
    mdp, head = random_mdp((3, 4), 7), make_value_head(ValueConfig())
    network = tabular_network(mdp, head)
    iterate(network, log_of(mdp), per_dimension=True, chain=True)
    np.testing.assert_allclose(learned_q(network, mdp), mdp.q_star(), atol=resolution(head))


def test_the_behaviours_expected_return_as_floor_leaves_q_star_where_it_is() -> None:
    """What the learned floor is meant to converge to lies below Q* everywhere. (For certain outcomes: see the last test.)"""
    mdp, head = random_mdp((3, 4), 8, outcomes=1), make_value_head(ValueConfig())
    network = tabular_network(mdp, head)
    iterate(network, log_of(mdp), per_dimension=True, floor=True)
    np.testing.assert_allclose(learned_q(network, mdp), mdp.q_star(), atol=resolution(head))


def test_a_floor_lifts_values_that_start_too_low_in_one_sweep() -> None:
    mdp, head = random_mdp((3, 4), 8), make_value_head(ValueConfig(initial=0.0))
    network, batch = tabular_network(mdp, head, initial=0.0), log_of(random_mdp((3, 4), 8))
    context = network.windows(network.encode_frames({}, batch.proprio, batch.instruction), batch.episode_start, 0, 1)
    bins = network.tokenizer.encode(batch.actions)[:, 0]
    nothing = head.to_probs(torch.zeros(len(bins), 2))
    fit_once(network, batch, raise_to_floor(head, nothing, batch.mc_return[:, :1].expand(-1, 2))[0], context, bins)
    np.testing.assert_allclose(learned_q(network, mdp), mdp.q_uniform(), atol=resolution(head))


@pytest.mark.parametrize("chain", [False, True])
def test_n_step_over_dimensions_reaches_q_star_where_the_data_complete_actions_optimally(chain: bool) -> None:
    """It averages over how the log completes a prefix: unbiased if every prefix is completed by its best continuation."""
    mdp, head = random_mdp((4, 3), 3), make_value_head(ValueConfig())
    q_star = mdp.q_star()
    by_prefix = q_star.reshape(3, 4, 3)
    keep = (by_prefix == by_prefix.max(-1, keepdims=True)).reshape(3, 12)
    network = tabular_network(mdp, head, initial=0.0)
    iterate(network, log_of(mdp, keep), per_dimension=False, chain=chain)
    np.testing.assert_allclose(learned_q(network, mdp)[keep], q_star[keep], atol=resolution(head))
    np.testing.assert_allclose(value_of_greedy(network, mdp, q_star), q_star.max(-1), atol=2 * resolution(head))


@every_head
def test_a_single_dimension_needs_no_choice_between_the_two_backups(kind: ValueKind) -> None:
    mdp, head = random_mdp((5,), 4), make_value_head(ValueConfig(kind=kind))
    network = tabular_network(mdp, head)
    iterate(network, log_of(mdp), per_dimension=False)
    np.testing.assert_allclose(learned_q(network, mdp), mdp.q_star(), atol=resolution(head))


@pytest.mark.parametrize(("kind", "bootstrap"), [*zip(ValueKind, ["first", "chain", "chain", "first"], strict=True)])
def test_gradient_steps_of_the_learner_reach_q_star(
    kind: ValueKind, bootstrap: str, make_config: Callable[..., TrainConfig]
) -> None:
    """The whole of `QLearner.update`, targets from a following network, on the table: within half a bin of 21."""
    mdp = random_mdp((3, 2), 11)
    settings = {
        "discount": DISCOUNT, "backup": "bellman", "bootstrap": bootstrap, "floor": "none", "conservative_weight": 0.0,
        "behavior_mask": 0.0, "target_rate": 0.3,
    }  # fmt: skip
    optim = {"learning_rate": 0.3, "warmup_steps": 1, "max_shift": 0, "proprio_noise": 0.0, "weight_decay": 0.0}
    config = make_config(steps=300, targets=settings, optim=optim, model={"history": 1}, value={"kind": kind.value, "num_bins": 21})
    network = tabular_network(mdp, make_value_head(config.value))
    with torch.no_grad():
        for table in network.q_head.parameters():
            table.zero_()
    learner, batch = QLearner(config, network, torch.device("cpu")), log_of(mdp)
    for step in range(config.steps):
        learner.update(batch, step)
    q_star = mdp.q_star()
    np.testing.assert_allclose(learned_q(network, mdp), q_star, atol=0.025)
    np.testing.assert_allclose(value_of_greedy(network, mdp, q_star), q_star.max(-1), atol=0.05)


RETURNS = {"sparse": (random_mdp, 1.0), "hundredfold": (random_mdp, 100.0), "minus_one": (costly_mdp, 1.0)}


def of_returns(name: str, bins: tuple[int, ...], seed: int) -> tuple[MDP, SimpleNamespace]:
    """An MDP, and what a log of the very first steps alone would say of its returns: too little."""
    make, scale = RETURNS[name]
    mdp = make(bins, seed)
    mdp = replace(mdp, reward=scale * mdp.reward)
    going_on, low, high = mdp.reward[~mdp.terminated], mdp.reward.min(), mdp.reward.max()
    seen = high if high < 0 else 0.2 * high
    return mdp, SimpleNamespace(
        return_min=low, return_max=seen, reward_min=low, reward_max=seen, mean_return=low,
        going_on_reward_min=going_on.min(), going_on_reward_max=max(going_on.max(), 0.25 * high),
    )  # fmt: skip


@every_head
@pytest.mark.parametrize("returns", RETURNS)
def test_an_open_range_widens_until_q_star_is_reached_on_every_scale(returns: str, kind: ValueKind) -> None:
    mdp, stats = of_returns(returns, (3, 4), 1)
    support = find_support(ValueConfig(), stats, DISCOUNT)
    config = resolved(ValueConfig(kind=kind), support, stats)
    network = tabular_network(mdp, make_value_head(config), initial_value(config, make_value_head(config)))
    iterate(network, log_of(mdp), per_dimension=True, support=support)
    head, q_star = network.value_head, mdp.q_star()
    assert head.span > support.v_max - support.v_min, "it was too narrow at first"
    np.testing.assert_allclose(learned_q(network, mdp), q_star, atol=resolution(head))
    np.testing.assert_allclose(value_of_greedy(network, mdp, q_star), q_star.max(-1), atol=2 * resolution(head))


STEPS = {kind: 1400 if kind is ValueKind.two_hot else 600 for kind in ValueKind}
"""Two-Hot is slow to leave a bin it was sure of, as every bin is that an end moved away from."""


@every_head
@pytest.mark.parametrize("returns", RETURNS)
def test_gradient_steps_reach_q_star_on_every_scale_without_a_range_given(
    returns: str, kind: ValueKind, make_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above by the whole of `QLearner.update`: within half a bin of 21 of the range that it found."""
    monkeypatch.setattr("qtransformer.value_heads.support.WINDOW", 20)
    mdp, stats = of_returns(returns, (3, 2), 11)
    settings = {
        "discount": DISCOUNT, "backup": "bellman", "floor": "none", "conservative_weight": 0.0, "behavior_mask": 0.0,
        "target_rate": 0.3,
    }  # fmt: skip
    optim = {"learning_rate": 0.3, "warmup_steps": 1, "max_shift": 0, "proprio_noise": 0.0, "weight_decay": 0.0}
    config = make_config(
        steps=STEPS[kind], targets=settings, optim=optim, model={"history": 1}, value={"kind": kind.value, "num_bins": 21}
    )
    support = find_support(config.value, stats, DISCOUNT)
    network = tabular_network(mdp, make_value_head(resolved(config.value, support, stats)))
    with torch.no_grad():
        for table in network.q_head.parameters():
            table.zero_()
    learner, batch = QLearner(config, network, torch.device("cpu"), support=support), log_of(mdp)
    for step in range(config.steps):
        learner.update(batch, step)
    q_star = mdp.q_star()
    assert learner.head.span > support.v_max - support.v_min, "it was too narrow at first"
    np.testing.assert_allclose(learned_q(network, mdp), q_star, atol=0.025 * learner.head.span)
    np.testing.assert_allclose(value_of_greedy(network, mdp, q_star), q_star.max(-1), atol=0.05 * learner.head.span)


def test_a_time_limit_taken_for_an_end_would_miss_q_star() -> None:
    """The other way round: the MDPs above do tell a truncation from a termination."""
    mdp, head = random_mdp((3, 4), 0), make_value_head(ValueConfig())
    network, batch = tabular_network(mdp, head), log_of(mdp)
    iterate(network, replace(batch, terminated=batch.terminated | batch.truncated), per_dimension=True)
    assert np.abs(learned_q(network, mdp) - mdp.q_star()).max() > 20 * resolution(head)


def test_the_per_sample_floor_inflates_values_at_every_backup_and_the_learned_one_once() -> None:
    """Cause 1 of shared/learning.md: k chained backups of y <- E[max(R, y)] give 1 - (1 - p)^k. A learned floor p raises the
    outcomes of the terminal step, E[max(R, p)] = p (2 - p), and nothing after that."""
    head, p = make_value_head(ValueConfig(kind=ValueKind.mse)), 0.35
    returns = torch.tensor([[1.0]] * 35 + [[0.0]] * 65)
    expected = torch.full_like(returns, p)
    sampled = head.to_value(raise_to_floor(head, returns[..., None], returns)[0]).mean()
    learned = head.to_value(raise_to_floor(head, returns[..., None], expected)[0]).mean()
    for _ in range(4):
        sampled = head.to_value(raise_to_floor(head, sampled.expand(100, 1, 1), returns)[0]).mean()
        learned = head.to_value(raise_to_floor(head, learned.expand(100, 1, 1), expected)[0]).mean()
    torch.testing.assert_close(sampled, torch.tensor(1 - (1 - p) ** 5))
    torch.testing.assert_close(learned, torch.tensor(p * (2 - p)))

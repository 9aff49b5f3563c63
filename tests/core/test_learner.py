from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import qtransformer.learner as learner_module
from qtransformer.action_tokenizer import take
from qtransformer.augmentation import Augmented, mirror
from qtransformer.batch import Batch
from qtransformer.checkpoint import build_network
from qtransformer.config import TrainConfig
from qtransformer.learner import UNSEEN_METRICS_EVERY, QLearner
from qtransformer.losses import behavior_loss, conservative_loss
from qtransformer.models.q_transformer import QTransformer
from qtransformer.preprocess import images_to_float
from qtransformer.value_heads.rebinning import projection
from qtransformer.value_heads.support import Support
from tests.core.trainings import same, weights

CPU = torch.device("cpu")
PLAIN = {"max_shift": 0, "color_jitter": 0.0, "proprio_noise": 0.0}
"""Optimiser settings without augmentation."""


@pytest.mark.parametrize(
    ("settings", "resting"),
    [
        ({}, ()),
        ({"targets": {"backup": "bellman", "bootstrap": "first"}, "model": {"history": 3}}, ()),
        ({"targets": {"floor": "sample"}}, ("mc_head",)),
        ({"targets": {"floor": "none", "behavior_mask": 0.0}}, ("mc_head", "policy_head")),
        ({"algo": "mc"}, ("mc_head",)),
        ({"algo": "mc", "targets": {"behavior_mask": 0.0}}, ("mc_head", "policy_head")),
        ({"algo": "bc"}, ("mc_head", "q_head")),
        ({"value": {"kind": "mse"}}, ()),
        ({"value": {"kind": "c51"}}, ()),
    ],
    ids=str,
)
def test_every_parameter_with_a_task_moves_and_no_other(settings, resting, make_config, make_learner, make_batch) -> None:
    config = make_config(**settings)
    learner = make_learner(config)
    before = weights(learner.network)
    for step in range(2):
        learner.update(make_batch(lead=learner.lead, lookahead=learner.lookahead, start=step), step)
    for name, parameter in learner.network.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith(resting), name


@pytest.mark.parametrize(
    ("group", "name"), [("", "algo"), ("value", "kind"), ("targets", "backup"), ("targets", "bootstrap"), ("targets", "floor")]
)
def test_a_choice_that_nothing_handles_passes_for_no_other(group: str, name: str, make_config, make_learner, make_batch) -> None:
    """As one would be that was added to its enum alone."""
    config = make_config()
    setattr(getattr(config, group) if group else config, name, "new")
    with pytest.raises(AssertionError, match=r"unreachable.*'new'"):
        make_learner(config).update(make_batch(), 0)


@pytest.mark.parametrize("algo", ["mc", "bc"])
def test_baselines_keep_no_target_network(algo: str, make_config, make_learner) -> None:
    assert make_learner(make_config(algo=algo)).target_network is None


def test_an_update_depends_on_weights_batch_and_step_alone(make_config, make_learner, make_batch) -> None:
    config, results = make_config(), []
    for noise in (1, 2, 3):
        learner = make_learner(config)
        torch.manual_seed(noise)
        for step in (5, 6 if noise < 3 else 7):
            learner.update(make_batch(), step)
        results.append(weights(learner.network))
    assert same(results[0], results[1])
    assert not same(results[0], results[2]), "augmentation and learning rate follow the step"


def spoilt(batch: Batch, where: str) -> Batch:
    return replace(batch, **{where: torch.full_like(getattr(batch, where), torch.nan)})


@pytest.mark.parametrize(("algo", "where"), [("q", "mc_return"), ("q", "rewards"), ("mc", "mc_return"), ("bc", "proprio")])
def test_a_loss_that_is_not_finite_leaves_everything_as_it_was(algo, where, make_config, make_learner, make_batch) -> None:
    learner = make_learner(make_config(algo=algo))
    assert not learner.update(make_batch(), 0).skipped
    before, state = weights(learner.network), {k: v.clone() for k, v in learner.state_dict().items()}
    assert learner.update(spoilt(make_batch(), where), 1).skipped
    assert same(before, weights(learner.network))
    assert same(state, learner.state_dict())
    assert not learner.update(make_batch(), 2).skipped
    assert all(torch.isfinite(v).all() for v in learner.network.state_dict().values())


def test_a_gradient_that_is_not_finite_leaves_everything_as_it_was(make_config, make_learner, make_batch) -> None:
    learner = make_learner(make_config())
    learner.network.slot_embedding.register_hook(lambda gradient: gradient * torch.inf)
    before = weights(learner.network)
    metrics = learner.update(make_batch(), 0)
    assert metrics.skipped
    assert torch.isfinite(metrics.means["loss"][0])
    assert same(before, weights(learner.network))


def going_on(config: TrainConfig, learner: QLearner, make_batch: Callable[..., Batch]) -> dict[str, Tensor]:
    for step in range(3, 6):
        learner.update(make_batch(start=step), step)
    return weights(learner.network)


@pytest.mark.parametrize("algo", ["q", "mc", "bc"])
def test_a_restored_learner_goes_on_bit_for_bit(algo, make_config, make_learner, make_network, make_batch) -> None:
    config = make_config(algo=algo)
    learner = make_learner(config)
    for step in range(3):
        learner.update(make_batch(start=step), step)
    network, state = weights(learner.network), {k: v.clone() for k, v in learner.state_dict().items()}
    expected = going_on(config, learner, make_batch)

    def restored(state: dict[str, Tensor]) -> dict[str, Tensor]:
        other = QLearner(config, make_network(config, seed=99), CPU)
        other.network.load_state_dict(network)
        other.load_state_dict(state)
        return going_on(config, other, make_batch)

    assert same(restored({k: v.clone() for k, v in state.items()}), expected)
    items = ["exp_avg", "exp_avg_sq", "step"] + ["target_network"] * (algo == "q")
    for item in items:
        forgotten = {k: torch.zeros_like(v) if item in k.split(".") else v.clone() for k, v in state.items()}
        assert not same(forgotten, state)
        assert not same(restored(forgotten), expected), f"{item} is stored but changes nothing"


def test_parts_of_the_loss_add_up_by_their_weights(make_config, make_learner, make_batch) -> None:
    learner = make_learner(make_config(targets={"conservative_weight": 0.7, "behavior_weight": 0.3}))
    means = {k: float(v) for k, (v, _) in learner.update(make_batch(), 0).means.items()}
    parts = means["td_loss"] + 0.7 * means["conservative_loss"] + means["mc_loss"] + 0.3 * means["behavior_loss"]
    assert means["loss"] == pytest.approx(parts, rel=1e-5)


def frame_context(network: QTransformer, tokens: Tensor, batch: Batch, b: int, f: int) -> Tensor:
    """The window of one frame, put together by hand."""
    start, w = int(batch.episode_start[b, f]), network.config.history
    return network.add_age(torch.stack([tokens[b, max(start, f - age)] for age in range(w - 1, -1, -1)])[None])


@torch.no_grad()
def losses_by_hand(config: TrainConfig, online: QTransformer, target: QTransformer, batch: Batch) -> dict[str, float]:
    """Every part of the loss, frame by frame, in plain words."""
    settings, head = config.targets, online.value_head
    images = {c: images_to_float(x) for c, x in batch.images.items()}
    seen, ahead = (n.encode_frames(images, batch.proprio, batch.instruction) for n in (online, target))
    mask = settings.behavior_mask if settings.mask_bootstrap else 0.0
    td, conservative, mc, behavior, wins = [], [], [], [], []
    for b, f in product(range(len(batch.rewards)), range(batch.lead, batch.lead + batch.steps)):
        if not batch.has_action[b, f]:
            continue
        bins = online.tokenizer.encode(batch.actions[b : b + 1, f])
        hidden = online.hidden(frame_context(online, seen, batch, b, f), bins)
        output = online.output_heads(hidden)
        logits = [output.q_logits[0, i, a] for i, a in enumerate(bins[0])]
        returns = batch.mc_return[b, f]
        others = online.bin_exists & ~torch.nn.functional.one_hot(bins, online.bin_exists.shape[-1]).bool()
        values = output.q_values
        pushed = conservative_loss(settings.conservative, head, output.q_logits, values, others, take(values, bins))
        conservative.append(pushed.mean())
        behavior.append(behavior_loss(output.policy_logits, bins, online.bin_exists).mean())
        mc_logits = [online.mc_head(hidden)[0, i, a] for i, a in enumerate(bins[0])]
        mc.append(torch.stack([head.loss(x, returns) for x in mc_logits]).mean())
        if config.algo.value == "mc":
            td.append(torch.stack([head.loss(x, returns) for x in logits]).mean())
            continue

        reward, discount, k, lost = torch.zeros(()), 1.0, f, False
        for _ in range(settings.time_steps):
            reward = reward + discount * batch.rewards[b, k]
            lost |= bool(batch.lost_final[b, k])
            ended = bool(batch.terminated[b, k])
            discount, k = 0.0 if ended else discount * settings.discount, k + 1
            if ended or not batch.has_action[b, k]:
                break
        if lost:
            continue
        after = frame_context(target, ahead, batch, b, k)
        if settings.bootstrap.value == "logged":
            if discount and not batch.has_action[b, k]:  # nobody knows what would have been done
                continue
            done = online.tokenizer.encode(batch.actions[b : b + 1, k])
            next_probs = head.activate(target(after, done).q_logits[0, -1, done[0, -1]])
        else:
            next_probs = target.greedy(after, mask, dims=1 if settings.bootstrap.value == "first" else None).chosen_probs[0, -1]
        last = head.backup(reward, torch.tensor(discount), next_probs)
        probs = [last] * len(logits)
        if settings.backup.value == "bellman":
            there = target(frame_context(target, ahead, batch, b, f), bins)
            allowed = target.allowed(there.policy_logits, mask)
            best = there.q_values.masked_fill(~allowed, -torch.inf)[0].argmax(-1)
            within = [head.to_value(head.activate(there.q_logits[0, i, best[i]])) for i in range(1, len(logits))]
            probs = [*map(head.to_probs, within), last]
        floors = {
            "none": [torch.tensor(-torch.inf)] * len(logits),
            "sample": [returns] * len(logits),
            "learned": [head.q_values(x) for x in mc_logits],
        }[settings.floor.value]
        if discount == 0.0:  # what is known to have ended is as it is
            ending = range(len(logits)) if settings.backup.value == "n_step" else [len(logits) - 1]
            floors = [torch.tensor(-torch.inf) if i in ending else fl for i, fl in enumerate(floors)]
        targets = [head.to_probs(fl) if fl >= head.to_value(p) else p for p, fl in zip(probs, floors, strict=True)]
        wins.append(sum(bool(head.to_value(p) > fl) for p, fl in zip(probs, floors, strict=True)) / len(logits))
        td.append(torch.stack([head.loss_to_probs(x, p) for x, p in zip(logits, targets, strict=True)]).mean())

    def mean(values: list[Tensor]) -> float:
        return float(torch.stack(values).mean())

    return {"td_loss": mean(td), "conservative_loss": mean(conservative), "mc_loss": mean(mc), "behavior_loss": mean(behavior)}


@pytest.mark.parametrize(
    "settings",
    [
        {"targets": {"time_steps": k, "backup": backup, "bootstrap": bootstrap, "floor": floor}, "model": {"history": w}}
        for k, backup, bootstrap, floor, w in [
            (1, "n_step", "chain", "learned", 1),
            (1, "bellman", "first", "sample", 1),
            (3, "n_step", "first", "none", 3),
            (3, "bellman", "chain", "learned", 3),
            (2, "bellman", "first", "none", 1),
            (1, "n_step", "chain", "sample", 4),
            (1, "n_step", "logged", "none", 1),
            (2, "n_step", "logged", "none", 3),
        ]
    ]
    + [
        {"targets": {"mask_bootstrap": False}},
        {"targets": {"conservative": "cross_entropy"}},
        {"targets": {"conservative": "logsumexp"}},
        {"value": {"kind": "mse"}, "targets": {"backup": "bellman"}},
        {"value": {"kind": "two_hot"}},
        {"value": {"kind": "c51"}, "targets": {"time_steps": 2}},
        {"algo": "mc", "model": {"history": 3}},
    ],
    ids=str,
)
def test_losses_equal_those_worked_out_frame_by_frame(
    settings: dict[str, Any], make_config, make_network, make_dataset, make_episode
) -> None:
    """Segments with lead-in and lookahead, windows, gathers and masks, against a loop over single frames. The target network
    has weights of its own, and the data end in every way, a lost final observation included."""
    config = make_config(**settings, optim=PLAIN)
    ends = ["terminated", "truncated", "truncated", "terminated"]
    episodes = [make_episode(2 + i, seed=i, end=ends[i % 4], has_final_observation=i % 4 != 1) for i in range(6)]
    learner = QLearner(config, make_network(config), CPU)
    other = make_network(config, seed=9)
    if learner.target_network is not None:
        learner.target_network.load_state_dict(other.state_dict())
    batch = next(make_dataset(episodes).segments(batch_size=6, lead=learner.lead, steps=5, lookahead=learner.lookahead, seed=1))
    expected = losses_by_hand(config, learner.network, other, batch)
    metrics = learner.update(batch, 0).means
    for name, value in expected.items():
        if name in metrics:
            assert float(metrics[name][0]) == pytest.approx(value, rel=2e-4), name
    assert "td_loss" in metrics
    if config.algo.value == "q":
        assert batch.lost_final.any(), "the data must hold a lost final observation"
        assert float(metrics["masked_lost_final"][0]) > 0


def test_the_share_of_lost_steps_is_one_of_steps(make_config, make_learner, make_dataset, make_episode) -> None:
    """Of every two steps one has lost what followed; the third frame is none."""
    learner = make_learner(make_config(optim=PLAIN))
    data = make_dataset([make_episode(2, seed=i, end="truncated", has_final_observation=False) for i in range(6)])
    batch = next(data.segments(batch_size=6, lead=learner.lead, steps=3, lookahead=learner.lookahead, seed=1))
    steps = slice(batch.lead, batch.lead + batch.steps)
    acted, lost = batch.has_action[:, steps].sum(), batch.lost_final[:, steps].sum()
    assert acted < batch.has_action[:, steps].numel(), "the batch must hold final observations"
    share, weight = learner.update(batch, 0).means["masked_lost_final"]
    assert float(share) == pytest.approx(float(lost / acted))
    assert int(weight) == int(acted)


def test_a_wider_range_changes_no_value_of_either_network_and_comes_back_from_the_state(
    make_config, make_batch, make_network
) -> None:
    """With a head wide enough to fit, and another target network; moments move as probabilities do."""
    config, support = make_config(model={"head_dim": 64}), Support(v_min=0.0, v_max=1.0, lowest=-9.0, highest=9.0)
    learner, batch = QLearner(config, make_network(config), CPU, support=support), make_batch(size=8)
    for step in range(3):
        learner.update(batch, step)
    learner.target_network.load_state_dict(make_network(config, seed=5).state_dict())
    bins, old = learner._logged_bins(batch), learner.head
    networks = [learner.network, learner.target_network]
    before = [n.output_heads(learner._hidden(Augmented(batch, {}), bins, n)).q_values for n in networks]
    moments = learner.optimizer.state[learner.network.q_head.out.bias]["exp_avg"].clone()
    learner.growth.seen = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    learner.cover(-0.5, 2.0, batch)
    assert learner.range == (-0.5, 2.0)
    for network, values in zip(networks, before, strict=True):
        after = network.output_heads(learner._hidden(Augmented(batch, {}), bins, network)).q_values
        apart = (after - values).abs()[:, network.bin_exists] / learner.head.span
        assert apart.mean() < 0.03, "weights are drawn at random and large; see test_rebinning for trained ones"
        assert (values.max() - values.min()) / learner.head.span > 0.1
    moved = learner.optimizer.state[learner.network.q_head.out.bias]["exp_avg"]
    torch.testing.assert_close(moved, moments @ projection(old, learner.head))

    other = QLearner(config, make_network(config, seed=7), CPU, support=support)
    other.update(batch, 0)
    other.load_state_dict(learner.state_dict())
    assert same(other.state_dict(), learner.state_dict())
    assert other.range == (-0.5, 2.0)
    assert other.network.value_head is other.target_network.value_head is other.head


@pytest.mark.parametrize("floor", ["sample", "learned"])
def test_no_floor_stands_on_a_return_that_a_time_limit_made_look_better(floor, make_config, make_episode, make_dataset) -> None:
    """-1 per step, every episode cut short: what follows may cost as much for ever, and mc_return does not know."""
    episodes = [make_episode(4, i, end="truncated", rewards=-np.ones(4, np.float32)) for i in range(6)]
    dataset = make_dataset(episodes)
    batch = next(dataset.segments(batch_size=4, lead=0, steps=4, lookahead=1, seed=0))
    value = {"v_min": -50.0, "v_max": 0.0, "initial": -45.0}

    def metrics(batch: Batch) -> dict[str, float]:
        config = make_config(optim=PLAIN, targets={"floor": floor}, value=value)
        torch.manual_seed(0)
        stats = {"proprio_mean": [0.0, 0.0], "proprio_std": [1.0, 1.0]}
        learner = QLearner(config, build_network(config, dataset.action_spec, dataset.observation_spec, stats), CPU)
        return {k: float(v) for k, (v, _) in learner.update(batch, 0).means.items()}

    bound, blind = metrics(batch), metrics(replace(batch, return_bound=None))
    if floor == "sample":
        assert bound["bootstrap_exceeds_floor"] == 1.0
        assert blind["bootstrap_exceeds_floor"] == 0.0
        assert blind["target"] > bound["target"] + 30
    else:
        assert bound["mc_loss"] != blind["mc_loss"]


def test_values_that_nothing_pushes_on_are_looked_at_now_and_then_and_learning_does_not_notice(
    make_config, make_learner, make_batch, monkeypatch
) -> None:
    looks = {"unseen_over_data", "unseen_excess", "conservative_loss"}

    def learned(weight: float, steps: Sequence[int]) -> tuple[list[set[str]], dict[str, Tensor]]:
        learner = make_learner(make_config(targets={"conservative_weight": weight}))
        return [looks & learner.update(make_batch(), step).means.keys() for step in steps], weights(learner.network)

    steps = (UNSEEN_METRICS_EVERY - 1, UNSEEN_METRICS_EVERY, UNSEEN_METRICS_EVERY + 1)
    seen, now_and_then = learned(0.0, steps)
    assert seen == [set(), looks, set()]
    assert learned(0.1, steps)[0] == [looks] * 3, "what is pushed on is seen in every update"
    monkeypatch.setattr(learner_module, "UNSEEN_METRICS_EVERY", 1)
    seen, always = learned(0.0, steps)
    assert seen == [looks] * 3
    assert same(now_and_then, always)


def test_monte_carlo_targets_are_each_samples_own_return(make_config, make_learner, make_batch) -> None:
    learner, batch = make_learner(make_config(algo="mc", optim=PLAIN)), make_batch(size=6)
    own = learner.update(batch, 0).means["td_loss"][0]
    learner = make_learner(make_config(algo="mc", optim=PLAIN))
    one = learner.update(replace(batch, mc_return=torch.full_like(batch.mc_return, float(batch.mc_return.mean()))), 0)
    assert abs(float(own - one.means["td_loss"][0])) > 1e-3


def test_what_tells_failing_learning_is_reported(make_config, make_learner, make_batch) -> None:
    metrics = make_learner(make_config()).update(make_batch(), 0)
    assert {"q_start", "return_start", "bootstrap_exceeds_floor", "unseen_over_data", "unseen_excess", "q_data", "target",
            "masked_lost_final", "grad_norm"} <= metrics.means.keys()  # fmt: skip
    assert metrics.calibration is not None
    assert set(metrics.seconds) == {"data", "forward", "target", "backward"}


def test_augmentation_depends_on_seed_and_step_and_reaches_images_and_proprioception(make_config, make_network, make_batch) -> None:
    """Told from outside: each kind of it changes the loss, another step draws another, the logged batch stays as it is."""

    def loss(step: int, seed: int = 0, **optim: float) -> float:
        batch = make_batch()
        before = batch.proprio.clone(), batch.images["wrist"].clone()
        config = make_config(seed=seed, optim=PLAIN | optim)
        value = float(QLearner(config, make_network(config), CPU).update(batch, step).means["loss"][0])
        assert torch.equal(batch.proprio, before[0])
        assert torch.equal(batch.images["wrist"], before[1])
        return value

    plain = loss(0)
    assert loss(7) == loss(0, seed=1) == plain, "without augmentation neither matters"
    for kind in ({"max_shift": 2}, {"color_jitter": 0.3}, {"proprio_noise": 0.3}):
        assert loss(0, **kind) != plain
        assert loss(0, **kind) == loss(0, **kind)
        assert len({loss(0, **kind), loss(7, **kind), loss(0, seed=1, **kind), loss(7, seed=1, **kind)}) == 4


def test_about_half_of_the_segments_are_seen_in_a_mirror(make_config, make_network, make_batch) -> None:
    """Told from outside, by segments that are all alike: the loss of a step says how many of them were turned round."""
    config = make_config(algo="bc", optim=PLAIN)
    one = make_batch()
    alike = replace(
        one,
        images={k: x[:1].expand_as(x) for k, x in one.images.items()},
        **{
            name: getattr(one, name)[:1].expand_as(getattr(one, name))
            for name in ("proprio", "instruction", "episode_start", "has_action", "actions", "success")
        },
    )

    def losses(batch: Batch, dims: list[int]) -> list[float]:
        return [float(QLearner(config, make_network(config), CPU, dims).update(batch, step).means["loss"][0]) for step in range(20)]

    plain = losses(alike, [])[0]
    turned = losses(mirror(alike, torch.ones(len(one.rewards), dtype=torch.bool), [0, 2]), [])[0]
    shares = [(loss - plain) / (turned - plain) for loss in losses(alike, [0, 2])]
    assert all(abs(share * len(one.rewards) - round(share * len(one.rewards))) < 0.01 for share in shares)
    assert 0.3 < sum(shares) / len(shares) < 0.7


def test_many_bins_are_pushed_down_by_a_draw_that_stands_for_all(make_config, make_learner, make_batch) -> None:
    """The mean over steps of the drawn term nears the whole term; the logged bins' own loss does not change at all."""
    settings = {"conservative_bins": 2, "behavior_mask": 0.0}
    whole = make_learner(make_config(targets=settings | {"conservative_bins": 99})).update(make_batch(), 0).means
    learner = make_learner(make_config(targets=settings))
    frozen = weights(learner.network)
    drawn = []
    for step in range(150):
        metrics = learner.update(make_batch(), step)
        learner.network.load_state_dict(frozen)
        drawn.append(metrics.means)
    first = drawn[0]
    torch.testing.assert_close(first["td_loss"][0], whole["td_loss"][0])
    torch.testing.assert_close(first["q_start"][0], whole["q_start"][0])
    means = torch.stack([m["conservative_loss"][0] for m in drawn])
    assert means.std() > 0
    assert abs(means.mean() - whole["conservative_loss"][0]) < 0.15 * whole["conservative_loss"][0]


@pytest.mark.parametrize("algo", ["q", "bc"])
def test_the_behaviour_of_successes_alone_can_be_copied(algo, make_config, make_learner, make_batch) -> None:
    """Other actions in failed episodes change the classifier's gradient by default, and not if only successes are copied."""
    batch = make_batch()
    assert 0 < batch.success.sum() < batch.success.numel()
    other = replace(batch, actions=torch.where(batch.success[..., None], batch.actions, -batch.actions))

    def policy_head(batch: Batch, success_only: bool) -> dict[str, Tensor]:
        targets = {"behavior_success_only": success_only, "behavior_mask": 0.3}
        learner = make_learner(make_config(algo=algo, targets=targets, model={"history": 1}))
        hidden = torch.zeros(batch.steps * len(batch.rewards), 3, 16)  # the trunk reads the actions before: leave it out
        bins = learner.network.tokenizer.encode(batch.actions)[:, : batch.steps].flatten(0, 1)
        learner._cloning_loss(batch, hidden, bins).backward()
        return {n: p.grad.clone() for n, p in learner.network.policy_head.named_parameters() if p.grad is not None}

    assert same(policy_head(batch, True), policy_head(other, True))
    assert not same(policy_head(batch, False), policy_head(other, False))

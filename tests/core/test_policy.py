from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from qtransformer import Episode, Policy
from qtransformer.config import TrainConfig
from qtransformer.errors import ConfigError, SpecMismatchError
from qtransformer.models.q_transformer import QTransformer
from qtransformer.policy import pick_device
from qtransformer.preprocess import encode_instruction, images_to_float

CPU = torch.device("cpu")


@pytest.fixture
def make_policy(make_network, action_spec, observation_spec) -> Callable[[TrainConfig], Policy]:
    def make(config: TrainConfig) -> Policy:
        return Policy(make_network(config), config, action_spec, observation_spec, CPU)

    return make


def recompute(network: QTransformer, config: TrainConfig, seen: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Bins and values of the last of the observations, from raw images, the first repeated where history is short."""
    window = [seen[max(i, 0)] for i in range(len(seen) - config.model.history, len(seen))]
    images = {c: torch.from_numpy(np.stack([o["images"][c] for o in window]))[None] for c in network.cameras}
    with torch.no_grad():
        tokens = network.encode_frames(
            {c: images_to_float(x) for c, x in images.items()},
            torch.from_numpy(np.stack([o["proprio"] for o in window]))[None],
            torch.from_numpy(np.stack([encode_instruction(o["instruction"]) for o in window]))[None],
        )
        decision = network.greedy(network.add_age(tokens), config.targets.behavior_mask)
        output = network(network.add_age(tokens), decision.bins)
    return decision.bins[0].numpy(), output.q_values[0].numpy()


@pytest.mark.parametrize("history", [1, 6])
def test_kept_tokens_act_like_the_whole_window_recomputed_over_twenty_steps(
    history, make_config, make_policy, make_episode, observe
) -> None:
    config = make_config(model={"history": history})
    policy, episode, seen = make_policy(config), make_episode(20), []
    for t in range(20):
        seen.append(observe(episode, t))
        decision = policy.decide(seen[-1])
        bins, q_values = recompute(policy.network, config, seen)
        np.testing.assert_array_equal(decision.bins, bins)
        np.testing.assert_allclose(decision.q_values, q_values, atol=1e-5)


def test_reset_forgets_the_episode_before(make_config, make_policy, make_episode, observe) -> None:
    policy = make_policy(make_config(model={"history": 6}))
    a, b = make_episode(8, seed=1), make_episode(8, seed=2)
    fresh = [policy.decide(observe(a, t)).q_values for t in range(8)]
    for t in range(5):
        policy.decide(observe(b, t))
    stale = policy.decide(observe(a, 0)).q_values
    assert np.abs(stale - fresh[0]).max() > 1e-5, "history must matter, or this test shows nothing"
    policy.reset()
    for t in range(8):
        np.testing.assert_array_equal(policy.decide(observe(a, t)).q_values, fresh[t])


def test_segments_show_the_network_what_the_policy_sees(make_config, make_policy, make_dataset) -> None:
    """Windows of a batch, episode starts included, give the values that acting through the same episodes gives."""
    config = make_config(model={"history": 4})
    policy, dataset = make_policy(config), make_dataset()
    by_pixels: dict[bytes, np.ndarray] = {}
    for episode in dataset.episodes():
        policy.reset()
        for t in range(len(episode) + 1):
            observation = {
                "images": {c: rows[t] for c, rows in episode.images.items()},
                "proprio": episode.proprio[t],
                "instruction": episode.instruction,
            }
            by_pixels[episode.images["wrist"][t].tobytes()] = policy.decide(observation).q_values[0]
    batch = next(dataset.segments(batch_size=20, lead=3, steps=5, lookahead=1, seed=0))
    network = policy.network
    images = {c: images_to_float(x) for c, x in batch.images.items()}
    with torch.no_grad():
        tokens = network.encode_frames(images, batch.proprio, batch.instruction)
        context = network.windows(tokens, batch.episode_start, batch.lead, batch.steps)
        q_values = network.greedy(context, 0.0, dims=1).q_values[:, 0].view(20, 5, -1)
    for b in range(20):
        for t in range(5):
            expected = by_pixels[batch.images["wrist"][b, batch.lead + t].numpy().tobytes()]
            np.testing.assert_allclose(q_values[b, t], expected, atol=1e-5)


def test_actions_come_in_robot_units_within_their_limits(make_config, make_policy, make_episode, observe, action_spec) -> None:
    policy, episode = make_policy(make_config()), make_episode(20)
    decisions = [policy.decide(observe(episode, t)) for t in range(20)]
    for decision in decisions:
        assert decision.action.dtype == np.float32
        assert (decision.action >= np.float32(action_spec.low)).all()
        assert (decision.action <= np.float32(action_spec.high)).all()
        scaled = policy.network.tokenizer.decode(torch.from_numpy(decision.bins))
        np.testing.assert_allclose(action_spec.to_scaled(decision.action), scaled, atol=1e-5)
        assert decision.value == pytest.approx(decision.q_values[2, decision.bins[2]])
        assert all(decision.allowed[i, a] for i, a in enumerate(decision.bins))
        assert decision.action[1] in (0.0, 1.0), "a switch is on or off"
    assert policy.value == decisions[-1].value


def test_the_value_distribution_shown_is_that_of_the_chosen_bins(make_config, make_policy, make_episode, observe) -> None:
    policy = make_policy(make_config())
    decision = policy.decide(observe(make_episode(3), 0))
    chosen = [decision.q_values[i, a] for i, a in enumerate(decision.bins)]
    means = policy.network.value_head.to_value(torch.from_numpy(decision.value_probs))
    np.testing.assert_allclose(means, chosen, atol=1e-5)


def test_acting_never_rolls_dice(make_config, make_policy, make_episode, observe) -> None:
    policy, episode = make_policy(make_config(model={"history": 2})), make_episode(12)

    def act(seed: int) -> list[list[float]]:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        policy.reset()
        return [policy.act(observe(episode, t)).tolist() for t in range(12)]

    assert act(0) == act(1) == act(2)


def test_proposals_of_an_episode_follow_from_the_seed_and_nothing_else(make_config, make_policy, make_episode, observe) -> None:
    policy, episode = make_policy(make_config(targets={"proposals": 2, "behavior_mask": 0.01})), make_episode(12)
    policy.network.policy_head.out.weight.data.zero_()  # uniform, so that draws differ

    def act() -> list[tuple[int, ...]]:
        policy.reset()
        return [tuple(policy.decide(observe(episode, t)).bins.tolist()) for t in (*range(12), *[11] * 8)]

    first = act()
    torch.rand(5)
    assert act() == first
    assert len(set(first[-8:])) > 1, "another draw at every step"


def test_a_cloned_policy_follows_the_behaviour_classifier_and_claims_no_value(
    make_config, make_policy, make_episode, observe
) -> None:
    policy, episode = make_policy(make_config(algo="bc")), make_episode(10)
    differs = False
    for t in range(10):
        decision = policy.decide(observe(episode, t))
        context = policy.network.add_age(policy._tokens[-1])
        output = policy.network(context, torch.from_numpy(decision.bins)[None])
        logits = output.policy_logits[0].masked_fill(~policy.network.bin_exists, -torch.inf)
        assert decision.bins.tolist() == logits.argmax(-1).tolist()
        differs |= decision.bins.tolist() != output.q_values[0].masked_fill(~policy.network.bin_exists, -1.0).argmax(-1).tolist()
        assert policy.value is None
    assert differs


@pytest.mark.parametrize("history", [1, 4])
def test_scores_of_the_greedy_action_are_the_values_it_was_chosen_by(
    history, make_config, make_policy, make_episode, observe
) -> None:
    policy, episode = make_policy(make_config(model={"history": history})), make_episode(8)
    for t in range(8):
        decision = policy.decide(observe(episode, t))
        along = decision.q_values[np.arange(3), decision.bins]
        np.testing.assert_allclose(policy.score(None, decision.action[None]), along[None], atol=1e-5)


def test_scoring_sees_the_window_with_the_observation_and_leaves_the_episode_alone(
    make_config, make_policy, make_episode, observe
) -> None:
    config = make_config(model={"history": 4})
    policy, twin, episode = make_policy(config), make_policy(config), make_episode(9)
    candidates = np.random.default_rng(0).uniform((-0.1, 0, -0.2), (0.1, 1, 0.3), (5, 3))
    for t in range(9):
        before = policy.score(observe(episode, t), candidates)
        a, b = policy.decide(observe(episode, t)), twin.decide(observe(episode, t))
        np.testing.assert_array_equal(a.q_values, b.q_values)
        np.testing.assert_allclose(policy.score(None, candidates), before, atol=1e-6)


def test_every_candidate_is_scored_under_its_own_dimensions(make_config, make_policy, make_episode, observe) -> None:
    policy, observation = make_policy(make_config()), observe(make_episode(3), 0)
    candidates = np.random.default_rng(1).uniform((-0.1, 0, -0.2), (0.1, 1, 0.3), (7, 3))
    bins = policy.network.tokenizer.encode(torch.from_numpy(policy.action_spec.to_scaled(candidates)))
    policy.decide(observation)
    scores = policy.score(None, candidates)
    for i, chosen in enumerate(bins):
        with torch.no_grad():
            output = policy.network(policy._context(policy._tokens), chosen[None])
        np.testing.assert_allclose(scores[i], output.q_values[0, torch.arange(3), chosen], atol=1e-5)
    assert policy.score(None, candidates[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    "actions", [np.zeros(3), np.zeros((2, 4)), np.full((1, 3), np.nan), np.array([[0.0, np.inf, 0.0]])], ids=str
)
def test_candidates_that_are_none_are_refused(actions, make_config, make_policy, make_episode, observe) -> None:
    with pytest.raises(SpecMismatchError, match=r"shape \(k, 3\).*dx, gripper, dy"):
        make_policy(make_config()).score(observe(make_episode(3), 0), actions)


def test_a_policy_without_values_or_observation_scores_nothing(make_config, make_policy, make_episode, observe) -> None:
    with pytest.raises(ConfigError, match="no trained values"):
        make_policy(make_config(algo="bc")).score(observe(make_episode(3), 0), np.zeros((1, 3)))
    with pytest.raises(ConfigError, match="decide first"):
        make_policy(make_config()).score(None, np.zeros((1, 3)))


def observation_of(episode: Episode) -> dict[str, Any]:
    return {"images": {c: x[0] for c, x in episode.images.items()}, "proprio": episode.proprio[0]}


def test_the_instruction_may_be_left_out(make_config, make_policy, make_episode) -> None:
    policy, observation = make_policy(make_config()), observation_of(make_episode(3))
    a = policy.decide(observation).q_values
    policy.reset()
    np.testing.assert_array_equal(policy.decide({**observation, "instruction": ""}).q_values, a)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda o: o["images"].pop("wrist"), r"wrist.*missing.*\['front', 'wrist'\].*\['front'\]"),
        (lambda o: o["images"].update(wrist=np.zeros((24, 20, 3), np.uint8)), r"wrist.*\(20, 24, 3\).*\(24, 20, 3\)"),
        (lambda o: o["images"].update(wrist=np.zeros((20, 24, 3), np.float32)), "wrist.*uint8.*float32"),
        (lambda o: o.update(proprio=np.zeros(3, np.float32)), "2 finite values"),
        (lambda o: o.update(proprio=np.array([0.0, np.nan], np.float32)), "2 finite values"),
        (lambda o: o.update(state=o.pop("proprio")), r"an observation is .* found \['images', 'state'\]"),
        (lambda o: o.pop("images"), r"an observation is .* found \['proprio'\]"),
        (lambda o: o.update(images=np.zeros((20, 24, 3), np.uint8)), "an observation is"),
        (lambda o: o.update(proprio="left"), "an observation is"),
        (lambda o: o.update(instruction=3), "an observation is"),
    ],
)
def test_wrong_observations_are_refused_with_both_sides_named(spoil, message, make_config, make_policy, make_episode) -> None:
    observation = observation_of(make_episode(3))
    spoil(observation)
    with pytest.raises(SpecMismatchError, match=message):
        make_policy(make_config()).act(observation)


@pytest.mark.parametrize(("given", "found"), [(None, "NoneType"), ([1.0], "list"), ({}, r"\[\]")])
def test_what_is_no_observation_is_told_what_one_is(given, found, make_config, make_policy) -> None:
    with pytest.raises(SpecMismatchError, match=f"an observation is .*images.*proprio.*instruction.* found {found}"):
        make_policy(make_config()).act(given)


def test_extra_cameras_are_no_obstacle(make_config, make_policy, make_episode) -> None:
    observation = observation_of(make_episode(3))
    observation["images"]["ceiling"] = np.zeros((4, 4, 3), np.uint8)
    make_policy(make_config()).act(observation)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a device that is not there")
@pytest.mark.parametrize("name", ["mps", "meta", "xpu", "cuda:99"])
def test_devices_that_nothing_was_tried_on_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device={name}"):
        pick_device(name)


def test_devices_that_do_not_exist_are_refused() -> None:
    assert pick_device("auto") == CPU
    with pytest.raises(ConfigError, match="no CUDA device"):
        pick_device("cuda")
    with pytest.raises(ConfigError, match="not a device"):
        pick_device("toaster")

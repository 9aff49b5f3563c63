from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from qtransformer.batch import Batch
from qtransformer.checkpoint import build_network
from qtransformer.config import TrainConfig
from qtransformer.errors import SpecMismatchError
from qtransformer.models.q_transformer import QTransformer
from qtransformer.preprocess import images_to_float
from qtransformer.types import ObservationSpec


def tokens_of(network: QTransformer, batch: Batch) -> Tensor:
    images = {name: images_to_float(x) for name, x in batch.images.items()}
    return network.encode_frames(images, batch.proprio, batch.instruction)


def context_of(network: QTransformer, batch: Batch) -> Tensor:
    return network.windows(tokens_of(network, batch), batch.episode_start, batch.lead, batch.steps)


@pytest.mark.parametrize("camera", ["images.wrist", "type", "keys", "train", ""])
def test_names_that_modules_cannot_have_are_refused_with_the_remedy(camera, make_config, action_spec) -> None:
    spec = ObservationSpec(cameras={camera: (16, 16, 3)}, proprio_names=("x",), proprio_units=("m",), control_hz=5.0)
    with pytest.raises(SpecMismatchError, match=rf"camera '{camera}': .*rename it, cameras="):
        build_network(make_config(), action_spec, spec, {"proprio_mean": [0.0], "proprio_std": [1.0]})


@pytest.fixture(params=[1, 6], ids=["history 1", "history 6"])
def config(request, make_config: Callable[..., TrainConfig]) -> TrainConfig:
    return make_config(model={"history": request.param, "num_layers": 2})


@pytest.mark.parametrize("mask", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("imitate", [False, True])
@torch.no_grad()
def test_greedy_is_the_chain_of_argmaxes_of_uncached_forwards(config, mask, imitate, make_network) -> None:
    """Bins are unequal (5, 2, 5): the padding of the switch is never chosen."""
    network = make_network(config)
    context = torch.randn(40, config.model.history * network.tokens_per_frame, config.model.embed_dim)
    decision = network.greedy(context, mask, imitate)
    bins = torch.zeros(len(context), 3, dtype=torch.long)
    for i in range(3):
        output = network(context, bins)
        scores = output.policy_logits if imitate else output.q_values
        allowed = network.bin_exists.expand_as(scores).clone()
        if mask:
            probs = output.policy_logits.masked_fill(~allowed, -torch.inf).softmax(-1)
            allowed &= probs >= mask * probs.amax(-1, keepdim=True)
        bins[:, i] = scores.masked_fill(~allowed, -torch.inf)[:, i].argmax(-1)
    output = network(context, bins)
    assert torch.equal(decision.bins, bins)
    assert (bins < torch.tensor(network.tokenizer.num_bins)).all()
    assert len(bins.unique(dim=0)) > 1, "a test in which every state decides alike shows little"
    torch.testing.assert_close(decision.q_values, output.q_values, atol=1e-5, rtol=0)
    torch.testing.assert_close(decision.policy_logits, output.policy_logits, atol=1e-5, rtol=0)
    taken = output.q_logits.gather(2, bins[..., None, None].expand(-1, -1, 1, output.q_logits.shape[-1]))[:, :, 0]
    torch.testing.assert_close(decision.chosen_probs, network.value_head.activate(taken), atol=1e-5, rtol=0)


@torch.no_grad()
def test_greedy_does_the_same_every_time(config, make_network, make_batch) -> None:
    """No exploration hides in decoding."""
    network = make_network(config)
    context = context_of(network, make_batch(lead=config.model.history - 1))
    first = network.greedy(context, 0.3)
    for seed in range(20):
        torch.manual_seed(seed)
        assert torch.equal(network.greedy(context, 0.3).bins, first.bins)


@torch.no_grad()
def test_greedy_may_decide_the_first_dimensions_alone(config, make_network, make_batch) -> None:
    network = make_network(config)
    context = context_of(network, make_batch(lead=config.model.history - 1))
    whole, first = network.greedy(context, 0.3), network.greedy(context, 0.3, dims=1)
    assert torch.equal(first.bins, whole.bins[:, :1])
    torch.testing.assert_close(first.chosen_probs, whole.chosen_probs[:, :1])


@torch.no_grad()
def test_values_of_a_dimension_depend_on_earlier_dimensions_alone(config, make_network, make_batch) -> None:
    network = make_network(config)
    context = context_of(network, make_batch(lead=config.model.history - 1))
    bins = torch.zeros(len(context), 3, dtype=torch.long)
    before = network(context, bins).q_values
    bins[:, 1] = 1
    after = network(context, bins).q_values
    torch.testing.assert_close(after[:, :2], before[:, :2], atol=0, rtol=0)
    assert (after[:, 2] - before[:, 2]).abs().max() > 1e-4
    bins[:, 2] = 4
    torch.testing.assert_close(network(context, bins).q_values, after, atol=0, rtol=0)


@torch.no_grad()
def test_frames_are_encoded_alone(config, make_network, make_batch) -> None:
    """So that tokens kept on the robot equal tokens computed with others."""
    network, batch = make_network(config), make_batch()
    images = {name: images_to_float(x) for name, x in batch.images.items()}
    together = network.encode_frames(images, batch.proprio, batch.instruction)
    for t in range(together.shape[1]):
        alone = network.encode_frames(
            {k: x[:1, t : t + 1] for k, x in images.items()}, batch.proprio[:1, t : t + 1], batch.instruction[:1, t : t + 1]
        )
        torch.testing.assert_close(together[:1, t : t + 1], alone, atol=1e-5, rtol=0)


def test_windows_repeat_the_first_frame_of_an_episode_and_never_cross_into_another(make_config, make_network) -> None:
    network = make_network(make_config(model={"history": 3}))
    with torch.no_grad():
        network.age_embedding.zero_()
    tokens = torch.arange(7.0).view(1, 7, 1, 1).expand(1, 7, 1, 16)
    starts = torch.tensor([[0, 0, 0, 0, 4, 4, 4]])  # an episode begins at frame 4
    windows = network.windows(tokens, starts, 2, 5)[..., 0]
    assert windows.tolist() == [[0, 1, 2], [1, 2, 3], [4, 4, 4], [4, 4, 5], [4, 5, 6]]


def test_windows_tell_the_age_of_their_frames(make_config, make_network) -> None:
    network = make_network(make_config(model={"history": 3}))
    tokens = torch.zeros(1, 3, 2, 16)
    window = network.windows(tokens, torch.zeros(1, 3, dtype=torch.long), 2, 1)
    torch.testing.assert_close(window, network.age_embedding.expand(3, 2, 16).reshape(1, 6, 16))


def test_a_fresh_network_predicts_the_initial_value_everywhere(make_config, make_batch, action_spec, observation_spec) -> None:
    from qtransformer.checkpoint import build_network

    for kind in ("hl_gauss", "two_hot", "c51", "mse"):
        config = make_config(value={"kind": kind, "initial": 0.05, "num_bins": 51})
        network = build_network(config, action_spec, observation_spec, {"proprio_mean": [0, 0], "proprio_std": [1, 1]})
        batch = make_batch()
        output = network(context_of(network, batch), torch.zeros(batch.steps * len(batch.rewards), 3, dtype=torch.long))
        assert (output.q_values - 0.05).abs().max() < 0.03


def test_the_mask_never_forbids_the_likeliest_bin_and_always_forbids_padding(make_config, make_network) -> None:
    network = make_network(make_config())
    logits = torch.tensor([[[0.0, 0.5, 1.0, 2.0, -1.0], [0.0, 3.0, 99.0, 99.0, 99.0], [0.0] * 5]])
    assert network.allowed(logits, 0.0).tolist() == [network.bin_exists.tolist()]
    allowed = network.allowed(logits, 0.3)[0].tolist()
    assert allowed[0] == [False, False, True, True, False]  # e^-1 = .37 of the best passes, e^-1.5 = .22 does not
    assert allowed[1] == [False, True, False, False, False]
    assert allowed[2] == [True] * 5
    assert network.allowed(logits, 1.0)[0, 0].tolist() == [False, False, False, True, False]


def test_judging_single_bins_equals_judging_all(make_config, make_network) -> None:
    network = make_network(make_config())
    hidden = torch.randn(4, 3, 16)
    bins = torch.tensor([[0, 1, 4], [3, 0, 2], [1, 1, 1], [4, 0, 0]])
    everything = network.mc_head(hidden)
    some = network.mc_head.at(hidden, torch.stack([bins, 4 - bins], -1))
    for b in range(4):
        for d in range(3):
            torch.testing.assert_close(some[b, d, 0], everything[b, d, bins[b, d]])
            torch.testing.assert_close(some[b, d, 1], everything[b, d, 4 - bins[b, d]])


def test_cameras_are_matched_by_name_not_by_order(make_config, make_network, make_batch) -> None:
    network, batch = make_network(make_config()), make_batch()
    swapped = replace(batch, images=dict(reversed(batch.images.items())))
    torch.testing.assert_close(tokens_of(network, batch), tokens_of(network, swapped), atol=0, rtol=0)


def test_the_instruction_reaches_the_values_once_film_has_learned(make_config, make_network, make_batch) -> None:
    network, batch = make_network(make_config()), make_batch()
    other = replace(batch, instruction=-batch.instruction)
    torch.testing.assert_close(tokens_of(network, batch), tokens_of(network, other))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "to_scale_shift.weight" in name:
                parameter.normal_(std=0.1)
    assert (tokens_of(network, batch) - tokens_of(network, other)).abs().max() > 1e-3


def test_shapes_in_signatures_are_checked(make_config, make_network) -> None:
    """Annotations that never run would prove nothing: tests/conftest.py turns them on."""
    network = make_network(make_config())
    with pytest.raises(TypeError, match="bins"):
        network(torch.zeros(2, 5, 16), torch.zeros(3, 3, dtype=torch.long))
    with pytest.raises(TypeError, match="bins"):
        network(torch.zeros(2, 5, 16), torch.zeros(2, 3))


def actions_of(network: QTransformer) -> Tensor:
    """Every joint action, (k, n)."""
    return torch.cartesian_prod(*(torch.arange(a) for a in network.tokenizer.num_bins))


@torch.no_grad()
def test_the_best_of_very_many_proposals_is_the_best_action_of_all(make_config, make_network) -> None:
    """Where the behaviour is uniform, 2,000 draws of 50 actions miss none; the value is that of the whole action."""
    network = make_network(make_config())
    network.policy_head.out.weight.zero_()
    context, actions = torch.randn(6, network.tokens_per_frame, network.config.embed_dim), actions_of(network)
    decision = network.best_of(context, 2000, 0.3, torch.Generator().manual_seed(0))
    for row in range(len(context)):
        output = network(context[row : row + 1].expand(len(actions), -1, -1), actions)
        values = output.q_values[:, -1].gather(1, actions[:, -1:])[:, 0]
        assert torch.equal(decision.bins[row], actions[values.argmax()])
        torch.testing.assert_close(decision.q_values[row], output.q_values[values.argmax()], atol=1e-5, rtol=0)
        found = network.value_head.to_value(decision.chosen_probs[row, -1])
        torch.testing.assert_close(found, values.max(), atol=1e-5, rtol=0)


@torch.no_grad()
def test_proposals_are_draws_from_the_behaviour_within_its_mask(make_config, make_network) -> None:
    network = make_network(make_config())
    context = torch.randn(1, network.tokens_per_frame, network.config.embed_dim).expand(4000, -1, -1)
    drawn = network.best_of(context, 1, 0.2, torch.Generator().manual_seed(3))
    logits = drawn.policy_logits[0, 0].masked_fill(~drawn.allowed[0, 0], -torch.inf)
    shares = torch.bincount(drawn.bins[:, 0], minlength=network.tokenizer.max_bins) / len(context)
    torch.testing.assert_close(shares, logits.softmax(-1), atol=0.03, rtol=0)
    assert drawn.allowed.gather(2, drawn.bins[..., None]).all()
    assert (drawn.bins < torch.tensor(network.tokenizer.num_bins)).all()

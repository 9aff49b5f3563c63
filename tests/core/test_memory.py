"""What is remembered of an episode, told by hand, frame by frame and by the network."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qtransformer.errors import ConfigError, SpecMismatchError
from qtransformer.log_evaluation.replay import replay, stream
from qtransformer.memory import MEMORIES, Memory, Recollection
from qtransformer.policy import Policy

MEMORY = Memory(index=1, threshold=0.5)


def test_by_hand() -> None:
    """Two episodes of (place, closed): closed at places 1, 3 and 4 of the first; the second begins closed, which is no rise."""
    place, closed = [0, 1, 2, 3, 3.5, 4, 5, 10, 11, 12], [0, 1, 0, 1, 0, 1, 1, 1, 0, 1]
    start = np.array([0] * 7 + [7] * 3)
    found = MEMORY.of_frames(np.array([place, closed], np.float32).T, start)
    nothing = np.nan
    assert found.shape == (10, 2, 2)
    np.testing.assert_array_equal(found[:, 0, 0], [nothing, 1, 1, 3, 3, 4, 4, nothing, nothing, 12])
    np.testing.assert_array_equal(found[:, 1, 0], [nothing, nothing, nothing, 1, 1, 3, 3, nothing, nothing, nothing])
    np.testing.assert_array_equal(np.isnan(found[..., 0]), np.isnan(found[..., 1]))


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    values=arrays(np.float32, (36, 2), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])),
)
def test_frame_by_frame_is_the_same_as_all_at_once(lengths: list[int], values: np.ndarray) -> None:
    proprio = values[: sum(lengths)] + np.arange(sum(lengths), dtype=np.float32)[:, None] * [1.0, 0.0]
    start = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)
    whole = MEMORY.of_frames(proprio, start)
    for i, frame in enumerate(proprio):
        if start[i] == i:
            recollection = Recollection.fresh(MEMORY, 2)
        recollection = recollection.after(frame)
        np.testing.assert_array_equal(recollection.rows, whole[i])


@pytest.fixture
def remembering(make_config, make_network):
    return make_network(make_config(model={"remember": "x"}))


def test_the_network_reads_what_is_remembered_and_nothing_where_there_is_nothing(remembering, make_batch) -> None:
    batch, nothing = make_batch(), torch.full((3, 5, MEMORIES, 2), torch.nan)
    images = {name: x.movedim(-1, 2).float() / 255 for name, x in batch.images.items()}

    def tokens(remembered: torch.Tensor | None) -> torch.Tensor:
        with torch.no_grad():
            return remembering.encode_frames(images, batch.proprio, batch.instruction, remembered)

    known = nothing.clone()
    known[:, 2, 0] = batch.proprio[:, 2] - 0.3
    changed = (tokens(known) != tokens(nothing)).any(-1).any(-1)
    assert changed[:, 2].all()
    assert not changed[:, [0, 1, 3, 4]].any()
    assert torch.isfinite(tokens(nothing)).all()
    with pytest.raises(SpecMismatchError, match=r"model\.remember=x"):
        tokens(None)


def test_memory_is_how_far_everything_has_moved_since(remembering, make_batch) -> None:
    """The same way from another place is the same memory."""
    batch = make_batch()
    here, there = batch.proprio[:, 0], batch.proprio[:, 0] + 5.0
    with torch.no_grad():
        a, b = (remembering._memory_features(now, (now - 0.2)[:, None].expand(-1, MEMORIES, -1)) for now in (here, there))
    torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_batches_hold_what_a_robot_would_remember(remembering, make_dataset, make_episode) -> None:
    episodes = [make_episode(6, seed) for seed in range(4)]
    batch = next(make_dataset(episodes).segments(batch_size=8, lead=0, steps=5, lookahead=1, seed=0, memory=remembering.memory))
    whole = stream(episodes, 1.0, 0, memory=remembering.memory)
    known = {row.tobytes(): whole.remembered[0, i] for i, row in enumerate(whole.proprio[0].numpy())}
    for frame, remembered in zip(batch.proprio.flatten(0, 1).numpy(), batch.remembered.flatten(0, 1), strict=True):
        torch.testing.assert_close(remembered, known[frame.tobytes()], equal_nan=True)
    assert not batch.remembered.isnan().all(), "otherwise this compares nothing"
    assert make_dataset(episodes).segments(batch_size=1, lead=0, steps=1, lookahead=0, seed=0).__next__().remembered is None


@pytest.mark.parametrize("history", [1, 3])
def test_the_policy_acts_on_what_it_remembers_as_training_and_replay_do(
    history: int, make_config, make_network, make_dataset, make_episode, observe
) -> None:
    config = make_config(model={"remember": "x", "history": history})
    network, data = make_network(config), make_dataset()
    episode = make_episode(8, 2)
    episode.proprio[:, 0] = [0, 1, 0, 1, 1, 0, 1, 0, 0]
    policy = Policy(network, config, data.action_spec, data.observation_spec, torch.device("cpu"))
    replayed = replay(policy, [episode])
    for t in range(8):
        decision = policy.decide(observe(episode, t))
        np.testing.assert_array_equal(replayed.greedy[t], decision.bins)
        np.testing.assert_allclose(replayed.greedy_value[t], decision.value, atol=1e-5)
    policy.reset()
    again = policy.decide(observe(episode, 7))
    assert again.value != pytest.approx(float(replayed.greedy_value[7]), abs=1e-6), "a new episode begins with nothing"


def test_what_is_not_in_proprioception_cannot_be_remembered(make_config, make_network) -> None:
    with pytest.raises(ConfigError, match=r"model\.remember=gripper: .* which has x, y"):
        make_network(make_config(model={"remember": "gripper"}))

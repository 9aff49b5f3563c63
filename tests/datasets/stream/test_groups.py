"""Shares that are exact, epochs that are whole, ranks that together are one."""

from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qtransformer.errors import ConfigError, DatasetError
from qtransformer.types import ObservationSpec
from qtransformer_datasets import EpisodeDataset
from qtransformer_datasets.stream.segments import MAX_CYCLE, Turns

TINY = ObservationSpec(cameras={"c": (1, 2, 3)}, proprio_names=("frame",), proprio_units=("1",), control_hz=1.0)
SHAPE = {"lead": 1, "steps": 2, "lookahead": 1}


@pytest.fixture(scope="session")
def make_dataset(make_source, make_episode):
    """One source per list of lengths; proprioception is the frame's number in the stream, every third episode succeeds."""

    def make(*sources, **settings):
        made, frame, number = [], 0, 0
        for lengths in sources:
            episodes = []
            for length in lengths:
                proprio = np.arange(frame, frame + length + 1, dtype=np.float32)[:, None]
                end = "truncated" if number % 3 else "terminated"
                text = f"task {number % 4}"
                episodes.append(make_episode(length, number, end=end, observation_spec=TINY, proprio=proprio, instruction=text))
                frame, number = frame + length + 1, number + 1
            made.append(make_source(episodes, observation_spec=TINY))
        return EpisodeDataset(made, **settings)

    return make


def drawn(dataset, count, batch_size=4, **more):
    """Numbers of the step frames of the first batches, (batches, batch_size, steps)."""
    batches = islice(dataset.segments(batch_size=batch_size, seed=3, **SHAPE, **more), count)
    return np.stack([batch.proprio[:, 1:3, 0].long().numpy() for batch in batches])


shares_lists = st.lists(st.builds(Fraction, st.integers(1, 30), st.sampled_from([1, 2, 3])), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(shares=shares_lists)
def test_no_group_is_ever_a_whole_turn_from_its_share(shares):
    turns = Turns(shares)
    total, length = sum(shares), len(turns.cycle)
    counts = np.cumsum(turns.cycle[:, None] == np.arange(len(shares)), axis=0)
    assert [int(c) * total for c in counts[-1]] == [share * length for share in shares]
    exact = np.arange(1, length + 1)[:, None] * np.array([float(share / total) for share in shares])
    assert abs(counts - exact).max() < 1 + 1e-9


@settings(max_examples=40, deadline=None)
@given(shares=shares_lists, start=st.integers(0, 10**12))
def test_turns_are_counted_without_being_taken(shares, start):
    turns = Turns(shares)
    group, nth = turns(np.arange(2 * len(turns.cycle)))
    for g in range(len(shares)):
        assert nth[group == g].tolist() == list(range((group == g).sum()))
    far_group, far_nth = turns(start + np.arange(5))
    cycles, place = divmod(start, len(turns.cycle))
    assert far_group[0] == turns.cycle[place]
    assert far_nth[0] == cycles * (turns.cycle == far_group[0]).sum() + (turns.cycle[:place] == far_group[0]).sum()


def test_turns_by_hand():
    assert Turns([Fraction(1)]).cycle.tolist() == [0]
    assert Turns([Fraction(1), Fraction(1)]).cycle.tolist() == [0, 1]
    assert Turns([Fraction("0.5"), Fraction("0.25")]).cycle.tolist() == [0, 1, 0]
    assert np.bincount(Turns([Fraction("0.7"), Fraction("0.3")]).cycle).tolist() == [7, 3]


def test_weights_of_many_digits_are_rounded_to_a_cycle_that_can_be_kept():
    cycle = Turns([Fraction("0.123456789"), Fraction("0.876543211")]).cycle
    assert len(cycle) <= MAX_CYCLE
    assert abs((cycle == 0).mean() - 0.123456789) < 1e-4
    assert set(Turns([Fraction("1e-9"), Fraction(1)]).cycle.tolist()) == {0, 1}


def test_weights_are_shares_of_the_steps_whatever_the_sizes(make_dataset):
    dataset = make_dataset([9, 9], [3], [5, 5, 5], weights=[2, 1, 1])
    bounds = np.cumsum([20, 4, 18])
    for batch in drawn(dataset, 25):
        assert np.bincount(np.searchsorted(bounds, batch[:, 0], "right"), minlength=3).tolist() == [2, 1, 1]


def test_every_group_has_epochs_of_its_own(make_dataset):
    dataset = make_dataset([9, 9], [3], weights=[1, 3])
    steps = drawn(dataset, 20)[..., :].reshape(-1, 2)
    small = steps[steps[:, 0] >= 20].reshape(-1, 4)  # 4 frames: an epoch is two segments
    assert all(sorted(epoch) == [20, 21, 22, 23] for epoch in small.tolist())
    large = steps[steps[:, 0] < 20][:10]
    assert sorted(large.reshape(-1).tolist()) == list(range(20))


@pytest.mark.parametrize("balance", ["success", "source", "instruction"])
def test_balanced_groups_are_drawn_equally_often(make_dataset, balance):
    dataset = make_dataset([9, 2, 5, 7], [3, 3, 1])
    frames = dataset.frames()
    label = {"success": frames.success, "source": frames.source_id, "instruction": frames.instruction_id}[balance]
    count = len(np.unique(label))
    found = np.bincount(label[drawn(dataset, 6 * count, balance=balance)[..., 0]].reshape(-1).astype(int))
    assert (found == 24).all()


def test_balance_holds_within_every_weighted_source(make_dataset):
    dataset = make_dataset([9, 2, 5, 7], [3, 3], weights=[3, 1])  # nothing succeeds in the second
    frames = dataset.frames()
    first = drawn(dataset, 8, balance="success")[..., 0].reshape(-1)
    pairs = frames.source_id[first] * 2 + frames.success[first]
    assert np.bincount(pairs).tolist() == [12, 12, 8]


def test_a_filter_and_weights_go_together(make_dataset):
    dataset = make_dataset([9, 2], [5, 7], weights=[1, 1])
    assert dataset.frames().success[drawn(dataset, 8, filter="success")].all()


def test_what_a_filter_leaves_nothing_of_has_no_share(make_dataset):
    """Cloning of the successes comes before Q-learning on all, which needs a source of failures, too."""
    dataset = make_dataset([9, 2], [5], weights=[1, 1])
    assert not dataset.frames().success[dataset.frames().source_id == 1].any()
    for balance in ("none", "success"):
        found = drawn(dataset, 8, filter="success", balance=balance)
        assert dataset.frames().success[found].all()
        assert set(dataset.frames().source_id[drawn(dataset, 8, balance=balance)].reshape(-1)) == {0, 1}
    assert dataset.frames().success[drawn(make_dataset([9, 2], [5]), 8, filter="success", balance="source")].all()


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=2, max_size=6),
    world=st.integers(1, 5),
    batch_size=st.integers(1, 5),
    balance=st.sampled_from(["none", "source"]),
    start=st.integers(0, 30),
)
def test_ranks_together_read_what_one_alone_would(make_dataset, lengths, world, batch_size, balance, start):
    dataset = make_dataset(lengths[:1], lengths[1:])
    settings = {"batch_size": batch_size, "balance": balance}
    alone = drawn(dataset, (start + 3) * world, **settings)[start * world :]
    ranks = [drawn(dataset, 3, start=start, rank=rank, world_size=world, **settings) for rank in range(world)]
    assert np.array_equal(np.stack(ranks, axis=1).reshape(alone.shape), alone)


@settings(max_examples=30, deadline=None)
@given(start=st.integers(0, 40), rank=st.integers(0, 2), weights=st.lists(st.integers(1, 7), min_size=2, max_size=2))
def test_resuming_a_mixture_equals_going_on(make_dataset, start, rank, weights):
    dataset = make_dataset([5, 2, 4], [3, 6], weights=weights)
    settings = {"balance": "success", "rank": rank, "world_size": 3}
    assert np.array_equal(drawn(dataset, start + 3, **settings)[start:], drawn(dataset, 3, start=start, **settings))


def test_resuming_a_mixture_far_ahead_is_immediate(make_dataset):
    dataset = make_dataset([5, 2, 4], [3, 6], weights=[0.3, 0.7])
    assert drawn(dataset, 1, start=10**12, rank=1, world_size=4).shape == (1, 4, 2)


def test_one_source_weighted_is_one_source(make_dataset):
    assert np.array_equal(drawn(make_dataset([5, 4, 3], weights=[7]), 9), drawn(make_dataset([5, 4, 3]), 9))


def test_groups_are_shuffled_independently(make_dataset):
    dataset = make_dataset([9, 9], [9, 9], weights=[1, 1])
    first = drawn(dataset, 10)[..., 0].reshape(-1)
    assert not np.array_equal(first[first < 20], first[first >= 20] - 20)


def test_settings_that_contradict_themselves_are_refused(make_dataset):
    dataset = make_dataset([3, 3], [3])
    for more, message in [
        ({"balance": "camera"}, "balance expected one of none, success, source, instruction, found 'camera'"),
        ({"rank": 2, "world_size": 2}, "rank expected below world_size 2, found 2"),
        ({"rank": -1}, "rank expected at least 0"),
    ]:
        with pytest.raises(ConfigError, match=message):
            dataset.segments(batch_size=1, seed=0, **SHAPE, **more)
    with pytest.raises(DatasetError, match="two groups or more"):
        make_dataset([3, 3]).segments(batch_size=1, seed=0, **SHAPE, balance="source")
    with pytest.raises(ConfigError, match="weights were given"):
        make_dataset([3], [3], weights=[1, 2]).segments(batch_size=1, seed=0, **SHAPE, balance="source")
    for weights in ([1], [1, 0], [1, -2], [1, float("nan")]):
        with pytest.raises(ConfigError, match="weights expected 2 positive numbers"):
            make_dataset([3], [3], weights=weights)


def test_batches_keep_their_images_while_they_are_held(make_dataset):
    """Buffers are lent again only once nobody holds them, not even a view."""
    dataset = make_dataset([9, 9])
    batches = dataset.segments(batch_size=4, seed=3, **SHAPE)
    held = [next(batches).images["c"][1:2] for _ in range(6)]
    copies = [images.clone() for images in held]
    for _ in range(6):
        next(batches)
    assert all(torch.equal(a, b) for a, b in zip(held, copies, strict=True))

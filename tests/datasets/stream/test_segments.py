"""Segments against their definition, computed the slow way."""

from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qtransformer.errors import ConfigError, DatasetError
from qtransformer.preprocess import encode_instruction
from qtransformer.types import ObservationSpec
from qtransformer_datasets import EpisodeDataset
from qtransformer_datasets.stream.segments import BatchPlan, SegmentPlan, Turns

TINY = ObservationSpec(cameras={"c": (1, 2, 3)}, proprio_names=("frame",), proprio_units=("1",), control_hz=1.0)
SHAPE = {"lead": 2, "steps": 3, "lookahead": 2}


@pytest.fixture(scope="session")
def make_dataset(make_source, make_episode):
    """Episodes of the given lengths; the only proprioceptive value is the number of the frame in the stream."""

    def make(lengths, ends=None, **changes):
        episodes, frame = [], 0
        for i, length in enumerate(lengths):
            end = ends[i] if ends else ("terminated" if i % 2 else "truncated")
            proprio = np.arange(frame, frame + length + 1, dtype=np.float32)[:, None]
            instruction = f"task {i % 2}"
            episode = make_episode(length, i, end=end, observation_spec=TINY, proprio=proprio, instruction=instruction, **changes)
            episodes.append(episode)
            frame += length + 1
        return EpisodeDataset(make_source(episodes, observation_spec=TINY), discount=0.9)

    return make


lengths_lists = st.lists(st.integers(1, 9), min_size=1, max_size=6)
shapes = st.fixed_dictionaries({"lead": st.integers(0, 5), "steps": st.integers(1, 7), "lookahead": st.integers(0, 3)})


@settings(max_examples=60)
@given(lengths=lengths_lists, shape=shapes, batch_size=st.integers(1, 5), seed=st.integers(0, 2**40))
def test_a_batch_is_what_it_says(make_dataset, lengths, shape, batch_size, seed):
    """Every field of every frame, also across the wrap-around and where a segment is longer than the stream."""
    dataset = make_dataset(lengths)
    frames, total = dataset.frames(), dataset.num_frames
    for batch in islice(dataset.segments(batch_size=batch_size, seed=seed, **shape), 4):
        assert (batch.lead, batch.steps) == (shape["lead"], shape["steps"])
        assert batch.proprio.shape == (batch_size, sum(shape.values()), 1)
        numbers = batch.proprio[..., 0].long().numpy()
        for segment, row in enumerate(numbers):
            for place, frame in enumerate(row):
                assert frame == (row[0] + place) % total  # consecutive on the circle
                age = frame - frames.episode_start[frame]
                assert batch.episode_start[segment, place] == place - age
        index = torch.from_numpy(numbers)
        for name in ("actions", "rewards", "terminated", "has_action", "lost_final", "mc_return", "success"):
            expected = torch.from_numpy(getattr(frames, name))[index]
            assert torch.equal(getattr(batch, name), expected), name
            assert getattr(batch, name).dtype == expected.dtype
        assert torch.equal(batch.images["c"], torch.from_numpy(frames.images["c"][:])[index])
        assert batch.images["c"].dtype == torch.uint8
        words = torch.from_numpy(np.stack([encode_instruction(text) for text in frames.instructions]))
        assert torch.equal(batch.instruction, words[torch.from_numpy(frames.instruction_id)[index]])
        assert batch.episode_start.dtype == torch.int64


@settings(max_examples=60)
@given(lengths=lengths_lists, shape=shapes, seed=st.integers(0, 2**40))
def test_windows_and_returns_never_cross(make_dataset, lengths, shape, seed):
    """From a frame's episode start on, every frame up to it is of the same episode; the start is that of the episode."""
    dataset = make_dataset(lengths)
    starts = dataset.frames().episode_start
    for batch in islice(dataset.segments(batch_size=3, seed=seed, **shape), 3):
        numbers = batch.proprio[..., 0].long().numpy()
        for row, first in zip(numbers, batch.episode_start.numpy(), strict=True):
            for place in range(len(row)):
                own = row[max(first[place], 0) : place + 1]
                assert (starts[own] == starts[row[place]]).all()
                assert (np.diff(own) == 1).all()
                assert first[place] < 0 or row[first[place]] == starts[row[place]]


@settings(max_examples=100)
@given(count=st.integers(1, 200), steps=st.integers(1, 12), seed=st.integers(0, 2**40), epoch=st.integers(0, 10**6))
def test_an_epoch_covers_every_frame_equally(count, steps, seed, epoch):
    plan = SegmentPlan(num_frames=count, steps=steps, seed=seed)
    covered = np.bincount(((plan.epoch(epoch)[:, None] + np.arange(steps)) % count).reshape(-1), minlength=count)
    if count % steps == 0:
        assert (covered == 1).all()
    elif count > steps:
        assert set(covered) <= {1, 2}
        assert (covered == 2).sum() == -count % steps < steps


def test_over_many_epochs_no_place_is_favoured():
    plan = SegmentPlan(num_frames=50, steps=7, seed=0)
    covered = np.zeros(50)
    for epoch in range(4000):
        np.add.at(covered, (plan.epoch(epoch)[:, None] + np.arange(7)) % 50, 1)
    expected = 4000 * 56 / 50
    assert abs(covered / expected - 1).max() < 0.03  # six standard deviations of the phases


def test_epochs_differ_in_order_and_phase():
    plan = SegmentPlan(num_frames=60, steps=6, seed=0)
    epochs = [plan.epoch(e) for e in range(20)]
    assert len({tuple(e) for e in epochs}) == 20
    assert len({int(e[0]) % 6 for e in epochs}) > 3
    assert any((np.diff(e) != 6).any() for e in epochs)


def test_batches_are_cut_from_the_row_of_epochs():
    plan = SegmentPlan(num_frames=20, steps=4, seed=5)  # 5 segments an epoch
    blocks = BatchPlan(plans=[plan], turns=Turns([Fraction(1)]), batch_size=3).blocks(0)
    drawn = next(blocks)[1].ravel()[:15]
    assert drawn.tolist() == np.concatenate([plan.epoch(e) for e in range(3)]).tolist()


def test_the_memory_of_images_that_were_let_go_is_used_again(make_dataset):
    batches = make_dataset([30, 30]).segments(batch_size=2, seed=0, **SHAPE)
    places = [next(batches).images["c"].data_ptr() for _ in range(5)]
    assert len(set(places)) == 1
    held = [next(batches) for _ in range(3)]
    assert len({batch.images["c"].data_ptr() for batch in held}) == 3


def _same(a, b):
    assert torch.equal(a.images["c"], b.images["c"])
    for name in ("proprio", "episode_start", "actions", "mc_return", "terminated", "truncated", "has_action"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


@settings(max_examples=30)
@given(lengths=lengths_lists, batch_size=st.integers(1, 9), seed=st.integers(0, 2**40), start=st.integers(0, 40))
def test_resuming_equals_going_on(make_dataset, lengths, batch_size, seed, start):
    dataset = make_dataset(lengths)
    uninterrupted = list(islice(dataset.segments(batch_size=batch_size, seed=seed, **SHAPE), start + 3))
    resumed = list(islice(dataset.segments(batch_size=batch_size, seed=seed, start=start, **SHAPE), 3))
    for a, b in zip(uninterrupted[start:], resumed, strict=True):
        _same(a, b)


def test_resuming_far_ahead_is_immediate(make_dataset):
    batch = next(make_dataset([5, 3]).segments(batch_size=4, seed=0, start=10**12, **SHAPE))
    assert batch.proprio.shape == (4, 7, 1)


def test_the_seed_matters(make_dataset):
    dataset = make_dataset([20, 20])
    draws = [next(dataset.segments(batch_size=8, seed=seed, **SHAPE)).proprio for seed in (0, 1)]
    assert not torch.equal(*draws)


def test_final_frames_carry_no_action(make_dataset):
    dataset = make_dataset([3, 2])
    finals = {3, 6}
    for batch in islice(dataset.segments(batch_size=4, seed=0, **SHAPE), 10):
        numbers = batch.proprio[..., 0].long()
        is_final = torch.tensor([[int(n) in finals for n in row] for row in numbers])
        assert torch.equal(batch.has_action, ~is_final)
        for name in ("actions", "rewards", "mc_return"):
            assert (getattr(batch, name)[is_final] == 0).all()
        assert not (batch.terminated | batch.truncated)[is_final].any()


def test_a_truncated_step_is_followed_by_its_own_final_observation(make_dataset):
    dataset = make_dataset([3, 4, 2], ends=["truncated"] * 3)
    finals = {e.proprio[-2, 0]: (e.proprio[-1, 0], e.images["c"][-1]) for e in dataset.episodes()}
    seen = set()
    for batch in islice(dataset.segments(batch_size=4, seed=0, **SHAPE), 30):
        for segment, place in batch.truncated[:, :-1].nonzero().tolist():
            step = float(batch.proprio[segment, place, 0])
            final, image = finals[step]
            assert batch.proprio[segment, place + 1, 0] == final
            assert np.array_equal(batch.images["c"][segment, place + 1].numpy(), image)
            assert not batch.has_action[segment, place + 1]
            same_episode = batch.episode_start[segment, place] == batch.episode_start[segment, place + 1]
            assert same_episode
            seen.add(step)
    assert seen == set(finals)


def test_a_step_that_is_both_is_not_bootstrapped(make_dataset):
    dataset = make_dataset([2], ends=["both"], has_final_observation=False)
    batch = next(dataset.segments(batch_size=4, seed=0, **SHAPE))
    assert batch.terminated.any()
    assert not batch.truncated.any()
    assert not batch.lost_final.any()


def test_a_lost_final_observation_is_flagged_on_its_step(make_dataset):
    dataset = make_dataset([2, 3], ends=["truncated", "terminated"], has_final_observation=False)
    batch = next(dataset.segments(batch_size=8, seed=0, **SHAPE))
    assert torch.equal(batch.lost_final, batch.proprio[..., 0] == 1)


def test_successes_only(make_dataset):
    dataset = make_dataset([3, 2, 4, 1, 5])  # the second and the fourth succeed: frames 4-6 and 12-13
    following = {4: 5, 5: 6, 6: 12, 12: 13, 13: 4}
    seen = set()
    for batch in islice(dataset.segments(batch_size=4, seed=0, filter="success", **SHAPE), 10):
        assert batch.success.all()
        for row, first in zip(batch.proprio[..., 0].long().tolist(), batch.episode_start.tolist(), strict=True):
            seen |= set(row)
            for place in range(1, len(row)):
                assert row[place] == following[row[place - 1]]
                assert first[place] == (place if row[place] in (4, 12) else first[place - 1])
    assert seen == set(following)


def test_bad_settings_are_said_at_once(make_dataset):
    dataset = make_dataset([3], ends=["truncated"])
    good = {"batch_size": 1, "seed": 0, **SHAPE}
    for name, value in [("batch_size", 0), ("steps", 0), ("lead", -1), ("lookahead", -1), ("start", -1), ("seed", -1)]:
        with pytest.raises(ConfigError, match=name):
            dataset.segments(**(good | {name: value}))
    with pytest.raises(ConfigError, match="'best'"):
        dataset.segments(**good, filter="best")
    with pytest.raises(DatasetError, match=r"none among 1; say which did .*success:.* bc_filter_success=false"):
        dataset.segments(**good, filter="success")


def test_step_frames_cover_the_stream_once_an_epoch(make_dataset):
    dataset = make_dataset([5, 3, 1])  # 12 frames
    plan = SegmentPlan(num_frames=12, steps=3, seed=4)
    batches = list(islice(dataset.segments(batch_size=2, lead=2, steps=3, lookahead=1, seed=4), 2))
    steps = torch.cat([batch.proprio[:, 2:5, 0] for batch in batches])
    assert steps[:, 0].tolist() == plan.epoch(0).tolist()
    assert sorted(steps.flatten().tolist()) == list(range(12))

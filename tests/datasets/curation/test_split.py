"""Shares, strata and groups."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets.curation.split import group_keys, split_episodes

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def test_every_part_gets_its_share_of_the_successes() -> None:
    success = [i < 30 for i in range(100)]
    parts = split_episodes(success, SHARES, seed=0)
    assert {name: len(indices) for name, indices in parts.items()} == {"train": 80, "validation": 10, "test": 10}
    assert {name: sum(success[i] for i in indices) for name, indices in parts.items()} == {"train": 24, "validation": 3, "test": 3}


@settings(max_examples=50)
@given(success=st.lists(st.booleans(), min_size=40, max_size=80), seed=st.integers(0, 99))
def test_a_split_is_a_partition_that_follows_from_its_seed(success, seed) -> None:
    parts = split_episodes(success, {"train": 0.5, "test": 0.5}, seed)
    assert sorted(i for indices in parts.values() for i in indices) == list(range(len(success)))
    assert all(indices == sorted(indices) for indices in parts.values())
    assert parts == split_episodes(success, {"train": 0.5, "test": 0.5}, seed)
    for outcome in (True, False):
        held = [sum(success[i] is outcome for i in indices) for indices in parts.values()]
        assert abs(held[0] - held[1]) <= 1


def test_another_seed_draws_otherwise() -> None:
    assert split_episodes([True] * 50, SHARES, 0) != split_episodes([True] * 50, SHARES, 1)


def test_groups_stay_together() -> None:
    keys = [f"task {i % 7}" for i in range(70)]
    parts = split_episodes([True] * 70, SHARES, 3, keys)
    owners = {key: {name for name, indices in parts.items() if any(keys[i] == key for i in indices)} for key in keys}
    assert all(len(owner) == 1 for owner in owners.values())
    assert len(parts["train"]) == 50  # 56 is asked for: five groups, then validation and test lack more


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(DatasetError, match="'test' would hold none of 3 episodes"):
        split_episodes([True] * 3, SHARES, 0)


def test_keys_come_from_instruction_or_info(make_episode) -> None:
    episodes = [make_episode(2, seed, instruction=f"pick {seed % 2}") for seed in range(3)]
    assert group_keys(episodes, "instruction", "f") == ["pick 0", "pick 1", "pick 0"]
    assert group_keys(episodes, "seed", "f") == ["0", "1", "2"]
    with pytest.raises(ConfigError, match="by=mode is not in its info; there are: instruction, seed"):
        group_keys(episodes, "mode", "f")

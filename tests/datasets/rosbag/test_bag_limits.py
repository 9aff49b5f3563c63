"""Limits of actions: from the contract or the data, and what lies beyond them."""

from dataclasses import replace

import pytest

from qtransformer.errors import ConfigError, DatasetError
from qtransformer_datasets.rosbag.reader import BagEpisodes


def test_actions_beyond_their_limits_can_be_clipped(bag, contract_file) -> None:
    contract = contract_file(("low: -1\n    high: 1", "low: 0.02\n    high: 1"))
    episode = BagEpisodes(bag, contract=contract, clip_actions=True).read(0)
    assert episode.actions[:2, 0].tolist() == [-1, -1]
    assert episode.actions[2, 0] > -1
    [(name, share)] = episode.info["clipped_actions"].items()
    assert (name, share) == (BagEpisodes(bag, contract=contract, clip_actions=True).action_spec.names[0], 0.4)
    assert "clipped_actions" not in BagEpisodes(bag, contract=contract_file(), clip_actions=True).read(0).info


def test_limits_may_come_from_the_data(bag, contract_file) -> None:
    contract = contract_file(("    low: -1\n    high: 1\n", ""))
    with pytest.raises(ConfigError, match="limits_from_data=True"):
        BagEpisodes(bag, contract=contract)
    source = BagEpisodes(bag, contract=contract, limits_from_data=True)
    assert source.action_spec.low[:2] == (0.005, 0.1 + 0.005)
    assert source.action_spec.high[0] == pytest.approx(0.045)
    assert (source.action_spec.low[7], source.action_spec.high[7]) == (0.0, 1.0)
    assert source.read(0).actions[:, 0].tolist() == pytest.approx([-1, -0.5, 0, 0.5, 1])


def test_an_action_that_stretches_limits_from_the_data_is_told(robot, write_bag, contract_file) -> None:
    sent = robot.demonstration(steps=40)
    at = [number for number, message in enumerate(sent) if message.topic == "/gripper"][9]
    sent[at] = replace(sent[at], fields=robot.numbers([1e6]))
    path, contract = write_bag(sent), contract_file((", low: 0, high: 1, discrete: 2}", "}"))
    with pytest.warns(UserWarning, match=r"step 9: action 'gripper' expected .*, from 0 to 1, found 1e\+06; .*in the contract"):
        BagEpisodes(path, contract=contract, limits_from_data=True)


def test_a_dimension_that_never_moves_has_no_limits(robot, write_bag, contract_file) -> None:
    sent = [s for s in robot.demonstration() if s.topic != "/gripper"]
    for t in range(0, 600, 100):
        sent.append(robot.Sent("/gripper", "std_msgs/msg/Float64MultiArray", robot.START + t * robot.MS, 0, robot.numbers([1.0])))
    contract = contract_file((", low: 0, high: 1, discrete: 2}", "}"))
    with pytest.raises(DatasetError, match="action 'gripper' is 1 throughout; give its limits"):
        BagEpisodes(write_bag(sent), contract=contract, limits_from_data=True)

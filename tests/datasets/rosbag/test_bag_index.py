"""When messages came, by which clock, in what order; and a bag that is another one when it is read."""

import shutil

import numpy as np
import pytest

from qtransformer.errors import DatasetError
from qtransformer_datasets.rosbag.reader import BagEpisodes


def test_messages_without_a_stamp_are_timed_by_receipt(robot, write_bag, contract_file) -> None:
    sent = robot.demonstration(latency=0)
    for s in sent:
        if s.topic == "/commands":
            s.stamp = 0
    assert BagEpisodes(write_bag(sent), contract=contract_file()).lengths == [5]


def test_duplicates_and_small_disorder_are_counted_and_harmless(robot, write_bag, contract_file) -> None:
    sent = robot.demonstration()
    states = [s for s in sent if s.topic == "/joint_states"]
    other = robot.joint_state((*robot.JOINTS, "finger"), np.full(8, 0.5))
    sent.append(robot.Sent("/joint_states", states[2].type, states[2].receive + 1, states[2].stamp, other))
    late = robot.Sent("/joint_states", states[3].type, states[4].receive + 1, states[3].stamp + 60 * robot.MS, other)
    source = BagEpisodes(write_bag([*sent, late]), contract=contract_file())
    report = {t.topic: t for t in source.reports[0].topics}["/joint_states"]
    assert (report.count, report.duplicates, report.out_of_order) == (8, 1, 1)
    episode = source.read(0)
    assert episode.proprio[2].tolist() == [0.5] * 8, "of equal stamps the one recorded last counts"
    assert episode.proprio[3, 0] == np.float32(robot.joint_value(3, 0))


def test_a_bag_that_changes_between_opening_and_reading_is_noticed(robot, write_bag, contract_file) -> None:
    source = BagEpisodes(write_bag(robot.demonstration()), contract=contract_file())
    shutil.rmtree(source.path)
    later = robot.demonstration(latency=0, start=robot.START + 3 * robot.MS)
    write_bag(later)
    with pytest.raises(DatasetError, match=r"changed while it was read|fewer messages than when it was opened"):
        source.read(0)

"""A rate of ticks far above that of the topics is told: most observations would repeat the one before."""

import warnings

import pytest

from qtransformer_datasets import EpisodeDataset
from qtransformer_datasets.curation.inspect import inspect_source
from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.rosbag.reader import BagEpisodes


def test_topics_slower_than_the_ticks_are_told_once_with_their_rates(robot, write_bag, contract_file) -> None:
    for name in ("a", "b"):
        path = write_bag(robot.demonstration(), f"all/{name}")
    contract = contract_file(("control_hz: 10", "control_hz: 50"), ("tolerance_s: 0.05", "tolerance_s: 0.15"))
    source = DataSource.parse({"path": str(path.parent), "contract": str(contract)})
    for use in (lambda: EpisodeDataset([source.open()]), lambda: inspect_source(source)):
        with pytest.warns(UserWarning, match="control_hz 50 is far above the rate of") as told:
            use()
        (text,) = (str(warning.message) for warning in told if "control_hz" in str(warning.message))
        for topic in ("/wrist/image_raw", "/scene/image/compressed", "/joint_states"):
            assert f"{topic} (10 Hz)" in text
        assert "most ticks repeat a value" in text


def test_commands_may_be_rare_and_every_second_tick_may_repeat(robot, write_bag, contract_file) -> None:
    """Observations come at half of `control_hz`; the gripper is told twice."""
    sent = [s for s in robot.demonstration() if s.topic != "/gripper" or s.stamp in (robot.START + 20 * robot.MS,)]
    sent += [robot.Sent("/gripper", "std_msgs/msg/Float64MultiArray", robot.START + 420 * robot.MS, 0, robot.numbers([1.0]))]
    contract = contract_file(("control_hz: 10", "control_hz: 20"), ("tolerance_s: 0.05", "tolerance_s: 0.5"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(BagEpisodes(write_bag(sent), contract=contract)) == 1

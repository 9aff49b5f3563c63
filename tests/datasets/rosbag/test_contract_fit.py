"""What of a bag is not as its contract says: all of it at once, and nothing that no episode would stumble over."""

import pytest

from qtransformer.errors import DatasetError
from qtransformer_datasets import verify
from qtransformer_datasets.curation.inspect import inspect_source
from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.rosbag.reader import BagEpisodes

MISTAKES = (
    ("/wrist/image_raw", "/wrist/image_rw"),
    ("type: CompressedImage", "type: Image"),
    ("joints: [finger]", "joints: [fingre]"),
    ("    joints: [joint1, joint2, joint3,", "    joints: [joint1, joint2, joint33,"),
    ('values: [gripper], units: "1"', 'values: [gripper, more], units: "1"'),
    ("outcome: {topic: /outcome}", "outcome: {topic: /said}"),
)
FOUND = (
    "has no topic /wrist/image_rw; did you mean /wrist/image_raw?",
    "has no topic /said; there are: ",
    "/scene/image/compressed expected sensor_msgs/msg/Image, found sensor_msgs/msg/CompressedImage",
    "/joint_states expected the joints fingre, which none of its 6 messages names; did you mean finger?",
    "/commands: none of its 5 messages can be read: joints joint33 are not in the message",
    "/gripper: none of its 5 messages can be read: Float64MultiArray expected 2 elements (gripper, more), found 1",
)


def test_inspect_lists_every_mistake_of_a_contract(bag, contract_file) -> None:
    contract = str(contract_file(*MISTAKES))
    shown = inspect_source(DataSource.parse({"path": str(bag), "contract": contract}))
    for problems in (shown.numbers["problems"], verify(bag, contract=contract).problems):
        assert len(problems) == len(FOUND)
        for found in FOUND:
            assert [problem for problem in problems if problem.startswith(f"{bag}: {found}")], found
    assert all(found in shown.text for found in FOUND)


def test_a_training_is_told_all_of_them_in_one_error(bag, contract_file) -> None:
    with pytest.raises(DatasetError) as caught:
        BagEpisodes(bag, contract=contract_file(*MISTAKES))
    assert str(caught.value).count(str(bag)) == 1
    assert all(found in str(caught.value) for found in FOUND)


def test_all_topics_without_a_near_name_are_told_beside_what_there_is_once(bag, contract_file) -> None:
    changes = (("/gripper", "/claw"), ("/outcome", "/verdict"))
    with pytest.raises(DatasetError, match="has no topic /claw, /verdict; there are: ") as caught:
        BagEpisodes(bag, contract=contract_file(*changes))
    assert str(caught.value).count("there are") == 1


def test_a_field_that_no_message_fills_is_told_on_opening(bag, contract_file) -> None:
    with pytest.raises(DatasetError, match=r"/joint_states: none of its 6 messages can be read: .*0 numbers of velocity"):
        BagEpisodes(bag, contract=contract_file(("joints: [finger], units: m", "joints: [finger], field: velocity, units: m/s")))


def test_a_message_that_cannot_be_read_is_no_obstacle_where_no_tick_uses_it(robot, write_bag, contract_file) -> None:
    """A command to stop, and an empty image, before anything else came."""
    early = robot.START - 300 * robot.MS
    stop = robot.Sent("/commands", "trajectory_msgs/msg/JointTrajectory", early, early, robot.trajectory((), []))
    empty = {"height": 0, "width": 0, "step": 0, "encoding": "rgb8", "is_bigendian": 0, "data": robot.wrist_pixels(0)[:0, 0, 0]}
    black = robot.Sent("/wrist/image_raw", "sensor_msgs/msg/Image", early, early, empty)
    (episode,) = BagEpisodes(write_bag([stop, black, *robot.demonstration()]), contract=contract_file())
    assert (len(episode), episode.images["wrist"].shape) == (5, (6, 84, 84, 3))

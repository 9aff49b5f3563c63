"""What an episode was for, how it ended and what it was worth: instructions, outcomes and rewards of bags."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qtransformer.errors import DatasetError
from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.rosbag.reader import BagEpisodes


@pytest.fixture
def ended(robot, write_bag) -> Callable[[str], Path]:
    """A bag whose /outcome says a word."""

    def write(word: str) -> Path:
        sent = robot.demonstration()
        sent[-1].fields = {"data": word}
        return write_bag(sent)

    return write


def opened(path: Path, contract: Path, **options: Any) -> Any:
    return DataSource.parse({"path": str(path), "contract": str(contract), **options}).open()


def test_words_may_come_with_the_bag(robot, write_bag, contract_file) -> None:
    contract = contract_file(
        ("{topic: /outcome}", "{custom_data: outcome}"), ("{text: pick up the red cube}", "{custom_data: task}")
    )
    path = write_bag(robot.demonstration(), custom_data={"outcome": "timeout", "task": "stack ${oc.env:HOME}"})
    (episode,) = BagEpisodes(path, contract=contract)
    assert (episode.success, bool(episode.truncated[-1]), episode.instruction) == (False, True, "stack ${oc.env:HOME}")


def test_the_instruction_may_be_given_on_a_topic_before_the_start(robot, write_bag, contract_file) -> None:
    early = robot.Sent("/task", "std_msgs/msg/String", robot.START - 10**9, 0, {"data": "open the drawer"})
    contract = contract_file(("{text: pick up the red cube}", "{topic: /task}"))
    (episode,) = BagEpisodes(write_bag([early, *robot.demonstration()]), contract=contract)
    assert episode.instruction == "open the drawer"


def test_rewards_on_a_topic_are_summed_over_each_step(robot, write_bag, contract_file) -> None:
    given = [(10, 0.25), (60, 0.5), (100, 1.0), (101, 2.0), (560, 4.0)]
    sent = robot.demonstration(latency=0) + [
        robot.Sent("/reward", "std_msgs/msg/Float32", robot.START + t * robot.MS, 0, {"data": r}) for t, r in given
    ]
    (episode,) = BagEpisodes(
        write_bag(sent), contract=contract_file(text=contract_file().read_text() + "reward: {topic: /reward}\n")
    )
    assert episode.rewards.tolist() == [1.75, 2.0, 0.0, 0.0, 4.0]


def test_rewards_and_instructions_go_to_the_episode_they_belong_to(robot, write_bag, contract_file) -> None:
    sent = robot.demonstration(steps=20) + robot.events((0.05, "start"), (0.55, "success"), (0.75, "start"), (1.25, "failure"))
    sent += robot.events((0.01, "push"), (0.7, "pull"), topic="/task")
    for t, reward in [(60, 1.0), (600, 2.0), (800, 4.0), (1900, 8.0)]:
        sent.append(robot.Sent("/reward", "std_msgs/msg/Float64", robot.START + t * robot.MS, 0, {"data": reward}))
    text = contract_file(("{topic: /outcome}", "{topic: /event}"), ("{text: pick up the red cube}", "{topic: /task}")).read_text()
    source = BagEpisodes(write_bag(sent), contract=contract_file(text=text + robot.MARKERS + "reward: {topic: /reward}\n"))
    assert [(e.instruction, e.rewards.tolist()) for e in source] == [("push", [0, 0, 0, 2]), ("pull", [0, 0, 0, 8])]


def test_rewards_are_placed_by_receipt_whatever_the_clock_of_the_stamps(robot, write_bag, contract_file) -> None:
    """Ticks run on a simulated clock that begins at 1 s; rewards have no stamp."""
    text = contract_file(("{topic: /outcome}", "{topic: /event}")).read_text() + robot.MARKERS + "reward: {topic: /reward}\n"
    sent = robot.demonstration(steps=20) + robot.events((0.05, "start"), (0.55, "success"), (0.75, "start"), (1.25, "failure"))
    for t, reward in [(60, 1.0), (260, 2.0), (600, 4.0), (800, 8.0), (950, 16.0), (1900, 32.0)]:
        sent.append(robot.Sent("/reward", "std_msgs/msg/Float64", robot.START + t * robot.MS, 0, {"data": reward}))
    for s in sent:
        s.stamp -= robot.START - 1000 * robot.MS
    stamped = "\n".join(line for line in text.splitlines() if "/gripper" not in line)
    first, second = BagEpisodes(write_bag(sent), contract=contract_file(text=stamped))
    assert first.rewards.tolist() == [0, 2, 0, 4]
    assert second.rewards.tolist() == [0, 16, 0, 32]


@pytest.mark.parametrize("options", [{}, {"outcome": "success"}], ids=["as logged", "an outcome for those that say none"])
@pytest.mark.parametrize(
    ("word", "success", "found"),
    [("failure", True, "failed"), ("timeout", True, "failed"), ("success", False, "succeeded")],
)
def test_success_does_not_pass_over_what_a_bag_says(ended, contract_file, word, success, found, options) -> None:
    path = ended(word)
    said = f"episode 0: success:{str(success).lower()} contradicts the data, which say that it {found}; leave it out"
    with pytest.raises(DatasetError, match=said) as caught:
        opened(path, contract_file(), success=success, **options).read(0)
    assert str(path) in str(caught.value)


def test_success_speaks_for_bags_that_do_not_say_how_they_ended(ended, contract_file) -> None:
    source = opened(ended("hello"), contract_file(), success=True, outcome="failure")
    assert source.read(0).success
    assert not source.says_success(0)


def test_success_agrees_with_bags_that_say_the_same(ended, contract_file) -> None:
    source = opened(ended("success"), contract_file(), success=True)
    assert source.read(0).success
    assert source.says_success(0)

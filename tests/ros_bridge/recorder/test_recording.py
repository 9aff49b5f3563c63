"""Episodes become bags: when they begin and end, what their label says, and what the audit finds."""

import errno
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags")

from rosbags.rosbag2 import Reader

from qtransformer.errors import ConfigError, DatasetError
from qtransformer.types import Episode
from qtransformer_datasets import open_episodes
from qtransformer_datasets.rosbag.contract_entries import ActionTopic, OutcomeRule, VectorTopic
from qtransformer_datasets.rosbag.storage import open_bag
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.recorder import recorded_bag
from qtransformer_ros.recorder.recorded_bag import check_folder, next_name, offered
from tests.ros_bridge.kuka_bags import CONTRACT, MS, PERIOD, START, Playback, Sent, header, make, messages, word


@pytest.fixture
def episode() -> Episode:
    rng = np.random.default_rng(0)
    ends = np.array([False, False, False, True])
    return Episode(
        images={"wrist": rng.integers(0, 256, (5, 64, 64, 3), np.uint8)},
        proprio=rng.normal(size=(5, 15)).astype(np.float32),
        actions=np.zeros((4, 6), np.float32),
        rewards=np.float32([0, 0, 0, 1]),
        terminated=ends,
        truncated=np.zeros(4, bool),
        instruction="pick up any object",
        success=True,
    )


@pytest.fixture
def actions() -> np.ndarray:
    rng = np.random.default_rng(1)
    limits = np.array([0.03, 0.03, 0.05, 0.4])
    return np.concatenate([rng.uniform(-limits, limits, (4, 4)), [[0, 0], [0, 0], [1, 0], [1, 1]]], axis=1)


@pytest.fixture
def playback(tmp_path: Path) -> Playback:
    return Playback(tmp_path / "bags")


def names(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir())


def test_an_episode_is_a_labelled_bag_that_reads_back_bit_for_bit(playback: Playback, episode, actions) -> None:
    playback.play(messages(episode, actions, playback.contract))
    folder = playback.recorder.folder
    assert names(folder) == ["episode_0001", "episode_0001.audit.json"]
    assert names(folder / "episode_0001") == ["episode_0001.mcap", "metadata.yaml"]
    source = open_episodes(folder, contract=CONTRACT)
    (read,) = source
    assert read.images["wrist"].tobytes() == episode.images["wrist"].tobytes()
    assert read.proprio.tobytes() == episode.proprio.tobytes()
    assert source.action_spec.to_units(read.actions) == pytest.approx(actions, abs=1e-7)
    assert (read.success, read.rewards.tolist(), read.instruction) == (True, [0, 0, 0, 1], "pick up any object")
    label = open_bag(folder / "episode_0001").custom_data
    assert label == {"task": "pick up any object", "seed": "3", "outcome": "success", "audit": "ok"}
    audit = json.loads((folder / "episode_0001.audit.json").read_text())
    assert (audit["ok"], audit["steps"], audit["outcome"], audit["problems"]) == (True, 4, "success", [])
    assert audit["counts"]["/camera/wrist/image_raw"] == 5
    assert audit["rates_hz"]["/tool_state"] == [pytest.approx(4), pytest.approx(0.9 / 0.3)]
    assert [said for said in playback.said if said[0]] == []


def without(sent: Any, topic: str, at: int | None = None) -> list[Any]:
    """All but one topic, or but one of its messages."""
    own = [s for s in sent if s[0] == topic]
    dropped = own if at is None else [own[at]]
    return [s for s in sent if not any(s is d for d in dropped)]


@pytest.mark.parametrize(
    ("topic", "at", "problem", "refusal"),
    [
        ("/joint_states", None, "no message on /joint_states", "has no topic /joint_states"),
        (
            "/qtransformer_policy/consumed",
            None,
            "no message on /qtransformer_policy/consumed",
            "has no topic /qtransformer_policy/co",
        ),
        ("/tool_state", 2, rf"/tool_state stamped {10**9 + 2 * PERIOD} ns, which is not in the bag", "which is not in the bag"),
        ("/policy/terminate", 1, r"/policy/terminate: nothing for 0\.250 s", r"/policy/terminate: nothing for 0\.250 s"),
        ("/episode/event", -1, "nothing said how it ended", "does not say how it ended"),
    ],
)
def test_what_a_reader_would_refuse_fails_the_audit(
    playback: Playback, episode, actions, topic: str, at: Any, problem: str, refusal: str
) -> None:
    playback.play(iter(without(list(messages(episode, actions, playback.contract)), topic, at)))
    playback.recorder.close()
    assert playback.recorder.last is not None
    verdict = playback.recorder.last.verdict()
    assert verdict.startswith("failed: ")
    assert re.search(problem, verdict), verdict
    assert open_bag(playback.recorder.folder / "episode_0001").custom_data["audit"] == verdict
    assert playback.said[-1][0], "loud"
    assert playback.recorder.status()[0] is False
    with pytest.raises(DatasetError, match=refusal):
        open_episodes(playback.recorder.folder, contract=CONTRACT)


def test_a_topic_of_another_type_fails_the_audit(playback: Playback, episode, actions) -> None:
    sent = list(messages(episode, actions, playback.contract))
    wrong = [(t, "std_msgs/msg/String", r, word("closed")) if t == "/policy/terminate" else (t, k, r, m) for t, k, r, m in sent]
    playback.play(iter(wrong))
    assert playback.recorder.last is not None
    assert "/policy/terminate expected std_msgs/msg/Bool, found std_msgs/msg/String" in playback.recorder.last.verdict()


def test_a_start_ends_the_episode_before(playback: Playback, episode, actions) -> None:
    for k in range(2):
        for sent in messages(episode, actions, playback.contract, START + k * 200 * MS):
            playback.send(sent)
    playback.recorder.close()
    assert [e.info["bag"] for e in open_episodes(playback.recorder.folder, contract=CONTRACT)] == ["episode_0001", "episode_0002"]


def test_discarded_episodes_leave_nothing(playback: Playback, episode, actions) -> None:
    sent = list(messages(episode, actions, playback.contract))
    for one in sent[:-1]:
        playback.send(one)
    playback.send(("/episode/event", "std_msgs/msg/String", sent[-1][2], word("discard")))
    assert names(playback.recorder.folder) == []
    assert playback.recorder.status()[1] == "idle"


def test_by_request(tmp_path: Path, episode, actions) -> None:
    playback = Playback(tmp_path, auto=False, post_roll_s=0.0)
    recorder = playback.recorder
    with pytest.raises(DatasetError, match="nothing is being recorded; start first"):
        recorder.stop(0.0)
    assert recorder.start() == "episode_0001"
    with pytest.raises(DatasetError, match="episode_0001 is being recorded"):
        recorder.start()
    for one in messages(episode, actions, playback.contract):
        playback.send(one)
    recorder.stop(1.0)
    recorder.tick(1.0)
    assert recorder.last is not None
    assert recorder.last.is_ok
    assert recorder.start() == "episode_0002"
    assert recorder.discard() == "episode_0002"


def test_a_command_from_before_the_start_counts_while_it_holds(tmp_path: Path) -> None:
    """A gripper is told once, and the steps from then on are the episode's: here it was opened by hand before it began."""
    gripper = ActionTopic(
        topic="/gripper", type="Float64MultiArray", values=("gripper",), units=("1",), low=(0.0,), high=(1.0,), tolerance_s=60.0
    )
    arm = ActionTopic(topic="/arm", type="JointState", joints=("a",), units=("rad",), low=(-3.0,), high=(3.0,))
    joints = VectorTopic(topic="/joint_states", type="JointState", joints=("a",), units=("rad",))
    contract = TopicContract(
        control_hz=10.0, tolerance_s=0.1, proprio=(joints,), action=(arm, gripper), outcome=OutcomeRule(custom_data="outcome")
    )
    for opened_s, steps, told in ((5.0, 18, 2), (61.0, 9, 1)):
        playback = Playback(tmp_path / f"{opened_s}", contract, auto=False)
        playback.words = {"outcome": "success"}
        playback.send(gripper_command(0.0, START - round(opened_s * 1e9)))
        for k in range(20):
            for topic in ("/joint_states", "/arm"):
                playback.send(joint_states(topic, START + k * 100 * MS))
            if k == 0:
                playback.recorder.start()
            if k == 10:
                playback.send(gripper_command(1.0, START + k * 100 * MS))
        playback.recorder.close()
        assert playback.recorder.last is not None
        assert (playback.recorder.last.steps, playback.recorder.last.counts["/gripper"]) == (steps, told), opened_s


def gripper_command(value: float, at: int) -> Sent:
    kind, layout = "std_msgs/msg/Float64MultiArray", make("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
    return "/gripper", kind, at, make(kind, layout=layout, data=np.array([value]))


def joint_states(topic: str, at: int) -> Sent:
    kind, none = "sensor_msgs/msg/JointState", np.zeros(0)
    return topic, kind, at, make(kind, header=header(at), name=["a"], position=np.array([0.1]), velocity=none, effort=none)


def test_a_bag_that_failed_its_audit_can_be_discarded_and_a_good_one_cannot(tmp_path: Path, episode, actions) -> None:
    playback = Playback(tmp_path, auto=False, post_roll_s=0.0)
    recorder = playback.recorder
    sent = list(messages(episode, actions, playback.contract))
    for messages_of_one in (sent[: len(sent) // 2], sent):
        recorder.start()
        playback.play(iter(messages_of_one))
        recorder.stop(0.0)
        recorder.tick(0.0)
        assert recorder.last is not None
        if not recorder.last.is_ok:
            assert recorder.discard() == "episode_0001"
    assert names(recorder.folder) == ["episode_0001", "episode_0001.audit.json"]
    assert recorder.last.is_ok
    with pytest.raises(DatasetError, match="nothing is being recorded, and no audit failed"):
        recorder.discard()


def test_samples_from_just_before_the_start_are_kept(playback: Playback, episode, actions) -> None:
    sent = list(messages(episode, actions, playback.contract))
    start = sent[0]
    late_start = (start[0], start[1], START + 3 * MS, start[3])  # after the first observation
    playback.play(iter([late_start, *sent[1:]]))
    assert playback.recorder.last is not None
    assert (playback.recorder.last.is_ok, playback.recorder.last.steps) == (True, 4)


def test_what_was_flushed_survives_a_kill(playback: Playback, episode, actions) -> None:
    for one in list(messages(episode, actions, playback.contract))[:-8]:
        playback.send(one)
    playback.recorder.tick(1e12)
    folder = playback.recorder.folder
    assert names(folder) == ["episode_0001.partial"]
    with pytest.raises(DatasetError, match=r"episode_0001\.partial: has no metadata\.yaml"):
        open_episodes(folder, contract=CONTRACT)
    (read,) = open_episodes(folder, contract=CONTRACT, partial=True)
    assert read.images["wrist"].tobytes() == episode.images["wrist"][: len(read) + 1].tobytes()
    assert next_name(folder) == "episode_0002"


def test_a_full_disk_is_said_once_and_the_next_start_tries_anew(playback: Playback, episode, actions, monkeypatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    sent = list(messages(episode, actions, playback.contract))
    playback.send(sent[0])
    with monkeypatch.context() as patch:
        patch.setattr(recorded_bag.Writer, "write", full)
        for one in sent[1:-1]:
            playback.send(one)
    errors = [text for is_error, text in playback.said if is_error]
    assert len(errors) == 1
    assert "cannot be written (No space left on device); free space" in errors[0]
    assert playback.recorder.status() == (False, errors[0], {})
    playback.play(messages(episode, actions, playback.contract, START + 10**9))
    assert playback.recorder.last is not None
    assert (playback.recorder.last.name, playback.recorder.last.is_ok) == ("episode_0002", True)


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="bags cannot be written there"):
        check_folder(tmp_path / "file")
    check_folder(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []


def test_a_subscription_asks_for_no_more_than_every_publisher_offers() -> None:
    assert offered([], []) == (False, False)
    assert offered([True, True], [True, False]) == (True, False)
    assert offered([True, False], [True, True]) == (False, True)


def test_types_are_those_of_the_distribution(playback: Playback, episode, actions) -> None:
    playback.play(messages(episode, actions, playback.contract))
    with Reader(playback.recorder.folder / "episode_0001") as reader:
        assert all(c.digest.startswith("RIHS01_") and c.msgdef.data for c in reader.connections)

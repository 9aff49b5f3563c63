"""`ros-demo` where there is no ROS: its plan, and what it says is missing. tests/ros_nodes runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from qtransformer.cli import ros_demo
from qtransformer.cli.main import main
from qtransformer.errors import ConfigError, QTransformerError
from qtransformer.types import Episode
from qtransformer_datasets import HDF5Episodes
from qtransformer_ros.recorder.episode_counts import EpisodeCounts, EpisodeOutcome
from tests.cli.console import TINY, qtransformer, write_dataset

pytest.importorskip("pybullet", reason="needs the simulator", exc_type=ImportError)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ros_demo")
    data, run = folder / "data.hdf5", folder / "run"
    for arguments in (
        ["collect", f"out={data}", "episodes=2", "recipe=expert", "workers=1", "max_steps=12", "num_objects=2"],
        ["train", f"dataset={data}", f"run={run}", "steps=2", "save_every=2", *TINY],
    ):
        result = qtransformer(*arguments)
        assert result.code == 0, result.err
    return run


def test_the_nodes_are_told_what_the_policy_was_trained_in(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ros-demo", f"run={trained}", "episodes=3", "seed=5", "dry_run=true"]) == 0
    plan = {node: value["ros__parameters"] for node, value in yaml.safe_load(capsys.readouterr().out).items()}
    sim = plan["qtransformer_sim"]
    assert (sim["max_steps"], sim["num_objects"], sim["cameras"], sim["control_hz"]) == (12, 2, ["wrist:64x64"], 4.0)
    assert sim["lockstep"] is plan["qtransformer_policy"]["lockstep"] is True
    assert plan["qtransformer_policy"]["checkpoint"].endswith("step_0000002")
    assert (plan["qtransformer_episodes"]["episodes"], plan["qtransformer_episodes"]["first_seed"]) == (3, 5)
    assert len({node["contract"] for name, node in plan.items() if name != "qtransformer_sim"}) == 1
    launched = yaml.safe_load((Path(__file__).parents[2] / "launch" / "params" / "sim.yaml").read_text())
    for node in ("qtransformer_sim", "qtransformer_policy"):
        assert launched[node]["ros__parameters"].items() <= plan[node].items(), "as the launch file starts them"


def test_a_checkpoint_of_another_robot_is_refused_before_anything_is_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    data = write_dataset(tmp_path / "tiny.hdf5")
    assert main(["train", f"dataset={data}", f"run={run}", "steps=2", "save_every=2", *TINY]) == 0
    capsys.readouterr()
    assert main(["ros-demo", f"run={run}", "dry_run=true"]) == 1
    told = capsys.readouterr()
    assert "the checkpoint and the contract differ in" in told.err
    assert "action: the contract lacks" in told.err
    assert told.out == ""


def test_a_node_that_crashed_is_told_with_its_last_words_and_is_no_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "qtransformer_sim.log").write_text("starting\nTraceback\nboom\n")
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    process.wait()
    with pytest.raises(QTransformerError, match=r"qtransformer_sim ended with code 3: .*boom; see the logs .*\*\.log") as caught:
        ros_demo._check({"qtransformer_sim": process}, tmp_path)
    assert not isinstance(caught.value, ConfigError)


@pytest.fixture
def acted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the nodes had acted what was asked of them, and every second episode had succeeded."""

    def act(out: Path, domain: int) -> None:
        asked = yaml.safe_load((out / "parameters.yaml").read_text())["qtransformer_episodes"]["ros__parameters"]
        counts = EpisodeCounts.open(out / "episodes.json")
        for seed in range(asked["first_seed"], asked["first_seed"] + asked["episodes"]):
            counts.add(EpisodeOutcome(seed=seed, outcome=("success", "failure")[seed % 2], steps=8, seconds=1.5))

    monkeypatch.setattr(ros_demo, "find_spec", lambda name: object())
    monkeypatch.setattr(ros_demo, "act", act)
    monkeypatch.setattr(ros_demo, "dataset", lambda *where: {})


@pytest.mark.usefixtures("acted")
def test_what_is_counted_are_the_episodes_asked_for(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ros-demo", f"run={trained}", f"out={tmp_path}", "compare=false"]
    for seed, episodes, told in ((5, 3, "success 0.33"), (20, 1, "success 1.00")):
        assert main([*words, f"seed={seed}", f"episodes={episodes}"]) == 0
        out = capsys.readouterr().out
        assert told in out
        assert f"in {episodes} episodes" in out


@pytest.mark.usefixtures("acted")
def test_a_folder_holds_episodes_of_one_checkpoint_and_one_split(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Test objects must not come among those that are trained on, and another checkpoint's successes are not this one's."""
    words = ["ros-demo", f"run={trained}", f"out={tmp_path}", "episodes=2", "compare=false"]
    assert main(words) == main(words) == 0, "the same goes on"
    assert main([*words, "split=train"]) == 1
    assert "holds episodes of another split (there test, asked for train); choose another out=" in capsys.readouterr().err
    asked = json.loads((tmp_path / "asked.json").read_text())
    (tmp_path / "asked.json").write_text(json.dumps({**asked, "checkpoint": "0"}))
    assert main(words) == 1
    assert "of another checkpoint (there 0, asked for " in capsys.readouterr().err
    (tmp_path / "asked.json").unlink()
    assert main(words) == 1
    assert "there unknown" in capsys.readouterr().err


def test_a_dataset_whose_making_was_killed_has_every_episode_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, killed = HDF5Episodes(write_dataset(tmp_path / "tiny.hdf5")), RuntimeError("killed")

    def read(index: int) -> Episode:
        if index == 3:
            raise killed
        return HDF5Episodes.read(source, index)

    monkeypatch.setattr(ros_demo, "open_episodes", lambda *path, contract: source)
    monkeypatch.setattr(source, "read", read)
    monkeypatch.setattr(HDF5Episodes, "__iter__", lambda source: (source.read(index) for index in range(len(source))))
    with pytest.raises(RuntimeError, match="killed"):
        ros_demo.dataset(tmp_path, "")
    monkeypatch.undo()
    monkeypatch.setattr(ros_demo, "open_episodes", lambda *path, contract: source)
    ros_demo.dataset(tmp_path, "")
    made = HDF5Episodes(tmp_path / "episodes.hdf5")
    assert [made.read(i).actions.tolist() for i in range(len(made))] == [episode.actions.tolist() for episode in source]


def test_without_ros_both_ways_to_get_it_are_named(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ros_demo, "find_spec", lambda name: None)
    assert main(["ros-demo", f"run={trained}"]) == 1
    error = capsys.readouterr().err
    assert "cannot import rclpy" in error
    assert ".[ros]" in error
    assert "/opt/ros" in error

"""`ros-demo` where there is no ROS: its plan, and what it says is missing. tests/ros_nodes runs it."""

from pathlib import Path

import pytest
import yaml
from console import TINY, qtransformer, write_dataset

from qtransformer.cli import ros_demo
from qtransformer.cli.main import main
from qtransformer.types import Episode
from qtransformer_datasets import HDF5Episodes

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
    assert "qtransformer[ros]" in error
    assert "/opt/ros" in error

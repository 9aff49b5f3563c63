"""Trainings at the same time: shell scripts in their place, which end when they are told to."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from qtransformer.cli.run_config import RunConfig
from qtransformer.cli.side_by_side import LOG, Training, train_side_by_side
from qtransformer.config import TrainConfig
from qtransformer.errors import ConfigError, QTransformerError


@dataclass(frozen=True, slots=True)
class Script(Training):
    def config(self) -> RunConfig:
        return RunConfig(datasets=[], train=TrainConfig(steps=3))

    def is_complete(self) -> bool:
        return (self.run / "complete").exists()

    def start(self, held: Sequence[int] = ()) -> subprocess.Popen[bytes]:
        self.run.mkdir()
        with (self.run / LOG).open("wb") as log:
            return subprocess.Popen(["bash", "-c", *self.arguments], cwd=self.run.parent, stdout=log)


def script(directory: Path, name: str, command: str) -> Script:
    return Script(name, directory / name, (command,))


def until(file: str) -> str:
    return f"until [ -e {file} ]; do sleep 0.02; done"


def test_what_ends_first_is_told_of_while_the_other_goes_on(tmp_path: Path) -> None:
    told: list[str] = []

    def tell(ended: Training) -> None:
        told.append(ended.name)
        (tmp_path / "told").touch()  # without which the other one would go on for ever

    train_side_by_side([script(tmp_path, "long", until("told")), script(tmp_path, "short", "true")], tell)
    assert told == ["short"]


def test_a_training_that_fails_is_named_and_stops_the_others(tmp_path: Path) -> None:
    told: list[Training] = []
    trainings = [script(tmp_path, "endless", until("never")), script(tmp_path, "broken", "echo no memory; exit 3")]
    with pytest.raises(QTransformerError, match=r"broken ended with exit code 3; .*train\.log says: no memory"):
        train_side_by_side(trainings, told.append)
    assert not told


def test_a_training_goes_on_with_other_cores_but_not_with_other_settings(tmp_path: Path, dataset: Path) -> None:
    training = Training("q", tmp_path / "run", (f"dataset={dataset}", "steps=3", "threads=2", "device=cpu"))
    training.config().save(training.run)
    assert not replace(training, arguments=(f"dataset={dataset}", "steps=3", "threads=1", "device=auto")).is_complete()
    with pytest.raises(ConfigError, match=r"steps: there 3, asked for 4\)"):
        replace(training, arguments=(f"dataset={dataset}", "steps=4", "threads=1")).is_complete()


def test_what_is_complete_is_not_started(tmp_path: Path) -> None:
    done = script(tmp_path, "done", "touch ../started")
    done.run.mkdir()
    (done.run / "complete").touch()
    train_side_by_side([done])
    assert not (tmp_path / "started").exists()

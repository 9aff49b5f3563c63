"""`data relabel`: by flag, by hand, by function; a stopped one goes on with the same labels alone."""

import os
from pathlib import Path
from typing import Any

import pytest

from qtransformer.cli.data.relabel import load_function
from qtransformer_datasets import HDF5Writer, open_episodes
from tests.cli.console import successes


def test_relabel_by_flag_hand_and_function(run, dataset: Path, tmp_path: Path) -> None:
    assert run("relabel", str(dataset), f"out={tmp_path}/a.hdf5", "success=true", "rewards=success")[0] == 0
    assert [e.rewards.tolist() for e in open_episodes(tmp_path / "a.hdf5")] == [[0, 0, 0, 0, 0, 1]] * 8
    (tmp_path / "l.csv").write_text("episode,success\n0,false\n1,true\n")
    assert run("relabel", str(dataset), f"out={tmp_path}/b.hdf5", f"labels={tmp_path}/l.csv")[0] == 0
    assert successes(tmp_path / "b.hdf5") == [False, True, True, False, True, False, True, False]
    assert run("relabel", str(dataset), f"out={tmp_path}/c.hdf5", "function=tests.cli.console:loses")[0] == 0
    assert successes(tmp_path / "c.hdf5") == [False, True] * 4


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ([], "needs success=..., labels=..., function=... or rewards=success"),
        (["success=true", "function=a:b"], "takes one of success, labels, function, found success, function"),
        (["function=nowhere:f"], "cannot be found"),
        (["function=tests.cli.console"], "cannot be found"),
        (["function=tests.cli.console:COMMAND"], "expected a function, found list"),
        (["success=maybe"], "success: expected"),
    ],
)
def test_relabel_refuses_what_is_unclear(run, dataset: Path, tmp_path: Path, words: list[str], answer: str) -> None:
    code, _, err = run("relabel", str(dataset), f"out={tmp_path}/a.hdf5", *words)
    assert code == 2
    assert answer in err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def stopped_relabel(run, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`data relabel` with these words, stopped as by a kill after three episodes; gives the words to run again."""

    def stop(*words: str) -> list[str]:
        command = ["relabel", str(dataset), f"out={tmp_path}/out.hdf5", *words]
        append, left = HDF5Writer.append, iter(range(3))

        def stopping(self: HDF5Writer, episode: Any) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            append(self, episode)

        with monkeypatch.context() as patch:
            patch.setattr(HDF5Writer, "append", stopping)
            assert run(*command)[0] == 130
        return command

    return stop


def test_a_stopped_relabel_goes_on_only_with_the_same_labels(run, stopped_relabel, tmp_path: Path) -> None:
    labels = tmp_path / "l.csv"
    labels.write_text("episode,success\n0,false\n")
    command = stopped_relabel(f"labels={labels}")
    labels.write_text("episode,success\n0,true\n")
    code, _, err = run(*command)
    assert code == 1
    assert "attributes.derived.labels_sha256 differs from the run being resumed" in err
    labels.write_text("episode,success\n0,false\n")
    code, told, _ = run(*command)
    assert code == 0
    assert "going on after 3 episodes" in told


def test_a_stopped_relabel_goes_on_only_with_the_same_function(run, stopped_relabel, tmp_path: Path, monkeypatch) -> None:
    module = tmp_path / "judge_of_hand.py"
    module.write_text("def judge(episode):\n    return True\n")
    monkeypatch.syspath_prepend(tmp_path)
    command = stopped_relabel("function=judge_of_hand:judge")
    module.write_text("def judge(episode):\n    return False\n")
    code, _, err = run(*command)
    assert code == 1
    assert "attributes.derived.function_sha256 differs" in err


def test_a_stopped_relabel_goes_on_only_with_the_same_source(run, stopped_relabel, dataset: Path) -> None:
    command = stopped_relabel("success=true")
    times = dataset.stat()
    os.utime(dataset, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    code, _, err = run(*command)
    assert code == 1
    assert "attributes.derived.source_stamps differs" in err


def test_functions_are_found_by_name() -> None:
    assert load_function("tests.cli.console:loses").__name__ == "loses"

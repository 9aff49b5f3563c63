"""What the data verbs are told: paths, options, results."""

import shutil
from pathlib import Path

import pytest

from qtransformer.cli.compose import UsageError, compose_settings


def test_the_path_needs_no_key_and_options_reach_the_reader() -> None:
    settings = compose_settings("data inspect", ["path=a b,c.hdf5", "dones=terminated", "control_hz=20", "cameras={new:old}"])
    assert settings.path == "a b,c.hdf5"
    assert settings.options == {"dones": "terminated", "control_hz": 20, "cameras": {"new": "old"}}


@pytest.mark.parametrize(
    ("value", "read"), [("1e-3", 1e-3), ("true", True), ("/a/b (c).yaml", "/a/b (c).yaml"), ("[a,b]", ["a", "b"]), ("a,b", "a,b")]
)
def test_options_may_be_anything_plain(value: str, read: object) -> None:
    assert compose_settings("data stats", ["path=a", f"thing={value}"]).options == {"thing": read}


def test_options_of_the_writer_are_set_apart() -> None:
    settings = compose_settings("data convert", ["path=a", "out=b", "out.crf=20", "fps=3"])
    assert (settings.out_options, settings.options) == ({"crf": 20}, {"fps": 3})
    with pytest.raises(UsageError, match=r"no setting 'out\.crf'"):
        compose_settings("data inspect", ["path=a", "out.crf=20"])


@pytest.mark.parametrize("words", [["inspect", "json="], ["stats", "json="], ["view", "out="]])
def test_a_result_takes_no_dataset_s_place(run, dataset: Path, tmp_path: Path, words: list[str]) -> None:
    kept = tmp_path / "precious.hdf5"
    shutil.copy(dataset, kept)
    code, _, err = run(words[0], str(dataset), f"{words[1]}{kept}")
    assert code == 2
    assert f"{words[1]}{kept}: exists, and is no " in err
    assert kept.read_bytes() == dataset.read_bytes()


def test_a_path_may_look_like_a_setting(run, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "date=2026-11-30").mkdir()
    shutil.copy(dataset, tmp_path / "date=2026-11-30" / "a.hdf5")
    code, out, _ = run("inspect", "date=2026-11-30/a.hdf5")
    assert (code, "episodes" in out) == (0, True)
    code, _, err = run("inspect", "date=2026-12-01/a.hdf5")
    assert (code, "data inspect needs path=" in err) == (2, True)


def test_without_a_verb_the_verbs_are_listed(run) -> None:
    code, out, _ = run()
    assert code == 0
    assert all(f"data {verb}" in out for verb in ("inspect", "validate", "convert", "view", "stats", "split", "merge", "relabel"))


@pytest.mark.parametrize(("option", "answer"), [("done=terminated", "did you mean dones?"), ("jsn=x", "did you mean json?")])
def test_an_option_that_nobody_has_is_refused(run, dataset: Path, option: str, answer: str) -> None:
    code, _, err = run("inspect", str(dataset), option)
    assert code == 1
    assert answer in err


@pytest.mark.parametrize("words", [["convert", "a", "b", "out=c"], ["view", "in=a", "b"]])
def test_one_path_where_one_is_meant(run, words: list[str]) -> None:
    code, _, err = run(*words)
    assert code == 2
    assert "takes one path, found 2" in err

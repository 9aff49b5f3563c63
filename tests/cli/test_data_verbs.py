"""The data verbs as a user meets them: what they print, write, refuse, and exit with."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from console import OBSERVATION, kill_hard, qtransformer, start, wait_until, write_dataset

from qtransformer.cli.compose import UsageError, compose_settings
from qtransformer.cli.data.relabel import load_function
from qtransformer.cli.data.view import send_episode
from qtransformer.cli.main import main
from qtransformer.types import Episode
from qtransformer_datasets import HDF5Writer, formats, open_episodes
from qtransformer_datasets.robomimic import writer as robomimic_writer


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """The command in this process: its exit code, and what it printed."""

    def call(*words: str) -> tuple[int, str, str]:
        code = main(["data", *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def successes(path: Path) -> list[bool]:
    return [episode.success for episode in open_episodes(path)]


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


def test_inspect_prints_and_saves(run, dataset: Path, tmp_path: Path) -> None:
    code, out, _ = run("inspect", str(dataset), f"json={tmp_path}/new/i.json")
    assert code == 0
    assert "episodes      8" in out
    numbers = json.loads((tmp_path / "new" / "i.json").read_text())
    assert (numbers["episodes"], numbers["steps"], numbers["success"]["rate"]) == (8, 48, 0.5)
    assert [column["name"] for column in numbers["actions"]] == ["dx", "close"]


def test_inspect_of_what_cannot_be_read_fails(run, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "low.hdf5").write_bytes(dataset.read_bytes())
    code, out, _ = run("inspect", str(tmp_path))
    assert code == 1
    assert "found a folder that holds low.hdf5; name one" in out
    code, _, err = run("inspect", f"{tmp_path}/lwo.hdf5")
    assert code == 1
    assert f"found nothing; did you mean {tmp_path}/low.hdf5?" in err
    (tmp_path / "ci2.hdf5.partial").mkdir()
    (tmp_path / "ci2.hdf5.partial" / "recipe.json").write_text("{}")
    code, _, err = run("inspect", f"{tmp_path}/ci2.hdf5")
    assert code == 1
    assert "ci2.hdf5: not finished, its episodes lie in" in err


def test_stats_of_dimensions_in_robot_units(run, dataset: Path, tmp_path: Path) -> None:
    code, out, _ = run("stats", str(dataset), f"json={tmp_path}/s.json")
    assert code == 0
    assert "q99" in out
    numbers = json.loads((tmp_path / "s.json").read_text())
    dx = np.concatenate([e.actions[:, 0] for e in open_episodes(dataset)]).astype(float) * 0.05
    column = numbers["actions"][0]
    assert [column[k] for k in ("mean", "std", "q10", "max")] == pytest.approx(
        [dx.mean(), dx.std(), np.quantile(dx, 0.1), dx.max()]
    )
    pixels = np.concatenate([e.images["wrist"] for e in open_episodes(dataset)]).reshape(-1, 3).astype(float)
    assert numbers["cameras"]["wrist"]["mean"] == pytest.approx(pixels.mean(0))
    assert numbers["cameras"]["wrist"]["std"] == pytest.approx(pixels.std(0))
    assert numbers["instructions"][""]["episodes"] == 8


@pytest.mark.parametrize(("option", "answer"), [("done=terminated", "did you mean dones?"), ("jsn=x", "did you mean json?")])
def test_an_option_that_nobody_has_is_refused(run, dataset: Path, option: str, answer: str) -> None:
    code, _, err = run("inspect", str(dataset), option)
    assert code == 1
    assert answer in err


def test_validate_lists_all_of_all_and_fails(tmp_path: Path) -> None:
    good, bad = write_dataset(tmp_path / "good.hdf5"), write_dataset(tmp_path / "sub.hdf5")
    with h5py.File(bad, "r+") as file:
        file["data/demo_1/actions"][0, 0] = 2
        file["data/demo_5/rewards"][0] = np.nan
    (tmp_path / "torn.hdf5").write_bytes(good.read_bytes()[:5000])
    result = qtransformer("data", "validate", str(tmp_path), f"{tmp_path}/none.hdf5", f"json={tmp_path}/v.json")
    assert result.code == 1
    assert f"good  {good}: 8 episodes, 48 steps" in result.out
    for word in (
        "demo_1: actions",
        "demo_5: rewards",
        "torn.hdf5: the file is truncated",
        "none.hdf5: expected an HDF5 file, found nothing",
    ):
        assert word in result.out
    assert "4 datasets, 14 readable episodes, 84 steps: 4 problems in 3 datasets" in result.out
    assert [len(v["problems"]) for v in json.loads((tmp_path / "v.json").read_text())] == [0, 2, 1, 1]


def test_validate_outlives_a_file_that_hangs_its_library(run, dataset: Path, tmp_path: Path) -> None:
    """A blank object on the heap of strings is followed by itself, for ever: libhdf5 never returns."""
    hangs = tmp_path / "a_hangs.hdf5"
    with h5py.File(hangs, "w") as file:
        file.create_group("data/demo_0").attrs["num_samples"] = 1
        file["data"].attrs["env_args"] = "{}"
    raw = bytearray(hangs.read_bytes())
    heap = raw.index(b"GCOL")
    raw[heap + 16 : heap + 32] = bytes(16)
    hangs.write_bytes(raw)
    (tmp_path / "b.hdf5").write_bytes(dataset.read_bytes())
    code, out, _ = run("validate", str(tmp_path), "timeout=2")
    assert code == 1
    assert f"{hangs}: its reader hung and was stopped while it was opened; restore the file from its source" in out
    assert f"good  {tmp_path}/b.hdf5: 8 episodes, 48 steps" in out


def test_validate_refuses_an_option_that_nobody_has(run, dataset: Path) -> None:
    code, _, err = run("validate", str(dataset), "done=terminated")
    assert code == 1
    assert "did you mean dones?" in err


def test_validate_of_good_data_exits_with_0(run, dataset: Path) -> None:
    code, out, _ = run("validate", str(dataset), str(dataset))
    assert code == 0
    assert out.endswith("2 datasets, 16 readable episodes, 96 steps: no problems\n")


def test_convert_keeps_every_number(run, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy.hdf5"
    code, told, _ = run("convert", f"in={dataset}", f"out={out}")
    assert code == 0
    assert "everything is the same" in told
    assert open_episodes(out).attributes["derived"]["from"] == [{"name": "tiny.hdf5"}]
    code, _, err = run("convert", f"in={dataset}", f"out={out}")
    assert code == 1
    assert "expected a free path" in err


def test_convert_with_other_cameras_and_smaller_images(run, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.hdf5"
    assert run("convert", str(dataset), f"out={out}", "cameras={hand:wrist}", "image_size=8")[0] == 0
    assert dict(open_episodes(out).observation_spec.cameras) == {"hand": (8, 8, 3)}


def test_a_bad_episode_is_not_converted(run, tmp_path: Path) -> None:
    bad = write_dataset(tmp_path / "bad.hdf5")
    with h5py.File(bad, "r+") as file:
        file["data/demo_1/actions"][0, 0] = 2
    code, _, err = run("convert", str(bad), f"out={tmp_path}/a.hdf5")
    assert code == 1
    assert "demo_1" in err
    assert not (tmp_path / "a.hdf5").exists()


def test_a_dry_run_converts_nothing(run, dataset: Path, tmp_path: Path) -> None:
    code, told, _ = run("convert", str(dataset), f"out={tmp_path}/x", "dry_run=true")
    assert code == 0
    assert f"8 episodes of {dataset} to {tmp_path}/x (robomimic)" in told
    assert not list(tmp_path.iterdir())


def test_what_a_format_loses_is_said_first_and_what_it_hides_is_an_error(
    run, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses(action_spec, observation_spec, **options):
        return {"images": "stored as video"}

    class Lossy(robomimic_writer.HDF5Writer):
        def append(self, episode: Episode) -> None:
            super().append(replace(episode, images={name: rows ^ 1 for name, rows in episode.images.items()}))

    monkeypatch.setattr(robomimic_writer, "losses", losses, raising=False)
    monkeypatch.setattr(robomimic_writer, "Lossy", Lossy, raising=False)
    [kind] = [f for f in formats.FORMATS if f.name == "robomimic"]
    lossy = replace(kind, writer="robomimic.writer:Lossy")
    monkeypatch.setattr(formats, "FORMATS", (replace(lossy, losses="robomimic.writer:losses"),))
    code, told, _ = run("convert", str(dataset), f"out={tmp_path}/a.hdf5")
    assert code == 0
    assert told.index("lost: images: stored as video") < told.index("PSNR 48.1 dB, worst episode 48.1 dB")
    monkeypatch.setattr(formats, "FORMATS", (lossy,))
    code, _, err = run("convert", str(dataset), f"out={tmp_path}/b.hdf5")
    assert code == 1
    assert "it differs from what was written (images: camera wrist)" in err


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["format=lerobot", "out.image=av1"], "lerobot has no option 'out.image'; did you mean out.images?"),
        (["format=lerobot", "out.images=video"], "out.images expected png, av1 or h264, found video"),
        (["format=robomimic", "out.images=png"], "robomimic has no option 'out.images'; there are: none"),
        (["format=minari"], "minari can be read but not written; choose one of robomimic, lerobot"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_said(
    run, dataset: Path, tmp_path: Path, words: list[str], answer: str
) -> None:
    code, told, err = run("convert", str(dataset), f"out={tmp_path}/x", "dry_run=true", *words)
    assert (code, told) == (1, "")
    assert answer in err


def test_a_killed_conversion_goes_on(tmp_path: Path) -> None:
    big = write_dataset(tmp_path / "big.hdf5", replace(OBSERVATION, cameras={"wrist": (256, 256, 3)}))
    out = tmp_path / "out.hdf5"
    process = start("data", "convert", f"in={big}", f"out={out}")
    wait_until(lambda: len(list(tmp_path.glob("out.hdf5.partial/demo_*.hdf5"))) >= 2, process)
    kill_hard(process)
    assert not out.exists(), "killed after its end: nothing was tested"
    result = qtransformer("data", "convert", f"in={big}", f"out={out}")
    assert result.code == 0, result.err
    assert "going on after" in result.out
    assert "everything is the same" in result.out


def test_split_writes_parts_once(run, dataset: Path, tmp_path: Path) -> None:
    words = ["split", str(dataset), f"out={tmp_path}/parts", "train=.5", "validation=.25", "test=.25"]
    assert run(*words, "dry_run=true")[0] == 0
    assert not (tmp_path / "parts").exists()
    assert run(*words)[0] == 0
    parts = [tmp_path / "parts" / f"{name}.hdf5" for name in ("train", "validation", "test")]
    assert [sum(successes(part)) for part in parts] == [2, 1, 1]
    assert [len(successes(part)) for part in parts] == [4, 2, 2]
    parts[2].unlink()
    assert run(*words)[0] == 0, "the same command goes on with what is missing"
    assert parts[2].exists()
    parts[0].unlink()
    for more in ([], ["dry_run=true"]):
        code, told, err = run(*words, "seed=1", *more)
        assert code == 1
        assert "made otherwise" in err
        assert not told, "nothing is told of parts that are not written"
    assert not parts[0].exists()


def test_a_part_without_a_success_is_warned_of(run, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "rare.hdf5")
    with h5py.File(data, "r+") as file:
        for index in (2, 4, 6):
            file[f"data/demo_{index}"].attrs["success"] = False
    words = ["split", str(data), f"out={tmp_path}/parts", "dry_run=true", "train=.5", "validation=.25", "test=.25"]
    for masks in ("false", "true"):
        with pytest.warns(UserWarning, match="no success among the episodes of train and test, though the dataset has 1: `eval"):
            assert run(*words, f"masks={masks}")[0] == 0


def test_split_by_masks_copies_the_file_and_names_the_parts(run, dataset: Path, tmp_path: Path) -> None:
    original, out = dataset.read_bytes(), tmp_path / "new" / "masked.hdf5"
    words = ["split", str(dataset), f"out={out}", "masks=true", "train=.5", "validation=.25", "test=.25"]
    assert run(*words, "dry_run=true")[0] == 0
    assert not out.exists()
    code, told, _ = run(*words)
    assert code == 0
    assert f"{out}, mask valid: 2 episodes, 1 successful: " in told
    assert dataset.read_bytes() == original
    kept = {name: [e.success for e in open_episodes(out, filter_key=name)] for name in ("train", "valid", "test")}
    assert {name: (len(won), sum(won)) for name, won in kept.items()} == {"train": (4, 2), "valid": (2, 1), "test": (2, 1)}
    assert run("validate", str(out))[0] == 0
    assert run("split", str(dataset), f"out={tmp_path}/parts", "train=.5", "validation=.25", "test=.25")[0] == 0
    for part, mask in {"train": "train", "validation": "valid", "test": "test"}.items():
        apart, masked = open_episodes(tmp_path / "parts" / f"{part}.hdf5"), open_episodes(out, filter_key=mask)
        assert [e.actions.tobytes() for e in apart] == [e.actions.tobytes() for e in masked]
    code, _, err = run(*words)
    assert code == 1
    assert "expected a free path" in err


def test_a_split_without_validation_leaves_no_mask_for_it(run, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.hdf5", tmp_path / "masked.hdf5"
    data = write_dataset(tmp_path / "half.hdf5")
    assert run("merge", str(data), str(data), f"out={whole}")[0] == 0
    with h5py.File(whole) as file:
        assert file["mask/valid"].shape == (1,)
    assert run("split", str(whole), f"out={out}", "masks=true", "train=.5", "validation=0", "test=.5")[0] == 0
    with h5py.File(out) as file:
        assert set(file["mask"]) == {"train", "test"}


def test_masks_within_a_mask_are_named_after_both(run, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "masked.hdf5"
    words = ["split", str(dataset), f"out={out}", "masks=true", "filter_key=train", "train=.5", "validation=.5", "test=0"]
    with h5py.File(dataset) as file:
        before = set(file["mask/train"][()].tolist())
    assert run(*words)[0] == 0
    with h5py.File(out) as file:
        masks = {name: set(names[()].tolist()) for name, names in file["mask"].items()}
    assert set(masks) == {"train", "valid", "train_train", "train_valid"}
    assert masks["train"] == before == masks["train_train"] | masks["train_valid"]
    assert not masks["train_train"] & masks["train_valid"]


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("image_size=8", "found image_size; apply that with `data convert`"),
        ("on_bad_episode=skip", "found on_bad_episode"),
        ("out.crf=3", "found out.crf"),
        ("format=lerobot", "found lerobot and robomimic"),
    ],
)
def test_a_copy_with_masks_changes_nothing_else(run, dataset: Path, tmp_path: Path, word: str, answer: str) -> None:
    code, _, err = run("split", str(dataset), f"out={tmp_path}/m.hdf5", "masks=true", word)
    assert code == 2
    assert answer in err
    assert not list(tmp_path.iterdir())


def test_shares_must_add_up(run, dataset: Path, tmp_path: Path) -> None:
    code, _, err = run("split", str(dataset), f"out={tmp_path}/p", "train=.5")
    assert code == 2
    assert "train=0.5 validation=0.1 test=0.1" in err


def test_merge_joins_what_agrees(run, dataset: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other.hdf5", replace(OBSERVATION, cameras={"front": (16, 16, 3)}))
    code, _, err = run("merge", str(dataset), str(other), f"out={tmp_path}/m.hdf5")
    assert code == 1
    assert "cameras={wrist:front}" in err
    assert run("merge", str(dataset), str(dataset), f"out={tmp_path}/m.hdf5")[0] == 0
    assert len(open_episodes(tmp_path / "m.hdf5")) == 16
    assert run("merge", str(dataset), f"out={tmp_path}/n.hdf5")[0] == 2


def test_relabel_by_flag_hand_and_function(run, dataset: Path, tmp_path: Path) -> None:
    assert run("relabel", str(dataset), f"out={tmp_path}/a.hdf5", "success=true", "rewards=success")[0] == 0
    assert [e.rewards.tolist() for e in open_episodes(tmp_path / "a.hdf5")] == [[0, 0, 0, 0, 0, 1]] * 8
    (tmp_path / "l.csv").write_text("episode,success\n0,false\n1,true\n")
    assert run("relabel", str(dataset), f"out={tmp_path}/b.hdf5", f"labels={tmp_path}/l.csv")[0] == 0
    assert successes(tmp_path / "b.hdf5") == [False, True, True, False, True, False, True, False]
    assert run("relabel", str(dataset), f"out={tmp_path}/c.hdf5", "function=console:loses")[0] == 0
    assert successes(tmp_path / "c.hdf5") == [False, True] * 4


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ([], "needs success=..., labels=..., function=... or rewards=success"),
        (["success=true", "function=a:b"], "takes one of success, labels, function, found success, function"),
        (["function=nowhere:f"], "cannot be found"),
        (["function=console"], "cannot be found"),
        (["function=console:COMMAND"], "expected a function, found list"),
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
    assert load_function("console:loses").__name__ == "loses"


def test_view_writes_one_page_with_its_films(run, dataset: Path, tmp_path: Path) -> None:
    code, told, _ = run("view", str(dataset), f"out={tmp_path}/v.html", "episodes=2")
    assert code == 0
    page = (tmp_path / "v.html").read_text()
    assert f"{tmp_path}/v.html: " in told
    assert page.count("data:video/mp4;base64,") == 2
    assert 'id="episode-0"' in page
    assert 'id="episode-7"' in page
    assert "2 of 8 episodes are shown" in page


def test_view_of_chosen_episodes(run, dataset: Path, tmp_path: Path) -> None:
    assert run("view", str(dataset), f"out={tmp_path}/v.html", "only=[3]")[0] == 0
    assert 'id="episode-3"' in (tmp_path / "v.html").read_text()
    code, _, err = run("view", str(dataset), f"out={tmp_path}/w.html", "only=[8]")
    assert code == 2
    assert "0 to 7" in err


def test_rerun_is_asked_for_only_where_it_is_wanted(run, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    code, _, err = run("view", str(dataset), "rerun=true")
    assert code == 1
    assert "pip install rerun-sdk" in err


def test_rerun_gets_every_step(dataset: Path) -> None:
    class Recording:
        def __init__(self) -> None:
            self.logged: list[tuple[int, str, Any]] = []
            self.step = -1

        def set_time(self, name: str, sequence: int) -> None:
            self.step = sequence

        def log(self, path: str, value: Any, static: bool = False) -> None:
            self.logged.append((self.step, path, value))

    recording, same = Recording(), lambda value: value
    episodes = open_episodes(dataset)
    send_episode(SimpleNamespace(TextDocument=same, Image=same, Scalars=same), recording, episodes, 1)
    dx = [value for _, path, value in recording.logged if path == "action/dx"]
    assert dx == pytest.approx(0.05 * episodes.read(1).actions[:, 0], rel=1e-5)
    assert [step for step, path, _ in recording.logged if path == "cameras/wrist"] == list(range(7))
    assert (-1, "episode", "failure: ") in [entry for entry in recording.logged if entry[1] == "episode"]


@pytest.mark.parametrize("words", [["convert", "a", "b", "out=c"], ["view", "in=a", "b"]])
def test_one_path_where_one_is_meant(run, words: list[str]) -> None:
    code, _, err = run(*words)
    assert code == 2
    assert "takes one path, found 2" in err

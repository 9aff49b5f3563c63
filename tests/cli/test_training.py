"""What a training learns from: weights of datasets, rewards, labels, and data that do not go together."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest

from qtransformer.cli.compose import compose_settings
from qtransformer.cli.factories import SIMULATOR
from qtransformer.cli.main import main
from qtransformer.cli.run_config import RunConfig
from qtransformer.cli.train import run_config
from qtransformer.cli.training import load_dataset, logged_env_kwargs
from qtransformer_datasets import EpisodeDataset
from qtransformer_datasets.data_source import DataSource
from qtransformer_datasets.formats import open_episodes
from tests.cli.console import OBSERVATION, TINY, write_dataset


def loaded(config: RunConfig) -> EpisodeDataset:
    return load_dataset(config, [source.open() for source in config.datasets])


def test_datasets_of_a_list_must_agree_unless_renamed(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_dataset(tmp_path / "other.hdf5", replace(OBSERVATION, cameras={"front": (16, 16, 3)}))
    words = ["train", f"run={tmp_path}/run", "dry_run=true", *TINY]
    assert main([*words, f"dataset=[{dataset},{other}]"]) == 1
    assert "cameras={wrist:front}" in capsys.readouterr().err
    assert main([*words, f"dataset=[{dataset},{{path:{other},cameras:{{wrist:front}}}}]"]) == 0
    assert "16 episodes" in capsys.readouterr().out


def test_a_source_of_twice_the_weight_gives_twice_the_steps(tmp_path: Path) -> None:
    dataset = without_labels(write_dataset(tmp_path / "d.hdf5"))
    sources = f"[{{path:{dataset},success:true,weight:2}},{{path:{dataset},success:false}}]"
    config = run_config(compose_settings("train", [f"run={tmp_path}/run", f"dataset={sources}", *TINY]))
    batch = next(loaded(config).segments(batch_size=30, lead=0, steps=1, lookahead=0, seed=0))
    assert int(batch.success.sum()) == 20


@pytest.mark.parametrize(("weights", "share"), [((1, 1), 0.5), ((None, 1), 0.5), ((3, 3), 0.5), ((None, None), 0.2)], ids=str)
def test_equal_weights_share_the_steps_whatever_the_sizes(weights: tuple, share: float, tmp_path: Path) -> None:
    few, many = (without_labels(write_dataset(tmp_path / f"{name}.hdf5")) for name in ("few", "many"))
    with h5py.File(many, "r+") as file:
        for i in range(8, 32):
            file.copy(f"data/demo_{i % 8}", file["data"], f"demo_{i}")
    said = [f"{{path:{path},success:{path is few}" for path in (few, many)]
    said = [text + ("}" if weight is None else f",weight:{weight}}}") for text, weight in zip(said, weights, strict=True)]
    config = run_config(compose_settings("train", [f"run={tmp_path}/run", f"dataset=[{','.join(said)}]", *TINY]))
    config.save(tmp_path / "run")
    assert RunConfig.load(tmp_path / "run") == config, "an equal weight is kept, so that it is resumed with"
    batch = next(loaded(config).segments(batch_size=200, lead=0, steps=1, lookahead=0, seed=0))
    assert float(batch.success.float().mean()) == pytest.approx(share, abs=0.05)


def test_data_of_the_simulator_with_unknown_arguments_are_data_from_elsewhere(tmp_path: Path) -> None:
    """So is a file merged from some that were logged with different ones."""
    source = open_episodes(write_dataset(tmp_path / "a.hdf5"))
    known = SimpleNamespace(attributes={"env_name": SIMULATOR, "env_kwargs": {}}, observation_spec=source.observation_spec)
    assert logged_env_kwargs(known) == {"cameras": {"wrist": [16, 16]}}  # pyright: ignore[reportArgumentType]
    del known.attributes["env_kwargs"]
    assert logged_env_kwargs(known) is None  # pyright: ignore[reportArgumentType]


def test_every_dataset_is_opened_once(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening may mean to read all of it: `on_bad_episode=skip`."""
    paths, opened, plain = [str(dataset), str(write_dataset(tmp_path / "more.hdf5"))], list[str](), DataSource.open
    monkeypatch.setattr(DataSource, "open", lambda source: (opened.append(source.path), plain(source))[1])
    assert main(["train", f"dataset=[{','.join(paths)}]", f"run={tmp_path}/run", "dry_run=true", *TINY]) == 0
    assert opened == paths


def test_values_need_rewards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = without_labels(write_dataset(tmp_path / "bare.hdf5"), rewards=False)
    words = ["train", f"run={tmp_path}/run", "dry_run=true", *TINY]
    assert main([*words, f"dataset={{path:{path},clip_actions:true,proprio:[x,width]}}"]) == 1
    told = capsys.readouterr().err
    assert "no step carries a reward" in told
    typed = f"dataset={{path:{path},clip_actions:true,proprio:[x,width],success:[0,3],rewards:success}}"
    assert f"by their numbers: {typed} (success:true only if all did)" in told, "what was typed is kept"
    assert f"or in a file: qtransformer data relabel {path} clip_actions=true proprio=[x,width] out=NEW labels=FILE.csv" in told
    assert main([*words, typed]) == 0
    assert "success 0.250" in capsys.readouterr().out
    assert main([*words, "algo=bc", f"dataset={{path:{path},success:true}}"]) == 0
    assert main([*words, f"dataset={{path:{path},success:true}}"]) == 1
    assert f"every success worth 1 at its end: dataset={{path:{path},success:true,rewards:success}};" in capsys.readouterr().err
    assert main([*words, f"dataset={{path:{path},step_reward:-1}}"]) == 1
    assert "no step carries a reward" in capsys.readouterr().err, "what every step earns is none"


def test_known_failures_are_made_no_successes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_dataset(tmp_path / "failures.hdf5")
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            demo["rewards"][...] = 0
            demo.attrs["success"] = False
    words = ["train", f"run={tmp_path}/run", "dry_run=true", *TINY]
    assert main([*words, f"dataset={path}"]) == 1
    told = capsys.readouterr().err
    assert "the data say of no episode that it succeeded" in told
    assert "success:" not in told
    assert main([*words, f"dataset={{path:{path},success:true,rewards:success}}"]) == 1
    assert f"{path}, demo_0: success:true contradicts the data, which say that it failed" in capsys.readouterr().err


def without_labels(path: Path, rewards: bool = True) -> Path:
    """A file that does not say how its episodes went."""
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            del demo.attrs["success"]
            demo["rewards"][...] *= rewards
    return path


def test_successes_without_rewards_are_not_mixed_with_rewarded_data(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They would be learned as failures."""
    path = write_dataset(tmp_path / "bare.hdf5")
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            demo["rewards"][...] = 0
    words = ["train", f"run={tmp_path}/run", "dry_run=true", *TINY]
    for said in (f"[{dataset},{path}]", f"[{{path:{dataset},step_reward:-1}},{{path:{path},step_reward:-1}}]"):
        assert main([*words, f"dataset={said}"]) == 1
        told = capsys.readouterr().err
        assert f"error: {path}: holds successes, but no step carries a reward" in told
        assert main([*words, f"dataset={said}", "algo=bc"]) == 0
    assert main([*words, f"dataset=[{dataset},{{path:{path},rewards:success}}]"]) == 0
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            demo.attrs["success"] = False
    assert main([*words, f"dataset=[{dataset},{path}]"]) == 0, "failures are worth 0"


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("[]", "empty list"),
        ("[3]", "expected a path"),
        ("{file:a}", "expected a path"),
        ("{path:a,weight:-1}", "weight"),
        ("{path:a,rewards:dense}", "rewards"),
    ],
)
def test_a_dataset_that_cannot_be_meant_is_refused(
    said: str, answer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", f"dataset={said}", f"run={tmp_path}/run"]) == 2
    assert answer in capsys.readouterr().err

"""Evaluations: the same seeds give the same numbers, and an environment that does not fit is refused first."""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qtransformer.acting import ActingConfig
from qtransformer.checkpoint import resolve_checkpoint
from qtransformer.cli import evaluate as verb
from qtransformer.cli.factories import SIMULATOR, EnvFactory
from qtransformer.cli.main import main
from qtransformer.cli.settings import EvalSettings, Split
from qtransformer.errors import SpecMismatchError
from qtransformer.evaluate import Evaluation
from qtransformer.evaluate import evaluate as act_one_by_one
from qtransformer.policy import Policy
from tests.cli.console import TINY, qtransformer
from tests.cli.toy_env import ToyEnv

TOY = ["env=tests.cli.toy_env:ToyEnv", "device=cpu"]


def evaluate(path: Path, *arguments: str) -> dict:
    assert main(["eval", f"json={path}", *arguments]) == 0
    return json.loads(path.read_text())


def test_another_environment_can_be_acted_in(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluate(tmp_path / "r.json", f"run={trained}", "episodes=6", "workers=1", "env_kwargs={max_steps: 3}", *TOY)
    assert {"success", "low", "high", "episodes", "seconds", "results"} <= result.keys()
    assert result["episodes"] == 6
    assert [r["seed"] for r in result["results"]] == list(range(1000, 1006))
    assert max(r["steps"] for r in result["results"]) <= 3
    assert result["low"] <= result["success"] <= result["high"]
    line = f"success {result['success']:.2f} [{result['low']:.2f}, {result['high']:.2f}] over 6 episodes"
    assert capsys.readouterr().out.splitlines()[-1] == line


def test_a_result_that_cannot_be_written_has_been_told(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "json=/proc/out.json", f"run={trained}", "episodes=2", "workers=1", *TOY]) != 0
    told = capsys.readouterr()
    assert "over 2 episodes" in told.out
    assert "cannot write /proc/out.json" in told.err


def test_workers_do_not_matter(trained: Path, tmp_path: Path) -> None:
    one, two = (evaluate(tmp_path / f"{n}.json", f"run={trained}", "episodes=6", f"workers={n}", *TOY) for n in (1, 2))
    assert one["results"] == two["results"]


def test_a_policy_acts_by_other_settings_than_its_training_s_and_every_result_tells(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    asked = [f"run={run}", "episodes=4", *TOY]
    as_trained = evaluate(tmp_path / "a.json", *asked, "workers=1")
    assert (as_trained["acting"], as_trained["not_as_trained"]) == ({"proposals": 0, "behavior_mask": 0.3, "surprise": 0.0}, "")
    assert capsys.readouterr().out.endswith("over 4 episodes\n")
    found = evaluate(tmp_path / "b.json", *asked, "acting.proposals=6", "acting.behavior_mask=0.01", "workers=2", "videos=1")
    told = "proposals=6 (trained: 0), behavior_mask=0.01 (trained: 0.3)"
    assert (found["acting"], found["not_as_trained"]) == ({"proposals": 6, "behavior_mask": 0.01, "surprise": 0.0}, told)
    assert f"over 4 episodes, acting by {told}\n" in capsys.readouterr().out
    [film] = json.loads((run / "videos" / "videos.json").read_text())
    assert film["label"] == f"policy, {told}"
    policy = Policy.from_checkpoint(run, "cpu", ActingConfig(proposals=6, behavior_mask=0.01))
    expected = act_one_by_one(ToyEnv(), policy, range(1000, 1004), policy.config.targets.discount).to_dict()
    assert found["results"] == json.loads(json.dumps(expected))["results"]
    assert found["results"] != as_trained["results"]


def test_a_checkpoint_serves_as_well_as_its_run(trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / "checkpoints" / "step_0000004"
    a, b = (evaluate(tmp_path / "r.json", f"run={p}", "episodes=2", "workers=1", *TOY) for p in (trained, checkpoint))
    assert a["results"] == b["results"]


def test_workers_take_the_checkpoint_that_the_run_meant_at_the_start(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is still training finds another best one meanwhile."""
    asked: list[str] = []
    acted = verb.evaluate_in_parallel

    def act(settings: EvalSettings, *rest: Any) -> Evaluation:
        asked.append(settings.run)
        return acted(settings, *rest)

    monkeypatch.setattr(verb, "evaluate_in_parallel", act)
    evaluate(tmp_path / "r.json", f"run={trained}", "episodes=1", "workers=1", *TOY)
    assert asked == [str(resolve_checkpoint(trained))]


def test_a_checkpoint_without_its_run_is_judged_with_a_warning(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing tells how many objects there were, or how long an episode may take; nothing is said where it is refused anyway."""
    lonely = tmp_path / "step_0000004"
    shutil.copytree(trained / "checkpoints" / "step_0000004", lonely)
    asked = EvalSettings(run=str(lonely), split=Split.test)
    policy = Policy.from_checkpoint(lonely, "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SpecMismatchError):
            verb.fitting_env(asked, policy)
        monkeypatch.setattr(verb, "_check_fit", lambda *_: None)
        verb.fitting_env(replace(asked, env_kwargs={"num_objects": 2}), policy)
    with pytest.warns(UserWarning, match=r"no config.yaml of a run tells .* env_kwargs="):
        verb.fitting_env(asked, policy)


@pytest.mark.parametrize(
    ("logged", "split", "said"),
    [("train", "test", "held-out"), ("train", "train", "train"), ("test", "test", "train"), ("test", "validation", "held-out")],
)
def test_objects_of_the_data_are_not_called_held_out(logged: str, split: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "_logged_env", lambda settings: {"split": logged})
    assert verb.scenes(EvalSettings(run="run", split=Split[split])) == said


@pytest.mark.parametrize(
    ("arguments", "code", "answer"),
    [
        (["env_kwargs={camera: front}", *TOY], 1, "cameras: expected {'wrist'"),
        (["env_kwargs={stepz: 3}", *TOY], 1, "tests.cli.toy_env:ToyEnv has no argument 'stepz'; "),
        (["env_kwargs={blind: true}", "workers=1", *TOY], 1, "finite values"),
        (
            ["env=tests.cli.toy_env:Undescribed"],
            1,
            "env=tests.cli.toy_env:Undescribed: expected a Gymnasium environment with `action_spec`",
        ),
        (["env=tests.cli.toy_env:Nothing"], 2, "package.module:function"),
        (["env=tests.cli.toy_env"], 2, "package.module:function"),
        (["actor=exprt"], 2, "did you mean expert?"),
        (["actor=expert", *TOY], 1, "actor=expert knows only"),
        (["actor=expert", "acting.proposals=4", *TOY], 2, "acting: actor=expert has no such settings"),
        (["acting.proposals=many", *TOY], 2, "acting.proposals: expected"),
        (["acting.proposal=4", *TOY], 2, "did you mean acting.proposals?"),
        (["acting.proposals=5000", *TOY], 1, "must be at most 4096"),
        (["acting.surprise=0.3", *TOY], 1, "chooses among proposals"),
    ],
)
def test_what_does_not_fit_is_refused(
    arguments: list[str], code: int, answer: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", f"run={trained}", "episodes=2", "workers=1", *arguments]) == code
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert answer in line


@pytest.mark.parametrize("said", ["select=true", "critic_steps=5", "fqe_steps=0", "critic_data=d.hdf5"])
def test_a_setting_of_logs_alone_is_refused_without_them(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody has forgotten dataset=..., and would wait for the wrong thing."""
    assert main(["eval", "run=r", said]) == 2
    assert f"{said.split('=')[0]}=...: logs are judged with it, and no dataset=... names any" in capsys.readouterr().err


@pytest.mark.parametrize(
    "said",
    [
        "episodes=5",
        "seed=1",
        "split=train",
        "videos=1",
        "workers=1",
        "env=tests.cli.toy_env:ToyEnv",
        "env_kwargs={num_objects: 5}",
        "acting.proposals=4",
    ],
)
def test_a_setting_of_scenes_is_refused_where_logs_judge(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "run=r", "dataset=d.hdf5", said]) == 2
    name = said.split("=")[0].split(".")[0]
    assert f"{name}=...: no scene is acted where dataset=... judges from logs" in capsys.readouterr().err


def test_a_policy_needs_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval"]) == 2
    assert "eval needs run=..." in capsys.readouterr().err


def test_a_damaged_checkpoint_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    weights = tmp_path / "run" / "checkpoints" / "step_0000004" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    result = qtransformer("eval", f"run={tmp_path}/run", "episodes=2")
    assert result.code == 1
    assert "model.safetensors differs from its manifest" in result.error


def test_a_policy_of_another_robot_is_told_where_it_can_act() -> None:
    pytest.importorskip("pybullet", reason="PyBullet has wheels for Python 3.10 and 3.11 only")
    foreign: Any = object()
    world = EnvFactory(SIMULATOR, {"cameras": {"agentview": [16, 16]}})
    with pytest.raises(SpecMismatchError, match=r"runs/x is no policy of the simulator.*agentview.*env=your\.module:make_env"):
        verb._check_fit(world, foreign, "runs/x")


def test_the_simulator_is_built_as_the_data_saw_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pybullet", reason="PyBullet has wheels for Python 3.10 and 3.11 only")
    data, run = tmp_path / "d.hdf5", tmp_path / "run"
    small = ["image_size=32", "max_steps=4", "num_objects=1", "cameras=[front,wrist]"]
    assert qtransformer("collect", f"out={data}", "episodes=4", "recipe=full", *small).code == 0
    won = tmp_path / "won.hdf5"  # four steps are too few for a real success
    assert qtransformer("data", "relabel", str(data), f"out={won}", "success=true", "rewards=success").code == 0
    assert qtransformer("train", f"dataset={won}", f"run={run}", "steps=2", "eval_episodes=1", *TINY).code == 0
    assert (run / "checkpoints" / "best.json").exists()
    for actor in ("policy", "expert", "random"):
        result = evaluate(tmp_path / "r.json", f"run={run}", "episodes=2", f"actor={actor}", "workers=1")
        assert max(r["steps"] for r in result["results"]) <= 4
    assert main(["eval", f"run={run}", "env_kwargs={cameras: {wrist: [16, 16]}}"]) == 1
    assert "does not fit: cameras" in capsys.readouterr().err

"""The comparison with robomimic: its command line, its refusals, its result; the training itself where robomimic is installed."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import robomimic_baselines as baselines
from qtransformer.cli.factories import SIMULATOR, EnvFactory
from qtransformer.cli.main import main as qtransformer
from qtransformer.errors import ConfigError, QTransformerError
from qtransformer.run_guard import exclusive

SAID = ["data=x.hdf5", "run=r", "json=r.json"]
SCENE: dict[str, Any] = {"cameras": {"wrist": (16, 16)}, "num_objects": 1, "split": "test"}


def test_what_the_algorithm_implies_is_filled_in() -> None:
    bc, iql = (baselines.parse([f"algo={algo}", "steps=10", *SAID]).to_dict() for algo in ("bc", "iql"))
    assert (bc["filter"], bc["head"]) == ("success", "mse")
    assert (iql["filter"], iql["head"]) == ("all", "gaussian")
    assert (bc["batch"], bc["lr"], bc["episodes"], bc["eval_seed"], bc["split"]) == (128, 1e-4, 300, 1000, "test")
    told = baselines.parse(["algo=bc", "minutes=1.5", "filter=all", "head=gmm", "lr=1e-3", *SAID]).to_dict()
    assert (told["filter"], told["head"], told["lr"], told["minutes"], told["steps"]) == ("all", "gmm", 1e-3, 1.5, 0)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["algo=bc", *SAID], "when to stop"),
        (["algo=bc", "steps=1", "step=2", *SAID], "did you mean steps"),
        (["algo=bc", "steps=1", "fast", *SAID], "key=value"),
        (["algo=iql", "steps=1", "beta=0", *SAID], "beta expected above 0"),
        (["algo=cql", "steps=1", *SAID], "cql"),
        (["algo=bc", "steps=soon", *SAID], "soon"),
        (["algo=bc", "steps=1", "batch=0", *SAID], "batch expected above 0"),
        (["algo=iql", "steps=1", "head=mse", *SAID], "head=gaussian"),
        (["steps=1", *SAID], "algo=... is needed"),
    ],
)
def test_a_slip_is_one_sentence(words: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        baselines.parse(words)
    assert "\n" not in str(caught.value)


def test_without_robomimic_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(baselines, "THEIRS", baselines.ROOT / ".venv-nowhere" / "bin" / "python")
    assert baselines.main(["algo=bc", "steps=1", "data=none.hdf5", f"run={tmp_path / 'run'}", "json=r.json"]) == 2
    assert "make peers" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_two_processes_do_not_train_into_one_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(baselines, "THEIRS", Path(sys.executable))
    with exclusive(tmp_path):
        assert baselines.main(["algo=bc", "steps=1", "data=none.hdf5", f"run={tmp_path}", f"json={tmp_path}/r.json"]) == 2
    assert "is training in" in capsys.readouterr().err


def test_the_result_says_what_was_done_and_how_often_it_succeeded() -> None:
    settings = baselines.parse(["algo=iql", "steps=5", "seed=2", "episodes=4", *SAID])
    found = {"steps": 5, "train_seconds": 1.5, "parameters": 7, "encoder_parameters": 3, "outcomes": "0110"}
    result = baselines.summary(settings, found)
    assert result["success"] == 0.5
    assert 0 < result["low"] < 0.5 < result["high"] < 1
    expected = {"algo": "iql", "filter": "all", "seed": 2, "episodes": 4, "first_seed": 1000, "split": "test", **found}
    assert {key: result[key] for key in expected} == expected
    assert json.loads(json.dumps(result)) == result


def test_scenes_must_begin_as_in_eval() -> None:
    env = EnvFactory(SIMULATOR, SCENE)()
    seen = [baselines.digest(env.reset(seed=seed)[0]) for seed in (1000, 1001)]
    env.close()
    baselines.check_scenes(seen, SCENE, 1000)
    with pytest.raises(QTransformerError, match="scene 1000 began differently"):
        baselines.check_scenes(seen[::-1], SCENE, 1000)
    with pytest.raises(QTransformerError, match="scene 1000 began differently"):
        baselines.check_scenes(seen, SCENE | {"split": "train"}, 1000)


def test_digests_tell_images_and_proprioception_apart() -> None:
    image, proprio = np.zeros((2, 2, 3), np.uint8), np.zeros(2, np.float32)
    digests = {
        baselines.digest({"images": {"wrist": image}, "proprio": proprio}),
        baselines.digest({"images": {"wrist": image + 1}, "proprio": proprio}),
        baselines.digest({"images": {"side": image}, "proprio": proprio}),
        baselines.digest({"images": {"wrist": image}, "proprio": proprio + 1}),
    }
    assert len(digests) == 4


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "expert.hdf5"
    assert qtransformer(["collect", "recipe=expert", "episodes=4", "seed=3", f"out={path}", "workers=1"]) == 0
    return path


def job_words(log: Path, run: Path, *more: str) -> list[str]:
    return ["algo=bc", "batch=16", "episodes=2", f"data={log}", f"run={run}", f"json={run}.json", *more]


def test_a_run_goes_on_only_as_what_it_was(log: Path, tmp_path: Path) -> None:
    job = baselines.make_job(baselines.parse(job_words(log, tmp_path / "run", "steps=10")))
    assert job["env"]["split"] == "test"
    assert job["env"]["cameras"] == {"wrist": [64, 64]}
    assert baselines.make_job(baselines.parse(job_words(log, tmp_path / "run", "steps=20")))["steps"] == 20
    with pytest.raises(ConfigError, match="seed=0 and now 1"):
        baselines.make_job(baselines.parse(job_words(log, tmp_path / "run", "steps=20", "seed=1")))


@pytest.mark.slow
@pytest.mark.skipif(not baselines.THEIRS.exists(), reason="robomimic is not installed: make peers")
@pytest.mark.parametrize("algo", ["bc", "iql"])
def test_a_training_in_two_parts_is_the_same_training(log: Path, tmp_path: Path, algo: str) -> None:
    results = []
    for run, parts in (("whole", [40]), ("parts", [20, 40])):
        for steps in parts:
            assert baselines.main(job_words(log, tmp_path / run, f"algo={algo}", f"steps={steps}")) == 0
        result = json.loads((tmp_path / f"{run}.json").read_text())
        assert (result["steps"], result["episodes"], len(result["outcomes"])) == (40, 2, 2)
        assert 0 < result["encoder_parameters"] < result["actor_parameters"] <= result["parameters"]
        results.append((result["loss"], result["outcomes"]))
    assert results[0] == results[1]

"""Files of a checkpoint that nobody wrote in earnest, under a manifest that fits: it loads, or says what is wrong with it."""

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qtransformer import Policy, checkpoint
from qtransformer.checkpoint import latest_resumable, read_checkpoint, resolve_checkpoint
from qtransformer.errors import CheckpointError
from qtransformer.files import write_manifest
from qtransformer.resume_point import ResumePoint

CPU = torch.device("cpu")
DEEP = "<a hundred thousand brackets>"
STRANGE: list[Any] = [
    None, True, False, -1, 0, 1, 3, 10**6, 2**40, 2**63, 10**30, 10**400, -(10**30), 0.5, -0.0, 1e308, -1e308, 1e-320, float("nan"),
    float("inf"), -float("inf"), "", "x", "1", "\0", "\ud800", "a" * 5000, "../x", [], {}, [[]], [None] * 5000, {"": 0}, DEEP,
]  # fmt: skip
FILES = ("config.json", "spec.json", "stats.json", "metadata.json", "manifest.json", "training_state/position.json")


@pytest.fixture
def saved(fit, make_config) -> Path:
    """A checkpoint of a training."""
    return fit(make_config(steps=1, targets={"proposals": 4, "surprise": 0.5})) / "checkpoints" / "step_0000001"


def places(data: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a JSON document, as the keys that lead to it."""
    yield way
    for key in data if isinstance(data, dict) else range(len(data) if isinstance(data, list) else 0):
        yield from places(data[key], (*way, key))


def put(data: Any, way: tuple[Any, ...], change: str, value: Any) -> Any:
    """The document with one place changed."""
    if not way:
        return value
    data = copy.deepcopy(data)
    parent = data
    for key in way[:-1]:
        parent = parent[key]
    if change == "leave out":
        del parent[way[-1]]
    elif change == "add" and isinstance(parent, dict):
        parent["another"] = value
    elif change == "add":
        parent.append(value)
    else:
        parent[way[-1]] = value
    return data


def write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data).replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000))
    if path.name != "manifest.json":
        write_manifest(path.parent)


def load(path: Path) -> None:
    Policy.from_checkpoint(path, device="cpu")
    ResumePoint.read(path)


def test_a_strange_value_anywhere_is_refused_or_does_no_harm(saved: Path) -> None:
    originals = {name: (saved / name).read_text() for name in FILES}

    @settings(max_examples=80)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(FILES))
        document = json.loads(originals[name])
        way = data.draw(st.sampled_from(list(places(document))))
        change, value = data.draw(st.sampled_from(["replace", "leave out", "add"])), data.draw(st.sampled_from(STRANGE))
        write(saved / name, put(document, way, change, value))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's, of numbers without end
            with suppress(CheckpointError):
                load(saved)
        (saved / name).write_text(originals[name])
        write_manifest((saved / name).parent)

    check()
    load(saved)


def changed(path: Path, name: str, *ways: tuple[tuple[Any, ...], Any]) -> None:
    data = json.loads((path / name).read_text())
    for way, value in ways:
        data = put(data, way, "replace", value)
    write(path / name, data)


@pytest.mark.parametrize(
    ("name", "way", "value", "told"),
    [
        ("config.json", ("model", "embed_dim"), 2**40, "config.json"),
        ("config.json", ("model", "embed_dim"), 32, r"does not fit its config\.json and spec\.json: action_embedding is"),
        ("config.json", ("model", "head_dim"), 2**62, "config.json"),
        ("config.json", ("model", "num_layers"), 10**9, "at most 1000 model.num_layers, found 1000000000"),
        ("config.json", ("value", "num_bins"), 10**15, "does not fit its config.json"),
        ("config.json", ("targets", "proposals"), 10**9, "at most 4096"),
        ("config.json", ("model", "rope"), True, "unknown setting"),
        ("config.json", (), DEEP, "cannot read .*config.json"),
        ("config.json", ("value", "v_min"), 10**400, "config.json"),
        ("spec.json", ("action", "discrete", 1), 10**12, "does not fit"),
        ("spec.json", ("observation", "control_hz"), 0, "control_hz above 0, found 0"),
        ("spec.json", ("observation", "control_hz"), float("nan"), "control_hz above 0, found nan"),
        ("spec.json", ("observation", "proprio_units"), ["m"], "a unit for each"),
        ("spec.json", ("observation", "cameras", "wrist"), [0, 0, 3], r"images \(h, w, 3\) of camera 'wrist', found \(0, 0, 3\)"),
        ("spec.json", ("observation", "cameras", "wrist"), [10**6, 10**6, 3], "golden.npz.*expects uint8"),
        ("stats.json", ("proprio_mean", 0), float("nan"), "2 finite numbers as proprio_mean"),
        ("stats.json", ("proprio_std",), [1.0], "2 finite numbers as proprio_std"),
        ("stats.json", ("going_on_reward_max",), "x", "stats.json"),
        ("stats.json", ("going_on_reward_max",), float("inf"), "finite going_on_reward_max"),
        ("metadata.json", (), [], "metadata.json"),
        ("manifest.json", ("config.json", "size"), float("inf"), "manifest"),
        ("manifest.json", ("a" * 5000,), {"size": 1, "sha256": ""}, "is missing"),
    ],
)  # fmt: skip
def test_a_hostile_value_is_named_and_nothing_of_its_size_is_built(
    name: str, way: tuple[Any, ...], value: Any, told: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: list[torch.device] = []

    def recorded(*args: Any) -> Any:
        real.append(torch.get_default_device())
        return build(*args)

    build = checkpoint.build_network
    monkeypatch.setattr(checkpoint, "build_network", recorded)
    changed(saved, name, (way, value))
    with pytest.raises(CheckpointError, match=told):
        Policy.from_checkpoint(saved, device="cpu")
    assert "golden" in told or all(device.type == "meta" for device in real)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("instruction", np.array([255, 254], np.uint8)),
        ("q_values", np.zeros((7, 3), np.float32)),
        ("bins", np.zeros(9, np.int64)),
        ("bins", np.int64(0)),
        ("bins", np.array(["a", "b", "c"])),
        ("image/wrist", np.zeros((2, 2, 3), np.uint8)),
        ("proprio", np.array(["a", "b"])),
        ("another", np.zeros(2**27, np.uint8)),  # a small file that unpacks to much
    ],
    ids=str,
)
def test_a_golden_sample_that_cannot_be_replayed_is_refused(name: str, value: Any, saved: Path) -> None:
    with np.load(saved / "golden.npz") as file:
        arrays = dict(file)
    np.savez_compressed(saved / "golden.npz", **{**arrays, name: np.asarray(value)})  # pyright: ignore[reportArgumentType]
    write_manifest(saved)
    with pytest.raises(CheckpointError, match=r"golden\.npz"):
        Policy.from_checkpoint(saved, device="cpu")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: {k: v for k, v in state.items() if not k.startswith("target_network")},
        lambda state: {k: v.reshape(-1)[:1].clone() if k.endswith("exp_avg") else v for k, v in state.items()},
        lambda state: {k: v for k, v in state.items() if k != "support.seen"},
        lambda state: {**state, "support.range": torch.tensor([1.0])},
        lambda state: {**state, "support.range": torch.tensor([float("nan"), 1.0])},
    ],
)
def test_a_state_that_does_not_fit_is_not_gone_on_from(spoil: Callable[..., Any], saved: Path, fit, make_config) -> None:
    from safetensors.torch import load_file, save_file

    path = saved / "training_state" / "state.safetensors"
    save_file(spoil(load_file(path)), path)
    write_manifest(path.parent)
    with pytest.raises(CheckpointError, match=r"training_state: state\.safetensors is not what"):
        fit(make_config(steps=2, targets={"proposals": 4, "surprise": 0.5}), resume=True)


def test_pointers_and_folders_of_strange_names_are_passed_over(saved: Path) -> None:
    (saved.parent / "step_²").mkdir()
    (saved.parent / "step_²" / "manifest.json").write_text("{}")
    for pointer in ("[" * 100_000, json.dumps({"step": "a" * 5000}), json.dumps({"step": "\0"})):
        (saved.parent / "best.json").write_text(pointer)
        assert resolve_checkpoint(saved.parents[1]) == saved
    assert latest_resumable(saved.parents[1]) == saved


def test_a_checkpoint_is_compared_without_drawing_numbers(saved: Path, make_network) -> None:
    """What is drawn after one was read must not depend on how it was read."""
    artefact = read_checkpoint(saved, CPU)
    torch.manual_seed(0)
    read_checkpoint(saved, CPU)
    after = torch.rand(3)
    torch.manual_seed(0)
    checkpoint.build_network(artefact.config, artefact.action_spec, artefact.observation_spec, artefact.stats)
    assert torch.equal(after, torch.rand(3))

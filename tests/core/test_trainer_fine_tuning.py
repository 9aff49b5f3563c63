"""What a training may start from."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from qtransformer import ObservationSpec, Policy, Trainer
from qtransformer.checks import check_specs, mirrored_dims
from qtransformer.errors import ConfigError, SpecMismatchError


def test_fine_tuning_starts_from_the_checkpoints_weights_and_normalisation(
    fit, make_config, make_dataset, make_episode, tmp_path
) -> None:
    run = fit(make_config(), "first")
    other = make_dataset([make_episode(5, seed=s, proprio=np.full((6, 2), 9.0, np.float32)) for s in range(50, 54)])
    with pytest.warns(UserWarning, match=r"in these data 'x' is 9 ± 0, the checkpoint's .*; 'y' is 9.*normalisation is kept"):
        trainer = Trainer(make_config(init=str(run)), other, tmp_path / "second", progress=False)
    weights = load_file(run / "checkpoints" / "step_0000008" / "model.safetensors")
    for name, value in trainer.learner.network.state_dict().items():
        assert torch.equal(value, weights[name]), name
    trainer.fit()
    tuned = Policy.from_checkpoint(tmp_path / "second", device="cpu").network.state_dict()
    assert torch.equal(tuned["proprio_mean"], weights["proprio_mean"])
    stats = [json.loads(next(r.glob("checkpoints/step_0000008/stats.json")).read_text()) for r in (run, tmp_path / "second")]
    assert stats[0]["proprio_mean"] == stats[1]["proprio_mean"]
    assert stats[0]["mean_length"] != stats[1]["mean_length"]
    assert not torch.equal(tuned["q_head.out.bias"], weights["q_head.out.bias"])


def test_data_that_do_not_fit_the_checkpoint_are_refused_with_both_sides_listed(
    fit, make_config, make_dataset, make_episode, action_spec, observation_spec, tmp_path
) -> None:
    run = fit(make_config(), "first")
    cameras = {"front": (24, 16, 3), "side": (20, 24, 3)}
    episode = make_episode(4, images={c: np.zeros((5, *s), np.uint8) for c, s in cameras.items()})
    other = make_dataset(
        [episode],
        action_spec=replace(action_spec, names=("dx", "gripper", "dz")),
        observation_spec=ObservationSpec(cameras, observation_spec.proprio_names, observation_spec.proprio_units, 10.0),
    )
    with pytest.raises(SpecMismatchError) as caught:
        Trainer(make_config(init=str(run)), other, tmp_path / "second", progress=False)
    message = str(caught.value)
    for side in ("wrist", "side", "'dy'", "'dz'", "5.0", "10.0"):
        assert side in message


def test_another_network_than_the_checkpoints_is_refused(fit, make_config, dataset, tmp_path) -> None:
    run = fit(make_config(), "first")
    other = make_config(init=str(run), value={"num_bins": 31}, model={"history": 2})
    told = r"another network: model\.history \(there 1, asked for 2\); value\.num_bins \(there 21, asked for 31\); use the"
    with pytest.raises(SpecMismatchError, match=told):
        Trainer(other, dataset, tmp_path / "second", progress=False)


def test_returns_under_another_discount_are_refused(fit, make_config) -> None:
    with pytest.raises(ConfigError, match="with_discount"):
        fit(make_config(targets={"discount": 0.9}))


def test_what_a_mirror_cannot_show_is_refused(fit, make_config, action_spec, observation_spec) -> None:
    fit(make_config(optim={"mirror": ["dx"]}))
    with pytest.raises(ConfigError, match=r"no action dimension 'dz'; the data have dx, gripper, dy"):
        fit(make_config(optim={"mirror": ["dz"]}), "unknown")
    with pytest.raises(ConfigError, match=r"'dy' has the limits \[-0\.2, 0\.3\]"):
        fit(make_config(optim={"mirror": ["dy"]}), "uneven")
    switch = replace(action_spec, low=(-0.1, -1.0, -0.2))
    with pytest.raises(ConfigError, match="'gripper' is a switch of 2 values"):
        mirrored_dims(["gripper"], switch, observation_spec)
    with pytest.raises(ConfigError, match="the data have no camera"):
        mirrored_dims(["dx"], action_spec, replace(observation_spec, cameras={}))


def test_units_that_both_tell_must_agree(action_spec, observation_spec) -> None:
    def join(*units: str) -> None:
        other = replace(observation_spec, proprio_units=units)
        check_specs(action_spec, observation_spec, action_spec, other, "a checkpoint")

    join("m", "m")
    join("1", "unknown")  # files that tell no units
    with pytest.raises(SpecMismatchError, match=r"proprioception's units: expected \{'y': 'm'\}, found \{'y': 'mm'\}"):
        join("unknown", "mm")

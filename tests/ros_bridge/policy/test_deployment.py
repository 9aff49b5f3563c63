from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qtransformer.acting import ActingConfig
from qtransformer.errors import CheckpointError, ConfigError, QTransformerError, SpecMismatchError
from qtransformer_ros.arm.commands import Output
from qtransformer_ros.policy.deployment import DeploymentSettings, deploy
from tests.ros_bridge.tiny_policy import write_contract, write_policy


@pytest.fixture
def settings(tmp_path: Path) -> DeploymentSettings:
    contract = write_contract(tmp_path)
    checkpoint = write_policy(tmp_path, contract)
    # Slow is what a busy machine may be: only the test of speed minds.
    return DeploymentSettings(checkpoint=checkpoint, contract=contract, namespace="/left", device="cpu", allow_slow=True)


def test_what_is_deployed_has_absolute_topics_a_fingerprint_and_known_times(settings) -> None:
    deployment = deploy(replace(settings, checkpoint=settings.checkpoint.parent))
    assert deployment.checkpoint == settings.checkpoint
    assert deployment.commands.topic == "/left/arm/joint_trajectory"
    assert [source.topic for source in deployment.contract.observed] == ["/left/camera/wrist/image_raw", "/left/joint_states"]
    assert len(deployment.sha256) == 64
    assert len(deployment.inference_s) >= 5
    assert 0 < np.median(deployment.inference_s) <= deployment.p99_s
    deployment.check_unchanged()


def test_another_checkpoint_in_its_place_is_noticed(settings, tmp_path) -> None:
    deployment = deploy(settings)
    write_policy(tmp_path, settings.contract, seed=1)  # a whole and valid one
    with pytest.raises(CheckpointError, match="was replaced since it was loaded"):
        deployment.check_unchanged()
    (deployment.checkpoint / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="differs from its manifest"):
        deployment.check_unchanged()


def test_a_policy_slower_than_its_rate_is_refused_unless_allowed(settings, monkeypatch) -> None:
    monkeypatch.setattr("qtransformer_ros.policy.deployment.measured_seconds", lambda *_: np.array([0.05] * 90 + [0.3] * 10))
    with pytest.raises(ConfigError, match=r"takes 300 ms \(p99\) on cpu, and the policy acts every 100 ms.*allow_slow"):
        deploy(replace(settings, allow_slow=False))
    assert deploy(settings).p99_s == pytest.approx(0.3)


def test_a_policy_that_proposals_make_slow_is_told_so(settings, monkeypatch) -> None:
    monkeypatch.setattr("qtransformer_ros.policy.deployment.measured_seconds", lambda *_: np.array([0.3] * 10))
    with pytest.raises(ConfigError, match=r"use fewer proposals:= than 9, a faster device"):
        deploy(replace(settings, allow_slow=False, acting=ActingConfig(proposals=9)))


def test_it_acts_as_trained_unless_asked_otherwise(settings, tmp_path) -> None:
    assert deploy(settings).acting == "proposals=0, behavior_mask=0.3, surprise=0.0, as trained"
    otherwise = deploy(replace(settings, acting=ActingConfig(proposals=9, surprise=0.2)))
    assert otherwise.policy.acting == ActingConfig(proposals=9, behavior_mask=0.3, surprise=0.2)
    assert otherwise.acting.endswith("; not as trained: proposals=9 (trained: 0), surprise=0.2 (trained: 0.0)")
    cloned = write_policy(tmp_path / "cloned", settings.contract, algo="bc")
    assert deploy(replace(settings, checkpoint=cloned)).acting == "its behaviour classifier alone"


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"acting": ActingConfig(surprise=0.2)}, ConfigError, "chooses among proposals"),
        ({"checkpoint": Path("")}, ConfigError, "checkpoint is empty"),
        ({"contract": Path("")}, ConfigError, "contract is empty"),
        ({"checkpoint": Path("/absent")}, CheckpointError, "no checkpoint in /absent"),
        ({"contract": Path("/absent.yaml")}, QTransformerError, "absent.yaml"),
        ({"output": Output.target_pose}, ConfigError, "output:=joint_trajectory"),
        ({"device": "toaster"}, ConfigError, "not a device"),
    ],
)
def test_what_cannot_be_deployed_is_refused(changes, kind, message, settings) -> None:
    with pytest.raises(kind, match=message):
        deploy(replace(settings, **changes))


def test_a_damaged_checkpoint_and_another_robots_contract_are_refused(settings) -> None:
    text = settings.contract.read_text()
    settings.contract.write_text(text.replace("control_hz: 10", "control_hz: 5"))
    with pytest.raises(SpecMismatchError, match="10 Hz, the contract says 5 Hz"):
        deploy(settings)
    settings.contract.write_text(text)
    weights = settings.checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(CheckpointError, match="differs from its manifest"):
        deploy(settings)

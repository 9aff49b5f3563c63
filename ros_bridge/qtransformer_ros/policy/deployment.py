"""What a node acts with, made ready and checked before anything moves: checkpoint, contract, commands."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from qtransformer.acting import ActingConfig
from qtransformer.checkpoint import resolve_checkpoint
from qtransformer.errors import CheckpointError, ConfigError
from qtransformer.files import fingerprint, verify_manifest
from qtransformer.policy import Policy
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.arm.commands import CommandMaker, Kinematics, Output
from qtransformer_ros.arm.ik import InverseKinematics
from qtransformer_ros.control.inference import blank_observation, measured_seconds
from qtransformer_ros.policy.matching import matched


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSettings:
    """What to deploy, and how."""

    checkpoint: Path
    """A run or checkpoint directory."""
    contract: Path
    namespace: str = ""
    """ROS namespace in which the contract's relative topics lie."""
    output: Output = Output.joint_trajectory
    device: str = "auto"
    acting: ActingConfig = field(default_factory=ActingConfig)
    """How to act, where not as trained."""
    torch_threads: int = 1
    command_rate_hz: float = 50.0
    allow_slow: bool = False
    """Take a policy that is slower than its own rate."""
    urdf: str = ""
    """Model of the arm; "" for none."""
    base_frame: str = ""
    tool_frame: str = ""
    joints: tuple[str, ...] = ()
    """Joints that inverse kinematics moves; by default those of joint positions among the contract's proprioception."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    policy: Policy
    contract: TopicContract
    """With absolute topics, and only the cameras that are looked at."""
    commands: CommandMaker
    checkpoint: Path
    sha256: str
    """Of the checkpoint's manifest."""
    inference_s: np.ndarray
    """Measured times of a decision [s]."""

    @property
    def p99_s(self) -> float:
        return float(np.quantile(self.inference_s, 0.99))

    @property
    def acting(self) -> str:
        """The settings that the policy acts by, and which of them are not its training's."""
        acting, otherwise = self.policy.acting, self.policy.not_as_trained
        if acting is None:
            return "its behaviour classifier alone"
        return f"{acting}; not as trained: {otherwise}" if otherwise else f"{acting}, as trained"

    def check_unchanged(self) -> None:
        """Raises CheckpointError if the files are no longer those that were loaded."""
        verify_manifest(self.checkpoint)
        found = fingerprint(self.checkpoint)
        if found != self.sha256:
            raise CheckpointError(
                f"{self.checkpoint} was replaced since it was loaded (manifest {found[:12]}, loaded {self.sha256[:12]}): "
                "clean up and configure again to act with the new one"
            )


def deploy(settings: DeploymentSettings) -> Deployment:
    """Load, verify, match, warm up and time a policy.

    Raises:
        QTransformerError: anything is missing, damaged or does not fit, or the policy is slower than its rate.
    """
    for name in ("checkpoint", "contract"):
        if not str(getattr(settings, name)).strip("."):
            raise ConfigError(f"the parameter {name} is empty: give {name}:=<path>")
    torch.set_num_threads(settings.torch_threads)
    directory = resolve_checkpoint(settings.checkpoint)
    sha256 = fingerprint(directory) if (directory / "manifest.json").exists() else ""
    policy = Policy.from_checkpoint(directory, settings.device, settings.acting)
    contract = matched(TopicContract.load(settings.contract), policy.action_spec, policy.observation_spec).resolved(
        settings.namespace
    )
    commands = CommandMaker(contract, settings.output, _kinematics(settings, contract), settings.command_rate_hz)
    spec = policy.observation_spec
    inference_s = measured_seconds(policy, blank_observation(dict(spec.cameras), len(spec.proprio_names)))
    deployment = Deployment(
        policy=policy, contract=contract, commands=commands, checkpoint=directory, sha256=sha256, inference_s=inference_s
    )
    _check_speed(deployment, settings)
    return deployment


def arm_joints(contract: TopicContract) -> tuple[str, ...]:
    """Joints whose positions the policy sees, in the contract's order."""
    return tuple(
        joint
        for source in contract.proprio
        if source.type == "JointState" and source.field.value == "position"
        for joint, unit in zip(source.joints, source.dimension_units, strict=True)
        if unit == "rad"
    )


def _kinematics(settings: DeploymentSettings, contract: TopicContract) -> Callable[[], Kinematics] | None:
    """How to make the arm's kinematics, should they be needed; None without a model."""

    def make() -> Kinematics:
        if not settings.tool_frame:
            raise ConfigError("urdf needs to know which of its links is the tool: give tool_frame:=<link>")
        return InverseKinematics(settings.urdf, settings.joints or arm_joints(contract), settings.tool_frame, settings.base_frame)

    return make if settings.urdf else None


def _check_speed(deployment: Deployment, settings: DeploymentSettings) -> None:
    period_s = 1.0 / deployment.contract.control_hz
    if deployment.p99_s > period_s and not settings.allow_slow:
        acting = deployment.policy.acting
        fewer = f"fewer proposals:= than {acting.proposals}, " if acting and acting.proposals else ""
        raise ConfigError(
            f"a decision takes {deployment.p99_s * 1e3:.0f} ms (p99) on {deployment.policy.device}, "
            f"and the policy acts every {period_s * 1e3:.0f} ms: use {fewer}a faster device:=, more torch_threads:=, or "
            "allow_slow:=true"
        )

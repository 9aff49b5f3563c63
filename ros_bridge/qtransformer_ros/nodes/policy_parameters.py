"""The parameters of `qtransformer-policy`, and what is made of them: what to deploy, how to run it, what the arm may be told."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rclpy.node import Node

from qtransformer.acting import ActingConfig
from qtransformer.config import MOST_PROPOSALS
from qtransformer.errors import ConfigError
from qtransformer_ros.arm.commands import Output
from qtransformer_ros.arm.safety_limits import JointRange, OutOfBounds, SafetyLimits, intersected, limited_joints
from qtransformer_ros.arm.urdf import read_urdf
from qtransformer_ros.control.runtime_settings import BelowMinValue, RuntimeSettings
from qtransformer_ros.nodes.parameters import Setting, flag, integer, number, numbers, text, texts
from qtransformer_ros.policy.deployment import DeploymentSettings

LIMITS = (
    "joint_limit_margin_rad", "max_joint_velocity_scale", "max_joint_accel", "max_step_m", "max_step_rad",
    "workspace_min_m", "workspace_max_m", "out_of_bounds",
)  # fmt: skip
"""Parameters of which SafetyLimits are made: they may change while the node is configured, but not loosen while it runs."""

RUNTIME = {
    "image_timeout_s": "age from which a camera is stale [s]",
    "joint_timeout_s": "the same for everything else that is measured [s]",
    "unmoved_timeout_s": "how long the measured arm may stay the same, to the last bit, after a command to move [s]; 0: for ever",
    "max_sync_skew_s": "largest difference of stamps within an observation [s]",
    "inference_timeout_s": "age from which an answer is too old [s], if no newer request replaced it; 0: 1.5 control periods",
    "max_consecutive_misses": "late or unmatched decisions in a row that make a hold",
    "max_consecutive_rejections": "unusable messages of a topic in a row that make a hold",
    "start_paused": "wait for ~/start after activation",
    "auto_resume": "end a hold in RUNNING rather than PAUSED; for simulators",
    "fresh_frames_to_resume": "samples of every topic before a hold counts as passed",
    "dry_run": "decide and propose; publish nothing on command topics",
    "lockstep": "one decision per observation of a robot that waits for it",
    "require_stamps": "refuse messages without a stamp",
    "max_identical_images": "equal images in a row from which a camera counts as frozen; 0: never",
    "estop_timeout_s": "silence of the e-stop topic that counts as pressed [s]; it must be heard to start; 0: not needed",
    "max_episode_s": "running time after which the policy pauses [s]; 0: none",
}
"""Parameters of which RuntimeSettings are made: fixed for the life of the node."""
AS_TRAINED = -1
"""Of a parameter of acting: 0 has a meaning of its own there."""


class PolicyParameters:
    """Every parameter of the node, declared; see ros_bridge/README.md for the table."""

    def __init__(self, node: Node) -> None:
        fixed: dict[str, Any] = {"read_only": True}
        self.checkpoint = text(node, "checkpoint", "", "run or checkpoint directory; taken up by `configure`")
        self.tick_on = text(
            node,
            "tick_on",
            "timer",
            "when to decide: every control period, or on the first camera's image that comes a period after the last, at once",
            choices=("timer", "image"),
            **fixed,
        )
        self.contract = text(node, "contract", "", "topic contract (YAML); taken up by `configure`")
        self.proposals = integer(
            node,
            "proposals",
            AS_TRAINED,
            "whole actions to choose the most valuable of, which decide how long a decision takes; 0: choose dimension by "
            "dimension; -1: as trained; taken up by `configure`",
            low=AS_TRAINED,
            high=MOST_PROPOSALS,
        )
        self.behavior_mask = number(
            node,
            "behavior_mask",
            AS_TRAINED,
            "share of its likeliest bin from which the behaviour's bins may be acted on; 0: all; -1: as trained; taken up by "
            "`configure`",
            low=AS_TRAINED,
            high=1.0,
        )
        self.surprise = number(
            node,
            "surprise",
            AS_TRAINED,
            "width within which what has disappointed in the episode is avoided; 0: not at all; -1: as trained; taken up by "
            "`configure`",
            low=AS_TRAINED,
        )
        self.output = text(
            node, "output", Output.joint_trajectory.value, "what the arm takes", choices=[o.value for o in Output], **fixed
        )
        self.device = text(node, "device", "auto", "auto, cpu, cuda or cuda:<n>", **fixed)
        self.torch_threads = integer(node, "torch_threads", 1, "cores for the network", low=1, high=256, **fixed)
        self.command_rate_hz = number(
            node,
            "command_rate_hz",
            50.0,
            "points of a trajectory, streamed commands and watchdogs [Hz]",
            low=1.0,
            high=1000.0,
            **fixed,
        )
        self.allow_slow = flag(node, "allow_slow", False, "take a policy slower than its own rate, for lockstep", **fixed)
        self.base_frame = text(node, "base_frame", "base_link", "frame of poses, commanded and measured", **fixed)
        self.tool_frame = text(node, "tool_frame", "tool", "frame of velocities; the URDF's link of the tool", **fixed)
        self.urdf = text(node, "urdf", "", "model of the arm, for Cartesian actions as joint positions", **fixed)
        self.activation_timeout_s = number(
            node,
            "activation_timeout_s",
            5.0,
            "how long `activate` waits for streams and listeners [s]",
            low=0.0,
            high=60.0,
            **fixed,
        )
        self.joint_limit_margin_rad = number(
            node, "joint_limit_margin_rad", 0.05, "kept from the joints' limits [rad]", low=0.0, high=3.0
        )
        self.max_joint_velocity_scale = number(
            node, "max_joint_velocity_scale", 1.0, "share of the joints' speed limits", low=1e-3, high=1.0
        )
        self.max_joint_accel = number(node, "max_joint_accel", 0.0, "of a joint [rad/s^2]; 0: not limited", low=0.0, high=1e4)
        self.max_step_m = number(node, "max_step_m", 0.05, "way of tool or rail in a control period [m]", low=1e-6, high=10.0)
        self.max_step_rad = number(
            node, "max_step_rad", 0.2, "turn of a joint or of the tool in a control period [rad]", low=1e-6, high=10.0
        )
        self.workspace_min_m = numbers(node, "workspace_min_m", [], "lower corner of the tool's box [m]; empty: none")
        self.workspace_max_m = numbers(node, "workspace_max_m", [], "upper corner of the tool's box [m]; empty: none")
        self.out_of_bounds = text(
            node,
            "out_of_bounds",
            OutOfBounds.clamp.value,
            "what a motion out of bounds ends in",
            choices=[o.value for o in OutOfBounds],
        )
        self.joint_names = texts(node, "joint_names", [], "joints of inverse kinematics, and of the limits below", **fixed)
        self.joint_min_rad = numbers(node, "joint_min_rad", [], "one per joint [rad]; or the urdf's, if narrower", **fixed)
        self.joint_max_rad = numbers(node, "joint_max_rad", [], "one per joint [rad]; the same", **fixed)
        self.joint_max_rad_s = numbers(node, "joint_max_rad_s", [], "one per joint [rad/s]; the same", **fixed)

        self.hold_time_s = number(
            node, "hold_time_s", 0.3, "within which a hold is reached, where it is a trajectory [s]", low=0.01, high=10.0, **fixed
        )
        self._declare_runtime(node)

    def _declare_runtime(self, node: Node) -> None:
        """`RuntimeSettings`, field by field: their defaults are its defaults."""
        usual = RuntimeSettings(control_hz=1.0)
        self._runtime: dict[str, Setting[Any]] = {}
        for name, description in RUNTIME.items():
            default: Any = getattr(usual, name)
            declare: Any = flag if isinstance(default, bool) else integer if isinstance(default, int) else number
            self._runtime[name] = declare(node, name, default, description, read_only=True)
        words = [word.value for word in BelowMinValue]
        self._min_value = numbers(
            node, "min_value", [], "expected return below which an action is not taken; empty: none", read_only=True
        )
        self._below = text(node, "below_min_value", words[0], "what to do then; `ask` pauses", choices=words, read_only=True)

    def runtime(self, control_hz: float) -> RuntimeSettings:
        if len(self._min_value.value) > 1:
            raise ConfigError(f"min_value expected one number, or none, found {list(self._min_value.value)}")
        return RuntimeSettings(
            control_hz=control_hz,
            **{name: setting.value for name, setting in self._runtime.items()},
            min_value=next(iter(self._min_value.value), None),
            below_min_value=BelowMinValue(self._below.value),
        )

    def deployment(self, namespace: str) -> DeploymentSettings:
        return DeploymentSettings(
            checkpoint=Path(self.checkpoint.value),
            contract=Path(self.contract.value),
            namespace=namespace,
            output=Output(self.output.value),
            device=self.device.value,
            acting=self._acting(),
            torch_threads=self.torch_threads.value,
            command_rate_hz=0.0 if self._runtime["lockstep"].value else self.command_rate_hz.value,  # one point per decision
            allow_slow=self.allow_slow.value,
            urdf=self.urdf.value,
            base_frame=self.base_frame.value,
            tool_frame=self.tool_frame.value,
            joints=self.joint_names.value,
        )

    def _acting(self) -> ActingConfig:
        asked = {name: getattr(self, name).value for name in ("proposals", "behavior_mask", "surprise")}
        return ActingConfig(**{name: value for name, value in asked.items() if value != AS_TRAINED})

    def joint_ranges(self) -> dict[str, JointRange]:
        """How far and how fast joints may go: what the model and the parameters both allow.

        Raises:
            ConfigError: the model cannot be read, or they contradict each other.
        """
        own, model = self._joint_ranges(), self.urdf.value
        return intersected(read_urdf(model), own) if model else own

    def limits(self, ranges: Mapping[str, JointRange], joints: tuple[str, ...], **changes: Any) -> SafetyLimits:
        """As they are now, of joints with these ranges, with parameters of `changes` instead.

        Raises:
            ConfigError: they contradict each other.
        """

        def now(name: str) -> Any:
            setting = getattr(self, name)
            return setting.convert(changes[name]) if name in changes else setting.value

        if joints and not ranges:
            raise ConfigError(
                "joint motions need limits: give the arm's model (urdf:=<file>), or joint_names, joint_min_rad, joint_max_rad and "
                "joint_max_rad_s"
            )
        return SafetyLimits(
            joints=limited_joints(
                ranges, joints, margin_rad=now("joint_limit_margin_rad"), velocity_scale=now("max_joint_velocity_scale")
            ),
            max_joint_accel=now("max_joint_accel") or math.inf,
            max_step_m=now("max_step_m"),
            max_step_rad=now("max_step_rad"),
            workspace_min=now("workspace_min_m") or (-math.inf, -math.inf, -math.inf),
            workspace_max=now("workspace_max_m") or (math.inf, math.inf, math.inf),
            out_of_bounds=OutOfBounds(now("out_of_bounds")),
        )

    def _joint_ranges(self) -> dict[str, JointRange]:
        columns = [getattr(self, name).value for name in ("joint_names", "joint_min_rad", "joint_max_rad", "joint_max_rad_s")]
        if self.urdf.value and not any(columns[1:]):
            return {}  # the names are for inverse kinematics alone
        counts = [len(column) for column in columns]
        if len(set(counts)) != 1:
            raise ConfigError(
                "joint_names, joint_min_rad, joint_max_rad and joint_max_rad_s expected one entry per joint, "
                f"found {', '.join(map(str, counts))}"
            )
        return {name: JointRange(low=low, high=high, velocity=v) for name, low, high, v in zip(*columns, strict=True)}

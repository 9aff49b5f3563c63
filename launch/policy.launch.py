"""A policy on a real arm whose driver runs already.

    ros2 launch launch/policy.launch.py arm:=ur5e checkpoint:=runs/mine contract:=my_contract.yaml

It starts as a dry run and paused: it decides, publishes what it would command (`/qtransformer_policy/proposed_trajectory`), and
moves nothing. With dry_run:=false it still waits for the service `/qtransformer_policy/start`. params:=FILE sets further parameters
of the node, over those of the arm. Read SECURITY.md first.
"""

import sys
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

sys.path.insert(0, str(Path(__file__).parent))
from _programs import PARAMETERS, lifecycle_program, transport


def generate_launch_description() -> LaunchDescription:
    value = LaunchConfiguration
    arms_own = [str(PARAMETERS) + "/", value("arm"), ".yaml"]
    policy = lifecycle_program(
        "qtransformer-policy",
        [arms_own, value("params")],
        {"checkpoint": value("checkpoint"), "contract": value("contract"), "dry_run": value("dry_run"), "output": value("output")},
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("arm", description="a file of launch/params: " + ", ".join(arms())),
            DeclareLaunchArgument("checkpoint", description="run or checkpoint directory"),
            DeclareLaunchArgument("contract", description="topic contract, as in datasets/contracts"),
            DeclareLaunchArgument("dry_run", default_value="true", description="decide, but command nothing"),
            DeclareLaunchArgument("params", default_value=arms_own, description="a file of parameters that count over the arm's"),
            DeclareLaunchArgument("output", default_value="joint_trajectory"),
            *transport(),
            policy,
            RegisterEventHandler(
                OnStateTransition(
                    target_lifecycle_node=policy,
                    start_state="configuring",  # not after a deactivation, which somebody asked for
                    goal_state="inactive",
                    entities=[change(policy, "ACTIVATE")],
                )
            ),
            change(policy, "CONFIGURE"),
        ]
    )


def arms() -> list[str]:
    return sorted(path.stem for path in PARAMETERS.glob("*.yaml") if path.stem != "sim")


def change(node: object, transition: str) -> EmitEvent:
    number = getattr(Transition, f"TRANSITION_{transition}")
    return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=number))

"""The simulated arm, a policy, and the recorder; `qtransformer-episodes` runs the episodes.

ros2 launch launch/sim.launch.py checkpoint:=runs/demo episodes:=50 folder:=runs/demo/ros
"""

import sys
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, Shutdown
from launch.substitutions import LaunchConfiguration

sys.path.insert(0, str(Path(__file__).parent))
from _programs import CONTRACTS, PARAMETERS, program, transport


def generate_launch_description() -> LaunchDescription:
    parameters = str(PARAMETERS / "sim.yaml")
    value = LaunchConfiguration
    return LaunchDescription(
        [
            DeclareLaunchArgument("checkpoint", description="run or checkpoint directory"),
            DeclareLaunchArgument("contract", default_value=str(CONTRACTS / "simulated_kuka.yaml")),
            DeclareLaunchArgument("arm", default_value="kuka", description="kuka or panda"),
            DeclareLaunchArgument("episodes", default_value="50"),
            DeclareLaunchArgument("first_seed", default_value="1000", description="scene of the first episode"),
            DeclareLaunchArgument("split", default_value="test", description="which objects: train, validation, test"),
            DeclareLaunchArgument("folder", default_value="runs/ros", description="of bags/ and episodes.json"),
            *transport(),
            program("qtransformer-sim", parameters, {"arm": value("arm"), "split": value("split")}),
            program("qtransformer-policy", parameters, {"checkpoint": value("checkpoint"), "contract": value("contract")}),
            program("qtransformer-recorder", parameters, {"contract": value("contract"), "folder": [value("folder"), "/bags"]}),
            program(
                "qtransformer-episodes",
                parameters,
                {
                    "contract": value("contract"),
                    "episodes": value("episodes"),
                    "first_seed": value("first_seed"),
                    "folder": value("folder"),
                },
                on_exit=Shutdown(reason="all episodes done"),
            ),
        ]
    )

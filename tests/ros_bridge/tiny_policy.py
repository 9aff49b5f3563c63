"""A checkpoint with random weights that fits a contract."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from qtransformer import Policy
from qtransformer.checkpoint import Artefact, build_network, write_checkpoint
from qtransformer.config import TrainConfig, from_dict
from qtransformer_datasets.rosbag.topic_contract import TopicContract
from qtransformer_ros.control.inference import blank_observation
from tests.small_network import SMALL

REMEMBERING = SMALL | {"model": SMALL["model"] | {"history": 2}}
CONTRACT = """
control_hz: 10
tolerance_s: 0.5
cameras:
  wrist: {topic: camera/wrist/image_raw, size: [16, 16]}
proprio:
  - {topic: joint_states, type: JointState, joints: [shoulder, elbow], units: rad}
action:
  - {topic: arm/joint_trajectory, type: JointTrajectory, joints: [shoulder, elbow], units: rad, low: -0.2, high: 0.2}
  - {topic: gripper, type: Bool, values: [gripper], units: "1", low: 0.0, high: 1.0, discrete: 2}
instruction: {text: wave}
"""
URDF = """<robot name="arm"><link name="base"/><link name="upper"/><link name="tool"/>
<joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/><axis xyz="0 0 1"/>
 <limit lower="-2" upper="2" velocity="2" effort="9"/></joint>
<joint name="elbow" type="revolute"><parent link="upper"/><child link="tool"/><axis xyz="0 0 1"/>
 <limit lower="-2" upper="2" velocity="2" effort="9"/></joint>
</robot>"""


def write_contract(folder: Path, text: str = CONTRACT) -> Path:
    (folder / "contract.yaml").write_text(text)
    return folder / "contract.yaml"


def write_policy(folder: Path, contract: Path, spoil: Callable[[Any], Any] | None = None, **changes: Any) -> Path:
    """A checkpoint of the contract's own specs; `spoil` damages the network after its golden sample was taken."""
    torch.manual_seed(0)
    config = from_dict(TrainConfig, REMEMBERING | changes)
    own = TopicContract.load(contract)
    action, seen = own.action_spec(), own.observation_spec()
    p = len(seen.proprio_names)
    stats = {"proprio_mean": [0.0] * p, "proprio_std": [1.0] * p}
    network = build_network(config, action, seen, stats).eval()
    policy = Policy(network, config, action, seen, torch.device("cpu"))
    golden = policy.golden_sample(blank_observation(dict(seen.cameras), p))
    if spoil is not None:
        spoil(network)
    artefact = Artefact(config=config, action_spec=action, observation_spec=seen, stats=stats, network=network, golden=golden)
    return write_checkpoint(folder / "checkpoints", 1, artefact, {"x": torch.zeros(1)}, {"step": 1})

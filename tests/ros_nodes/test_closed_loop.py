"""Policy and simulated arm as two processes, in lockstep: what `qtransformer eval` does, over DDS."""

import signal
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from qtransformer import Policy
from qtransformer.rollout import rollout
from qtransformer.types import Env, Episode
from qtransformer_sim import make_env
from tests.ros_bridge.tiny_policy import write_policy
from tests.ros_nodes.harness import LATCHED, ROOT, Graph

NODE, SIM = "/qtransformer_policy", "/qtransformer_sim"
CONTRACT = ROOT / "datasets" / "contracts" / "simulated_kuka.yaml"
STEPS = 4


def remembered(env: Env, policy: Policy, seed: int) -> tuple[Episode, list[np.ndarray]]:
    """An episode, and its actions in robot units."""
    taken: list[np.ndarray] = []
    return rollout(env, policy, seed, lambda _, action: taken.append(action)), taken


def test_two_episodes_over_dds_are_those_of_one_process(graph: Graph, tmp_path: Path) -> None:
    probe, checkpoint = graph.probe, write_policy(tmp_path, CONTRACT)
    statuses = probe.listen(f"{NODE}/status", DiagnosticStatus, LATCHED)
    actions = probe.listen(f"{NODE}/action", JointState)
    events = probe.listen("episode/event", String)
    graph.start("qtransformer_ros.nodes.sim_node", lockstep=True, max_steps=STEPS, seed=3)
    node = graph.start(
        "qtransformer_ros.nodes.policy_node",
        checkpoint=str(checkpoint),
        contract=str(CONTRACT),
        output="as_contract",
        device="cpu",
        lockstep=True,
        start_paused=True,
        use_sim_time=True,
        allow_slow=True,
    )
    assert probe.transition(NODE, "configure", 60), statuses[-1].message
    assert probe.transition(NODE, "activate"), statuses[-1].message
    # An episode is over in a moment: begin when the test hears the arm.
    probe.wait_for(lambda: probe.trigger(f"{SIM}/reset", 60).success and events, "the arm's events")
    probe.wait_for(lambda: probe.node.count_publishers(f"{NODE}/action"), "the policy's actions")
    assert probe.trigger(f"{NODE}/start").success

    env = make_env(cameras={"wrist": (64, 64)}, max_steps=STEPS)
    policy = Policy.from_checkpoint(checkpoint, "cpu")
    for seed in (3, 4):
        if seed != 3:
            assert probe.set_parameters(SIM, seed=seed) == {}
            assert probe.trigger(f"{NODE}/reset").success
            actions.clear()
            events.clear()
            assert probe.trigger(f"{SIM}/reset").success
        episode, taken = remembered(env, policy, seed)
        # One more: the last observation is decided on as well, and the arm, whose episode is over, does not listen.
        wanted = len(taken) + 1
        probe.wait_for(lambda wanted=wanted: len(actions) >= wanted, "the episode's actions", 60)
        ends = probe.wait_for(lambda: [e.data for e in events if e.data != "start"], "the outcome")
        np.testing.assert_allclose([a.position for a in actions[: len(taken)]], taken, atol=1e-5)
        assert ends == ["success" if episode.success else "failure" if episode.terminated[-1] else "timeout"]
    env.close()
    assert node.stop() == 0


def test_in_real_time_velocities_are_repeated_and_the_last_one_is_zero(graph: Graph, tmp_path: Path) -> None:
    probe, checkpoint = graph.probe, write_policy(tmp_path, CONTRACT)
    statuses = probe.listen(f"{NODE}/status", DiagnosticStatus, LATCHED)
    actions = probe.listen(f"{NODE}/action", JointState)
    twists = probe.listen("servo_node/delta_twist_cmds", TwistStamped)
    graph.start("qtransformer_ros.nodes.sim_node", max_steps=1000, seed=3)
    node = graph.start(
        "qtransformer_ros.nodes.policy_node",
        checkpoint=str(checkpoint),
        contract=str(CONTRACT),
        output="delta_twist_cmds",
        tool_frame="gripper",
        device="cpu",
        start_paused=False,
        auto_resume=True,
        use_sim_time=True,
        allow_slow=True,
        image_timeout_s=2,
        joint_timeout_s=2,
        max_sync_skew_s=1,
        max_consecutive_misses=20,
        command_rate_hz=20,
    )
    assert probe.transition(NODE, "configure", 60), statuses[-1].message
    probe.wait_for(lambda: probe.node.count_publishers("joint_states"), "the arm", 60)
    assert probe.transition(NODE, "activate"), statuses[-1].message
    probe.wait_for(lambda: len(actions) > 4, "decisions", 60)
    assert len(twists) > 2 * len(actions)  # 20 Hz, decided at 4 Hz; a busy machine leaves out some
    assert twists[0].header.frame_id == "gripper"
    assert node.stop(signal.SIGTERM) == 0
    probe.spin_for(0.3)
    last = twists[-1].twist
    assert [last.linear.x, last.linear.y, last.linear.z, last.angular.x, last.angular.y, last.angular.z] == [0.0] * 6

"""`qtransformer-sim`: a simulated arm with the face of a ros2_control robot, and its cameras. See ros_bridge/README.md."""

import array
import math
import re
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Bool, Float32, Float64MultiArray, Header, String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from qtransformer.errors import ConfigError
from qtransformer_datasets.rosbag.ros_messages import stamp_ns
from qtransformer_datasets.rosbag.tick_sync import NANOSECONDS
from qtransformer_ros.nodes.messages import time_message
from qtransformer_ros.nodes.parameters import declared, flag, integer, number, text, texts
from qtransformer_ros.nodes.qos import CLOCK, EVERY, IMAGE, LATCHED
from qtransformer_ros.nodes.running import run
from qtransformer_ros.simulated.faults import ArmState, Faults
from qtransformer_ros.simulated.lockstep import LockstepRobot
from qtransformer_ros.simulated.real_time import RealTimeRobot
from qtransformer_ros.simulated.robot import StepResult
from qtransformer_ros.simulated.trajectory import CommandRefused
from qtransformer_sim import make_env
from qtransformer_sim.arm import ARMS

TICK_S = 0.004
"""How often physics catches up with the wall clock [s]."""
MOST_BEHIND_S = 0.1
"""What physics may have to catch up with [s]; simulated time falls behind rather than to run in bursts."""
BURST_S = 0.01
"""How long physics may run before what was received is looked at [s of real time]."""
REPEAT_S = 1.0
"""How often a lockstep robot looks for listeners that came too late for its first observation [s]."""


class SimNode(Node):
    """Topics, services and parameters around a `SimRobot`."""

    def __init__(self) -> None:
        super().__init__("qtransformer_sim")
        self.settings = declared(self, settings)
        self.cameras = dict(camera_size(entry) for entry in self.settings["cameras"].value)
        self.robot = self._make_robot()
        self.faults = Faults()
        self.rejected, self.last_rejection = 0, ""
        self._advertise()
        self._subscribe()
        self._reset()
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # not ROS time, which is ours to give
        self.create_timer(1.0, self._publish_status, clock=steady)
        if isinstance(self.robot, LockstepRobot):
            self.create_timer(REPEAT_S, self._repeat_for_latecomers, clock=steady)
        else:
            self._last = time.monotonic()
            self._behind_s = 0.0
            self.create_timer(TICK_S, self._catch_up, clock=steady)

    def on_stop(self) -> None:
        """Free the physics world."""
        self.robot.env.close()

    def _make_robot(self) -> LockstepRobot | RealTimeRobot:
        s = self.settings
        env = make_env(
            arm=s["arm"].value,
            cameras=self.cameras,
            max_steps=s["max_steps"].value,
            control_hz=s["control_hz"].value,
            physics_hz=s["physics_hz"].value,
        )
        return LockstepRobot(env) if s["lockstep"].value else RealTimeRobot(env)

    def _advertise(self) -> None:
        self.joint_states = self.create_publisher(JointState, "joint_states", EVERY)
        self.tool_state = self.create_publisher(JointState, "tool_state", EVERY)
        self.ee_pose = self.create_publisher(PoseStamped, "ee_pose", EVERY)
        self.clock_topic = self.create_publisher(ClockMessage, "/clock", CLOCK)
        self.event = self.create_publisher(String, "episode/event", EVERY)
        self.reward = self.create_publisher(Float32, "~/reward", EVERY)
        self.success = self.create_publisher(Bool, "~/success", EVERY)
        self.done = self.create_publisher(Bool, "~/done", EVERY)
        self.status = self.create_publisher(DiagnosticStatus, "~/status", LATCHED)
        self.images, self.pngs, self.infos = (
            {name: self.create_publisher(kind, f"camera/{name}/{topic}", IMAGE) for name in self.cameras}
            for kind, topic in ((Image, "image_raw"), (CompressedImage, "image_raw/compressed"), (CameraInfo, "camera_info"))
        )
        self.listeners = 0
        self.next_state_ns = self.next_clock_ns = self.next_image_ns = 0

    def _subscribe(self) -> None:
        robot = self.robot
        commands: dict[str, tuple[Any, Callable[[Any], None]]] = {
            "servo_node/delta_twist_cmds": (
                TwistStamped,
                lambda m: robot.twist(_xyz(m.twist.linear), _xyz(m.twist.angular), stamp_ns(m.header.stamp)),
            ),
            "joint_trajectory_controller/joint_trajectory": (JointTrajectory, robot.trajectory),
            "forward_position_controller/commands": (Float64MultiArray, lambda m: robot.positions(m.data)),
            "target_pose": (
                PoseStamped,
                lambda m: robot.pose(_xyz(m.pose.position), [*_xyz(m.pose.orientation), m.pose.orientation.w], m.header.frame_id),
            ),
            "gripper_controller/commands": (Float64MultiArray, lambda m: robot.gripper(m.data)),
            "policy/terminate": (Bool, lambda m: robot.terminate(m.data)),
        }
        for topic, (kind, command) in commands.items():
            self.create_subscription(kind, topic, self._commanded(topic, command), EVERY)
        self.create_subscription(Bool, "estop", lambda m: self._estop(True) if m.data else None, EVERY)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(SetBool, "~/pause", self._on_pause)
        self.create_service(SetBool, "~/estop", self._on_estop)

    def _commanded(self, topic: str, command: Callable[[Any], None]) -> Callable[[Any], None]:
        """A callback that carries a command out, or counts why not."""

        def receive(message: Any) -> None:
            try:
                command(message)
            except CommandRefused as refusal:
                self.rejected += 1
                self.last_rejection = f"{topic}: {refusal}"
                self.get_logger().warning(f"refused {self.last_rejection}", throttle_duration_sec=1.0)
                self._publish_status()
            self._step()

        return receive

    def _step(self) -> None:
        """In lockstep: take the control step if its command is complete, and show what came of it."""
        if isinstance(self.robot, LockstepRobot) and (result := self.robot.step()) is not None:
            self._follow_clock()
            self.reward.publish(Float32(data=result.reward))  # before what it led to, on which the next decision is made
            self._publish_observation()
            self._publish_result(result)

    def _catch_up(self) -> None:
        """In real time: physics up to now, in bursts between which commands are heard."""
        robot, factor, now = self.robot, self.settings["real_time_factor"].value, time.monotonic()
        assert isinstance(robot, RealTimeRobot)
        elapsed, self._last = now - self._last, now
        if robot.paused:
            return
        self._behind_s = min(MOST_BEHIND_S, self._behind_s + elapsed * factor) if factor else math.inf
        robot.twist_timeout_s, robot.cmd_timeout_s = (self.settings[f"{n}_timeout_s"].value for n in ("twist", "cmd"))
        self._follow_clock()
        dt = robot.env.bullet.sim_dt
        while self._behind_s >= dt and time.monotonic() - now < BURST_S:
            self._behind_s -= dt
            result = robot.advance()
            if result is not None:
                self.reward.publish(Float32(data=result.reward))
            self._publish_due()
            if result is not None:
                self._publish_result(result)

    def _publish_due(self) -> None:
        """In real time: what is due at this instant, all with its stamp."""
        now = self.robot.time_ns
        if now >= self.next_clock_ns:
            self.next_clock_ns = now - now % 10_000_000 + 10_000_000
            self._publish_clock()
        if now >= self.next_state_ns:
            period = round(NANOSECONDS / self.settings["joint_state_hz"].value)
            self.next_state_ns = now - now % period + period
            self._publish_state()
        if now >= self.next_image_ns:
            period = round(NANOSECONDS / self.settings["image_hz"].value)
            self.next_image_ns = now - now % period + period
            for name in self.cameras:
                if self.images[name].get_subscription_count() or self.pngs[name].get_subscription_count():
                    self._publish_image(name, self.robot.env.image(name))

    def _publish_observation(self) -> None:
        """In lockstep: everything of this instant."""
        self._publish_clock()
        self._publish_state()
        for name, image in self.robot.observation["images"].items():
            self._publish_image(name, image)

    def _repeat_for_latecomers(self) -> None:
        """A volatile first observation reaches only who is there; without it, a lockstep policy and its robot wait for ever."""
        publishers = [self.joint_states, self.tool_state, self.ee_pose, *self.images.values(), *self.pngs.values()]
        listeners = sum(p.get_subscription_count() for p in publishers)
        if listeners > self.listeners and not self.robot.steps:
            self._publish_observation()
        self.listeners = listeners

    def _follow_clock(self) -> None:
        self.robot.clock_offset_ns = round(self.settings["clock_jump_s"].value * NANOSECONDS)

    def _publish_clock(self) -> None:
        self.clock_topic.publish(ClockMessage(clock=time_message(self.robot.ros_ns)))

    def _publish_state(self) -> None:
        s, robot = self.settings, self.robot
        header = Header(stamp=time_message(robot.ros_ns), frame_id="base_link")
        measured = ArmState(joints=robot.joint_positions(), numbers=robot.tool_state(), tool=robot.tool_pose())
        state = self.faults.state(measured, stick=s["state_stick"].value)
        if not self.faults.drops(s["drop_prob"].value):
            names, positions = self.faults.joints(
                robot.joints,
                state.joints,
                noise=s["joint_noise"].value,
                nan=s["nan_joint"].value,
                shuffle=s["shuffle_joints"].value,
            )
            self.joint_states.publish(JointState(header=header, name=names, position=positions))
        if not self.faults.drops(s["drop_prob"].value):
            self.tool_state.publish(JointState(header=header, name=list(state.numbers), position=list(state.numbers.values())))
        message = PoseStamped(header=header)
        p, q = message.pose.position, message.pose.orientation
        p.x, p.y, p.z = (float(v) for v in state.tool.position)
        q.z, q.w = math.sin(state.tool.yaw / 2), math.cos(state.tool.yaw / 2)
        self.ee_pose.publish(message)

    def _publish_image(self, name: str, image: np.ndarray) -> None:
        s = self.settings
        if self.faults.drops(s["drop_prob"].value):
            return
        ros_ns, image = self.faults.image(
            name, self.robot.ros_ns, image, freeze=s["camera_freeze"].value, stick=s["camera_stick"].value
        )
        delay_s = s["image_delay_ms"].value / 1000
        if delay_s:
            self._later(delay_s, lambda: self._send_image(name, ros_ns, image))
        else:
            self._send_image(name, ros_ns, image)

    def _send_image(self, name: str, ros_ns: int, image: np.ndarray) -> None:
        height, width = image.shape[:2]
        header = Header(stamp=time_message(ros_ns), frame_id=f"{name}_optical_frame")
        self.infos[name].publish(camera_info(header, self.robot.env.arm.model.camera(name).fov, height, width))
        data = array.array("B", image.tobytes())  # by far the fastest that rclpy takes
        self.images[name].publish(Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width, data=data))
        if self.pngs[name].get_subscription_count():
            png = cv2.imencode(".png", image[..., ::-1])[1]
            self.pngs[name].publish(CompressedImage(header=header, format="png", data=array.array("B", png.tobytes())))

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        def fire() -> None:
            self.destroy_timer(timer)
            action()

        timer = self.create_timer(delay_s, fire, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _publish_result(self, result: StepResult) -> None:
        self.success.publish(Bool(data=result.success))
        self.done.publish(Bool(data=result.done))
        if result.event:
            self.event.publish(String(data=result.event))
            self._publish_status()

    def _reset(self) -> int:
        s = self.settings
        seed = None if s["seed"].value < 0 else s["seed"].value
        self._follow_clock()
        seed = self.robot.reset(seed, split=s["split"].value, num_objects=s["num_objects"].value)
        self.seed = seed
        self.event.publish(String(data="start"))
        if isinstance(self.robot, LockstepRobot):
            self._publish_observation()
        self._publish_status()
        return seed

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, f"seed {self._reset()}"
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.robot.paused = request.data
        response.success = True
        self._publish_status()
        self._step()  # a command that waited
        return response

    def _on_estop(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._estop(request.data)
        response.success = True
        return response

    def _estop(self, pressed: bool) -> None:
        if pressed:
            self.robot.press()
        else:
            self.robot.release()
        self._publish_status()

    def _publish_status(self) -> None:
        robot = self.robot
        state = "ESTOP" if robot.stopped else "PAUSED" if robot.paused else "DONE" if robot.done else "RUNNING"
        values = {
            "mode": "lockstep" if isinstance(robot, LockstepRobot) else "real_time",
            "seed": self.seed,
            "steps": robot.steps,
            "sim_time_s": f"{robot.time_ns / NANOSECONDS:.3f}",
            "commands_rejected": self.rejected,
            "last_rejection": self.last_rejection,
        }
        self.status.publish(
            DiagnosticStatus(
                level=DiagnosticStatus.WARN if robot.stopped else DiagnosticStatus.OK,
                name=self.get_fully_qualified_name(),
                message=state,
                hardware_id=f"simulated {self.settings['arm'].value}",
                values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
            )
        )


def settings(node: Node) -> dict[str, Any]:
    """Every parameter of the node, declared; see ros_bridge/README.md for the table."""
    made: dict[str, Any] = {}

    def declare(kind: Callable[..., Any], name: str, *rest: Any, **options: Any) -> None:
        made[name] = kind(node, name, *rest, **options)

    declare(text, "arm", "kuka", "which arm", choices=sorted(ARMS), read_only=True)
    declare(texts, "cameras", ["wrist:64x64"], "cameras as name:HEIGHTxWIDTH [px]", read_only=True)
    declare(number, "control_hz", 4.0, "control steps per second [Hz]", low=0.1, high=120.0, read_only=True)
    declare(number, "physics_hz", 120.0, "physics steps per second [Hz]", low=60.0, high=1000.0, read_only=True)
    declare(integer, "max_steps", 24, "control steps after which an episode times out", low=1, read_only=True)
    declare(flag, "lockstep", False, "one control step per complete command", read_only=True)
    declare(number, "joint_state_hz", 100.0, "rate of states [Hz]", low=1.0, high=500.0, read_only=True)
    declare(number, "image_hz", 10.0, "rate of images [Hz]", low=0.1, high=100.0, read_only=True)
    declare(number, "real_time_factor", 1.0, "simulated per real second; 0: as fast as possible", low=0.0, high=100.0)
    twist_s, cmd_s = RealTimeRobot.twist_timeout_s, RealTimeRobot.cmd_timeout_s
    declare(number, "twist_timeout_s", twist_s, "age at which a twist runs out [s]", low=0.01, high=10.0)
    declare(number, "cmd_timeout_s", cmd_s, "age at which any other motion is broken off [s]; 0: never", low=0.0, high=3600.0)
    declare(integer, "seed", -1, "seed of the next episode; -1: a drawn one", low=-1, high=2**31 - 1)
    declare(text, "split", "train", "objects of the next episode", choices=("train", "validation", "test"))
    declare(integer, "num_objects", 3, "objects of the next episode", low=1, high=10)
    joints = [f"joint_{i + 1}" for i in range(7)]
    declare(flag, "camera_freeze", False, "fault: cameras repeat their last image under its old stamp")
    declare(flag, "camera_stick", False, "fault: cameras repeat their last image under new stamps")
    declare(flag, "state_stick", False, "fault: joints, numbers and pose of the arm repeat themselves under new stamps")
    declare(number, "image_delay_ms", 0.0, "fault: images come late [ms of real time]", low=0.0, high=60_000.0)
    declare(number, "drop_prob", 0.0, "fault: probability that an image or a state is lost", low=0.0, high=1.0)
    declare(text, "nan_joint", "", "fault: this joint is measured as NaN", choices=("", *joints))
    declare(number, "joint_noise", 0.0, "fault: deviation of measured joints [rad]", low=0.0, high=10.0)
    declare(flag, "shuffle_joints", False, "fault: joints come in a random order")
    declare(number, "clock_jump_s", 0.0, "fault: ROS time is off by this [s]", low=-1e6, high=1e6)
    return made


def camera_size(entry: str) -> tuple[str, tuple[int, int]]:
    """`wrist:64x48` as ("wrist", (64, 48)): height, then width [px]."""
    match = re.fullmatch(r"(\w+):(\d{1,4})x(\d{1,4})", entry)
    if match is None or not (int(match[2]) and int(match[3])):
        raise ConfigError(f"cameras: expected name:HEIGHTxWIDTH as in wrist:64x64, found '{entry}'")
    return match[1], (int(match[2]), int(match[3]))


def camera_info(header: Header, fov: float, height: int, width: int) -> CameraInfo:
    """An ideal camera of that vertical field of view [degree]."""
    f = height / 2 / math.tan(math.radians(fov) / 2)
    k = [f, 0.0, width / 2, 0.0, f, height / 2, 0.0, 0.0, 1.0]
    return CameraInfo(
        header=header,
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=k,
        r=np.eye(3).ravel().tolist(),
        p=[*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0],
    )


def _xyz(vector: Any) -> tuple[float, float, float]:
    return vector.x, vector.y, vector.z


def main(args: list[str] | None = None) -> int:
    """Entry point of `qtransformer-sim`. Returns the exit code."""
    return run(SimNode, args, settings)

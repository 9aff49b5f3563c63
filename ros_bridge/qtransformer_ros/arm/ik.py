"""From a pose of the tool to joint positions: damped least squares on a robot's URDF, from where the joints are now.

Kinematics are Pinocchio's (Carpentier et al. 2019), imported only when an arm is built. The search starts at the measured joints
and takes least-norm steps, so the solution is the near one: an arm neither flips its elbow nor wraps its wrist. What cannot be
reached like that is refused with the reason; nothing is approximated in silence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from qtransformer.errors import ConfigError, QTransformerError


class UnreachableError(QTransformerError):
    """A pose that the arm cannot, or should not at once, be taken to from where it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IkSettings:
    position_tolerance_m: float = 1e-5
    rotation_tolerance_rad: float = 1e-4
    max_iterations: int = 100
    damping: float = 1e-3
    """Damping far from the goal; it shrinks with the error, so that the end is Newton's."""
    max_jump_rad: float = 0.5
    """Largest change of any joint from its measured position [rad or m]."""


class InverseKinematics:
    """One arm: the `joints` of a URDF, in the caller's order, that move `tool_frame`; others stay at zero, or as near as they may.

    Args:
        urdf: path of the model; meshes are not read.
        base_frame: link in whose frame poses are given; "" for the model's root.

    Raises:
        ConfigError: Pinocchio is not installed, or the file is no URDF with these frames and joints.
    """

    def __init__(
        self, urdf: str | Path, joints: Sequence[str], tool_frame: str, base_frame: str = "", settings: IkSettings | None = None
    ) -> None:
        self._pin = _pinocchio()
        self.settings = settings or IkSettings()
        whole = self._read(urdf)
        self._check_joints(whole, joints, urdf)
        locked = [i for i, name in enumerate(whole.names) if i > 0 and name not in joints]
        at_rest = np.clip(self._pin.neutral(whole), whole.lowerPositionLimit, whole.upperPositionLimit)
        self._model = self._pin.buildReducedModel(whole, locked, at_rest)
        self._data = self._model.createData()
        self._tool, self._base = self._frame(tool_frame, urdf), self._frame(base_frame, urdf) if base_frame else None
        self.joints = tuple(joints)
        numbers = [self._model.getJointId(name) for name in joints]
        self._columns = np.array([self._model.idx_vs[i] for i in numbers])
        """Of each joint of ours in the model's velocities."""
        self._places = [(self._model.idx_qs[i], self._model.nqs[i]) for i in numbers]
        """(start, size) of each joint in the model's configuration; a continuous joint is a cosine and a sine there."""
        limits = (self._model.lowerPositionLimit, self._model.upperPositionLimit)
        self.low, self.high = (
            np.array([limit[at] if size == 1 else bound for at, size in self._places])
            for limit, bound in zip(limits, (-np.inf, np.inf), strict=True)
        )

    def forward(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joint positions (j,) [rad or m] to the tool's position (3,) [m] and orientation (4,) x y z w, in the base frame."""
        pose = self._placement(np.asarray(positions, np.float64))
        return pose.translation.copy(), self._pin.Quaternion(pose.rotation).coeffs()

    def solve(self, position: np.ndarray, orientation: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """Joint positions (j,) that put the tool at a position (3,) [m] and orientation (4,) x y z w, near the measured ones (j,).

        Raises:
            UnreachableError: not finite, outside the joints' limits or reach, or further from `measured` than `max_jump_rad`.
        """
        position, orientation, measured = (np.asarray(x, np.float64) for x in (position, orientation, measured))
        if not all(np.isfinite(x).all() for x in (position, orientation, measured)) or np.linalg.norm(orientation) < 0.5:
            raise UnreachableError(
                f"the pose {position} {orientation} or the joints {measured} are not finite numbers and a unit quaternion"
            )
        goal = self._pin.SE3(self._pin.Quaternion(orientation / np.linalg.norm(orientation)), position)
        solution = self._descend(goal, np.clip(measured, self.low, self.high))
        self._check_jump(solution, measured)
        return solution

    def _descend(self, goal: Any, joints: np.ndarray) -> np.ndarray:
        """Damped Gauss-Newton steps; joints that press against a limit are left out of a step."""
        error = self._error(goal, joints)
        for _ in range(self.settings.max_iterations):
            if self._reached(error):
                return joints
            jacobian = self._jacobian(error)
            damping = self.settings.damping * min(1.0, float(error @ error))
            step = _damped_step(jacobian, error, damping)
            pressed = ((joints <= self.low) & (step < 0)) | ((joints >= self.high) & (step > 0))
            if pressed.any():
                step = _damped_step(np.where(pressed, 0.0, jacobian), error, damping)
            step *= min(1.0, 0.3 / max(float(np.abs(step).max()), 1e-12))  # a linear model does not hold for longer ones
            joints = np.clip(joints + step, self.low, self.high)
            error = self._error(goal, joints)
        if self._reached(error):
            return joints
        raise UnreachableError(
            f"no joint positions found for the tool at {np.round(goal.translation, 4).tolist()} m: "
            f"{np.linalg.norm(error[:3]):.2g} m and {np.linalg.norm(error[3:]):.2g} rad away after "
            f"{self.settings.max_iterations} steps; it is out of reach, or a joint is at its limit"
        )

    def _reached(self, error: np.ndarray) -> bool:
        return bool(
            np.linalg.norm(error[:3]) <= self.settings.position_tolerance_m
            and np.linalg.norm(error[3:]) <= self.settings.rotation_tolerance_rad
        )

    def _check_jump(self, solution: np.ndarray, measured: np.ndarray) -> None:
        jump = np.abs(solution - measured)
        worst = int(jump.argmax())
        if jump[worst] > self.settings.max_jump_rad:
            raise UnreachableError(
                f"the tool's next pose is near, but joint '{self.joints[worst]}' would turn by {jump[worst]:.2f} "
                f"(allowed {self.settings.max_jump_rad}): a singularity or a limit is close"
            )

    def _error(self, goal: Any, joints: np.ndarray) -> np.ndarray:
        """(6,): what is left to the goal, in the tool's frame: translation [m], rotation [rad]."""
        self._left = self._placement(joints).actInv(goal)
        return self._pin.log6(self._left).vector

    def _jacobian(self, error: np.ndarray) -> np.ndarray:
        """(6, j): how `-error` changes with the joints that `_error` was last called with."""
        local = self._pin.computeFrameJacobian(self._model, self._data, self._q, self._tool, self._pin.ReferenceFrame.LOCAL)
        return (self._pin.Jlog6(self._left.inverse()) @ local)[:, self._columns]

    def _placement(self, joints: np.ndarray) -> Any:
        """The tool in the base frame, an SE3."""
        self._q = self._pin.neutral(self._model)
        for (at, size), angle in zip(self._places, joints, strict=True):
            self._q[at : at + size] = angle if size == 1 else (np.cos(angle), np.sin(angle))
        self._pin.framesForwardKinematics(self._model, self._data, self._q)
        tool = self._data.oMf[self._tool]
        return tool if self._base is None else self._data.oMf[self._base].actInv(tool)

    def _read(self, urdf: str | Path) -> Any:
        try:
            text = Path(urdf).read_text()
            return self._pin.buildModelFromXML(text)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(f"urdf={urdf} cannot be read as a robot's model: {error}") from error

    def _check_joints(self, model: Any, joints: Sequence[str], urdf: str | Path) -> None:
        missing = [name for name in joints if name not in model.names]
        if missing or not joints:
            found = ", ".join(list(model.names)[1:])
            raise ConfigError(f"urdf={urdf} has no joints {', '.join(missing) or '(none were asked for)'}; it moves {found}")

    def _frame(self, name: str, urdf: str | Path) -> int:
        if not self._model.existFrame(name):
            links = [f.name for f in self._model.frames if f.type == self._pin.FrameType.BODY]
            raise ConfigError(f"urdf={urdf} has no link '{name}'; it has {', '.join(links)}")
        return self._model.getFrameId(name)


def _damped_step(jacobian: np.ndarray, error: np.ndarray, damping: float) -> np.ndarray:
    """The step (j,) of least norm that the damping leaves towards an error (6,)."""
    return jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + (damping + 1e-12) * np.eye(len(error)), error)


def _pinocchio() -> Any:
    try:
        return import_module("pinocchio")
    except ImportError as error:
        raise ConfigError(
            "inverse kinematics needs Pinocchio: `pip install pin`; or let the arm's own controller take Cartesian commands "
            "(output:=delta_twist_cmds or output:=target_pose)"
        ) from error

"""Cameras, mounted on the gripper or fixed to the base, and the one call that renders them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pybullet

from qtransformer_sim.bullet import Bullet


@dataclass(frozen=True)
class Camera:
    """Where a camera sits and where it looks.

    A gripper camera's points are in the gripper frame: origin between the fingertips, x along the closing direction, z up,
    turned with the gripper. A base camera's are in the base frame. Both in metres.
    """

    mount: Literal["gripper", "base"]
    position: tuple[float, float, float]
    """Optical centre [m]."""
    target: tuple[float, float, float]
    """A point on the optical axis [m]."""
    up: tuple[float, float, float]
    """Direction that is up in the image."""
    fov: float
    """Vertical field of view [degree]."""

    def view_matrix(self, gripper_to_base: np.ndarray) -> list[float]:
        """OpenGL view matrix (16,), given the gripper's pose in the base frame as (4, 4)."""
        frame = gripper_to_base if self.mount == "gripper" else np.eye(4)
        position, target = ((frame @ [*point, 1.0])[:3].tolist() for point in (self.position, self.target))
        up = (frame[:3, :3] @ self.up).tolist()
        return pybullet.computeViewMatrix(position, target, up)


CAMERAS: dict[str, Camera] = {
    # Beside the fingers' plane, so that they do not cover what lies between them; tilted so that the table under the gripper is
    # at the image's middle when an episode starts, and the fingertips are at its upper third always.
    "wrist": Camera("gripper", (0.0, -0.085, 0.19), (0.0, -0.045, 0.0), (0.0, 1.0, 0.0), fov=56.0),
    "front": Camera("base", (1.15, 0.0, 0.55), (0.52, 0.0, 0.08), (0.0, 0.0, 1.0), fov=45.0),
    "side": Camera("base", (0.55, -0.7, 0.5), (0.55, 0.0, 0.08), (0.0, 0.0, 1.0), fov=40.0),
}
"""Cameras a policy may ask for by name. A further one is a further entry."""

VIDEO = Camera("base", (1.2, -0.75, 0.75), (0.45, 0.02, 0.22), (0.0, 0.0, 1.0), fov=42.0)
"""The spectator's camera of `env.render()`."""


def render(
    bullet: Bullet, camera: Camera, size: tuple[int, int], gripper_to_base: np.ndarray, *, shadow: bool = False
) -> np.ndarray:
    """One image, uint8 (h, w, 3) RGB. TinyRenderer draws on the processor: no shadow and no segmentation halve its time."""
    height, width = size
    projection = pybullet.computeProjectionMatrixFOV(camera.fov, width / height, 0.01, 3.0)
    _, _, rgba, _, _ = bullet.getCameraImage(
        width,
        height,
        camera.view_matrix(gripper_to_base),
        projection,
        lightDirection=[0.4, -0.5, 1.0],
        lightColor=[1.0, 1.0, 1.0],
        lightAmbientCoeff=0.55,
        lightDiffuseCoeff=0.5,
        lightSpecularCoeff=0.05,
        shadow=int(shadow),
        flags=pybullet.ER_NO_SEGMENTATION_MASK,
        renderer=pybullet.ER_TINY_RENDERER,
    )
    return np.ascontiguousarray(np.reshape(np.asarray(rgba, np.uint8), (height, width, 4))[:, :, :3])

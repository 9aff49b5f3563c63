"""The spectator's view: the arm's full meshes in a world of their own, so that filming costs an unfilmed run nothing."""

import numpy as np

from qtransformer_sim.arm import Arm
from qtransformer_sim.bullet import DATA, Bullet
from qtransformer_sim.camera import VIDEO, render
from qtransformer_sim.controller import Workspace
from qtransformer_sim.objects import SceneObject, load_mesh, place_object
from qtransformer_sim.tasks import build_table


class Studio:
    """Copies poses from the simulated world and renders them; it never simulates."""

    def __init__(self) -> None:
        self.bullet = Bullet()

    def build(self, arm: Arm, objects: list[SceneObject], workspace: Workspace) -> None:
        """Furnish the studio for a new episode."""
        self.bullet.clear()
        build_table(self.bullet, workspace)
        self._arm: int = arm.load_model(self.bullet, str(DATA / arm.model.file))
        self._objects = {}
        for item in objects:
            mesh = load_mesh(item.number)
            assert mesh is not None
            self._objects[item.body] = place_object(
                self.bullet, item.number, mesh, np.zeros(2), item.scale, np.array([0, 0, 0, 1])
            ).body

    def frame(self, world: Bullet, arm: Arm, size: tuple[int, int]) -> np.ndarray:
        """The world as it is now, uint8 (h, w, 3)."""
        for joint in range(world.getNumJoints(arm.body)):
            self.bullet.resetJointState(self._arm, joint, world.getJointState(arm.body, joint)[0])
        for original, copy in self._objects.items():
            self.bullet.resetBasePositionAndOrientation(copy, *world.getBasePositionAndOrientation(original))
        return render(self.bullet, VIDEO, size, np.eye(4), shadow=True)

    def close(self) -> None:
        self.bullet.close()

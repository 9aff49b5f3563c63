"""The 1,000 random objects that ship with PyBullet: which to train on, which are broken, and how to put them on a table.

The split is public and needs no list: a folder number ending in 0 is a test object, in 9 a validation object, the rest train.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pybullet

from qtransformer.errors import ConfigError
from qtransformer_sim.bullet import DATA, Bullet

SPLITS = {"train": (1, 2, 3, 4, 5, 6, 7, 8), "validation": (9,), "test": (0,)}
"""Last digit of the folder numbers of each split."""
MESH_SCALE = 0.015
"""Metres per mesh unit, as in the objects' own URDF files."""
MAX_EXTENT = 0.16
"""Longest side [m] of a full-size object that the gripper could lift; longer ones span the workspace."""
MAX_PARTS = 16
"""Convex parts an object may have. The 7% with more are sponges of up to 63 hulls, whose contacts dominate the physics."""
MASS = 0.1
"""Mass of every object [kg], as in their URDF files."""
DROP_HEIGHT = 0.003
"""Gap under an object when it is placed [m]."""
SURFACE_POINTS = 240


@dataclass(frozen=True)
class Mesh:
    """An object's shape and colour; points are relative to `center`, at scale 1."""

    center: np.ndarray
    """Middle of the surface in the mesh file's own frame [m], shape (3,). The files' origin lies outside many of the shapes."""
    vertices: np.ndarray
    """float (v, 3) [m]."""
    surface: np.ndarray
    """float (SURFACE_POINTS, 3) [m]: points spread evenly over the surface."""
    rgba: tuple[float, ...]


def object_numbers(split: str) -> list[int]:
    """Folder numbers of a split, broken ones included: `load_mesh` tells them apart when they are drawn."""
    if split not in SPLITS:
        raise ConfigError(f"object split must be one of {sorted(SPLITS)}, found '{split}'")
    return [number for number in range(1000) if number % 10 in SPLITS[split]]


def object_file(number: int, suffix: str) -> Path:
    return DATA / "random_urdfs" / f"{number:03d}" / f"{number:03d}.{suffix}"


@functools.lru_cache(maxsize=1024)
def load_mesh(number: int) -> Mesh | None:
    """Read an object's mesh; None where it would poison or stall the physics (no faces, NaN, flat, huge, too many parts)."""
    rows = [line.split() for line in object_file(number, "obj").read_text().splitlines()]
    vertices = MESH_SCALE * np.array([row[1:4] for row in rows if row and row[0] == "v"], np.float64).reshape(-1, 3)
    faces = [[int(corner.split("/")[0]) - 1 for corner in row[1:4]] for row in rows if row and row[0] == "f"]
    parts = max(1, sum(bool(row) and row[0] == "o" for row in rows))
    if not is_sound(vertices, len(faces), parts):
        return None
    surface = spread_points(vertices[np.array(faces)], np.random.default_rng(number))
    center = surface.mean(axis=0)
    return Mesh(center, vertices - center, surface - center, read_rgba(number))


def read_rgba(number: int) -> tuple[float, ...]:
    """The object's colour, from its URDF file."""
    color = ElementTree.parse(object_file(number, "urdf")).find(".//color")
    return tuple(float(x) for x in color.get("rgba", "").split()) if color is not None else (0.7, 0.7, 0.7, 1.0)


def is_sound(vertices: np.ndarray, faces: int, parts: int) -> bool:
    """Whether a mesh (v, 3) [m] can be simulated. NaN vertices are the treacherous case: Bullet takes them without a word."""
    if faces == 0 or len(vertices) < 4 or not np.isfinite(vertices).all() or parts > MAX_PARTS:
        return False
    extent = np.ptp(vertices, axis=0)
    return bool(extent.min() > 0.005 and extent.max() < MAX_EXTENT)


def spread_points(triangles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Points drawn uniformly by area from triangles (f, 3, 3) [m]; returns (SURFACE_POINTS, 3)."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = rng.choice(len(triangles), SURFACE_POINTS, p=area / area.sum())
    u, v = rng.random((2, SURFACE_POINTS, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    return a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen]


@dataclass(frozen=True)
class SceneObject:
    """An object that lies in the world."""

    body: int
    """Bullet's body number."""
    number: int
    """Folder number in `random_urdfs`."""
    scale: float
    """Size relative to the original."""

    def position(self, bullet: Bullet) -> np.ndarray:
        """Centre of mass in the base frame [m], shape (3,)."""
        return np.array(bullet.getBasePositionAndOrientation(self.body)[0])

    def surface(self, bullet: Bullet) -> np.ndarray:
        """Surface points in the base frame [m], shape (SURFACE_POINTS, 3)."""
        position, quaternion = bullet.getBasePositionAndOrientation(self.body)
        mesh = load_mesh(self.number)
        assert mesh is not None, f"object {self.number} was placed though its mesh is broken"
        return mesh.surface * self.scale @ rotation(bullet, quaternion).T + np.array(position)


def rotation(bullet: Bullet, quaternion: tuple[float, ...] | np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) of a quaternion (x, y, z, w)."""
    return np.array(bullet.getMatrixFromQuaternion(quaternion)).reshape(3, 3)


def draw_sound_number(numbers: list[int], rng: np.random.Generator) -> tuple[int, Mesh]:
    """Draw a folder number whose mesh can be simulated."""
    while True:
        number = numbers[int(rng.integers(len(numbers)))]
        mesh = load_mesh(number)
        if mesh is not None:
            return number, mesh


def place_object(bullet: Bullet, number: int, mesh: Mesh, xy: np.ndarray, scale: float, quaternion: np.ndarray) -> SceneObject:
    """Put an object just above the table (z = 0 in the base frame) at `xy` [m], turned by `quaternion` (x, y, z, w).

    Built from the mesh rather than from its URDF file, whose centre of mass lies outside many of the shapes.
    """
    path, size = str(object_file(number, "obj")), [MESH_SCALE * scale] * 3
    lowest = (mesh.vertices * scale @ rotation(bullet, quaternion).T)[:, 2].min()
    body = bullet.createMultiBody(
        baseMass=MASS,
        baseCollisionShapeIndex=bullet.createCollisionShape(pybullet.GEOM_MESH, fileName=path, meshScale=size),
        baseVisualShapeIndex=bullet.createVisualShape(pybullet.GEOM_MESH, fileName=path, meshScale=size, rgbaColor=mesh.rgba),
        basePosition=[float(xy[0]), float(xy[1]), float(DROP_HEIGHT - lowest)],
        baseOrientation=[float(x) for x in quaternion],
        baseInertialFramePosition=(mesh.center * scale).tolist(),
        useMaximalCoordinates=True,
    )
    # Without rolling friction a rounded object rolls off the table before the arm arrives.
    bullet.changeDynamics(body, -1, lateralFriction=1.0, rollingFriction=0.002, spinningFriction=0.002, angularDamping=0.2)
    return SceneObject(body, number, scale)

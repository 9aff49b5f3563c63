"""A cheap stand-in for an arm's model file: big meshes become their bounding boxes, fingers keep their shape.

Rendering on the processor costs by the triangle, and a Kuka has 15,000 of them, a Panda 100,000, almost all behind the wrist
camera. The stand-in is derived from the original when it is needed; nothing is copied into this project.
"""

import atexit
import copy
import functools
import shutil
import tempfile
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from qtransformer_sim.bullet import DATA

MAX_TRIANGLES = 250
"""Meshes with fewer are kept: the fingers', whose shape matters for contact."""


@functools.cache
def low_poly_model(file: str) -> str:
    """Path of the stand-in for an SDF or URDF model (relative to PyBullet's data)."""
    source = DATA / file
    tree = ElementTree.parse(source)
    urdf = source.suffix == ".urdf"
    for link in tree.iter("link"):
        if urdf:
            show_collision_shape(link)
        for shape in link.findall("visual") + link.findall("collision"):
            (simplify_urdf if urdf else simplify_sdf)(shape, source.parent)
    for joint in tree.iter("joint"):
        # Kuka's file mounts the gripper on an unlimited, unpowered eighth joint; a real gripper is bolted on.
        if joint.get("type") == "continuous":
            joint.set("type", "fixed")
    folder = Path(tempfile.mkdtemp(prefix="qtransformer_sim_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tree.write(folder / source.name)
    return str(folder / source.name)


def simplify_sdf(shape: Element, folder: Path) -> None:
    """Replace a large mesh by its bounding box; give a small one an absolute path."""
    geometry, uri, pose = shape.find("geometry"), shape.find("geometry/mesh/uri"), shape.find("pose")
    if geometry is None or uri is None or uri.text is None or pose is None:
        return
    path = folder / uri.text.lstrip("/")
    triangles = read_stl(path.with_suffix(".stl"))
    if len(triangles) < MAX_TRIANGLES:
        uri.text = str(path)
        return
    low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
    geometry.clear()
    SubElement(SubElement(geometry, "box"), "size").text = " ".join(f"{x:.4f}" for x in high - low)
    pose.text = " ".join(f"{x:.4f}" for x in (high + low) / 2) + " 0 0 0"


def show_collision_shape(link: Element) -> None:
    """Draw a URDF link by its collision shape, which has hundreds of triangles rather than ten thousand."""
    visual, collision = link.find("visual"), link.find("collision")
    if visual is None or collision is None:
        return
    for part in visual.findall("geometry") + visual.findall("origin"):
        visual.remove(part)
    visual.extend(copy.deepcopy(collision.findall("geometry") + collision.findall("origin")))


def simplify_urdf(shape: Element, folder: Path) -> None:
    """The same for a URDF: replace a large OBJ mesh by its bounding box; give others an absolute path."""
    geometry, mesh = shape.find("geometry"), shape.find("geometry/mesh")
    path = folder / ("" if mesh is None else mesh.get("filename", "").removeprefix("package://"))
    if geometry is None or mesh is None or not path.is_file():
        return
    mesh.set("filename", str(path))
    if path.suffix != ".obj" or shape.find("origin") is not None or mesh.get("scale") is not None:
        return
    corners, triangles = read_obj(path)
    if triangles < MAX_TRIANGLES:
        return
    low, high = corners.min(axis=0), corners.max(axis=0)
    geometry.clear()
    SubElement(geometry, "box", size=" ".join(f"{x:.4f}" for x in high - low))
    SubElement(shape, "origin", xyz=" ".join(f"{x:.4f}" for x in (high + low) / 2), rpy="0 0 0")


def read_obj(path: Path) -> tuple[np.ndarray, int]:
    """Corners (n, 3) and number of faces of an OBJ file."""
    rows = [line.split() for line in path.read_text().splitlines()]
    corners = np.array([row[1:4] for row in rows if row[:1] == ["v"]], np.float64)
    return corners, sum(row[:1] == ["f"] for row in rows)


def read_stl(path: Path) -> np.ndarray:
    """Triangles of a binary STL file, (f, 3, 3)."""
    facet = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attributes", "<u2")])
    return np.frombuffer(path.read_bytes()[84:], facet)["corners"]

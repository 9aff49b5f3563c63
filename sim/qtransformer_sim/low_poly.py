"""A cheap stand-in for an arm's model file: big meshes become their bounding boxes, fingers keep their shape.

Rendering on the processor costs by the triangle, and a Kuka has 15,000 of them, almost all behind the wrist camera. The
stand-in is derived from the original when it is needed; nothing is copied into this project.
"""

import atexit
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
    """Path of the stand-in for an SDF model (relative to PyBullet's data). Other formats are returned as they are."""
    source = DATA / file
    if source.suffix != ".sdf":
        return str(source)
    tree = ElementTree.parse(source)
    for link in tree.iter("link"):
        for shape in link.findall("visual") + link.findall("collision"):
            simplify(shape, source.parent)
    for joint in tree.iter("joint"):
        # The file mounts the gripper on an unlimited, unpowered eighth joint; a real gripper is bolted on.
        if joint.get("type") == "continuous":
            joint.set("type", "fixed")
    folder = Path(tempfile.mkdtemp(prefix="qtransformer_sim_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tree.write(folder / source.name)
    return str(folder / source.name)


def simplify(shape: Element, folder: Path) -> None:
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


def read_stl(path: Path) -> np.ndarray:
    """Triangles of a binary STL file, (f, 3, 3)."""
    facet = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attributes", "<u2")])
    return np.frombuffer(path.read_bytes()[84:], facet)["corners"]

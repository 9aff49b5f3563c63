"""What a bag is on disk, told by names alone: no library of bags is needed to ask."""

import re
from pathlib import Path

from qtransformer_datasets.episodes.parts import PARTIAL

SUFFIXES = (".mcap", ".db3")
METADATA = "metadata.yaml"


def is_bag(path: Path) -> bool:
    """A storage file, or a folder, finished or not, with metadata.yaml or with storage files named after it as by rosbag2."""
    if path.is_file():
        return path.suffix in SUFFIXES
    named = re.compile(re.escape(path.name.removesuffix(PARTIAL)) + r"(_[0-9]+)?\.(mcap|db3)")
    return path.is_dir() and ((path / METADATA).exists() or any(named.fullmatch(child.name) for child in path.iterdir()))

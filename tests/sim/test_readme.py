"""The room's README runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pybullet")

from qtransformer_sim import RECIPES

README = Path(__file__).parents[2] / "sim" / "README.md"


def test_every_example_of_the_readme_runs():
    """In one fresh process, for the examples add entries to the registries."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 4
    resets = "\nenv.reset(seed=0)\nenv.step(env.action_space.sample())\nenv.close()\n"
    script = blocks[0] + "".join(block + resets for block in blocks[1:])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'success': True" in done.stdout


def test_every_recipe_is_told_of():
    assert [name for name in RECIPES if f"`{name}`" not in README.read_text()] == []

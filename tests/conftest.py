"""What holds for every test: shape signatures are checked (they are free in production), and no test fails for being slow."""

from importlib.util import find_spec
from pathlib import Path

from hypothesis import settings
from jaxtyping import install_import_hook

settings.register_profile("patient", deadline=None)  # a deadline measures the machine, not the code
settings.load_profile("patient")


def modules_with_shapes() -> list[str]:
    """Every module of the core that says shapes in its signatures."""
    spec = find_spec("qtransformer")  # finds without importing: the hook must come first
    assert spec is not None
    assert spec.submodule_search_locations is not None
    root = Path(spec.submodule_search_locations[0])
    files = [f for f in root.rglob("*.py") if "from jaxtyping import" in f.read_text()]
    return [".".join(f.relative_to(root.parent).with_suffix("").parts) for f in files]


# The tower: an int may stand where a float is asked for, as everywhere in Python.
install_import_hook(modules_with_shapes(), "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

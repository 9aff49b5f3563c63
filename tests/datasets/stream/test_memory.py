"""What a process may use is the least of what the machine has and what the groups around it are given."""

from pathlib import Path

import pytest

from qtransformer_datasets.stream.memory import machine_memory

GIB = 1 << 30


def limited(tmp_path: Path, own: str, limits: dict[str, str]) -> int:
    """What is found where /proc/self/cgroup says `own`, and the files of groups hold `limits`."""
    for path, text in limits.items():
        file = tmp_path / "groups" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    (tmp_path / "own").write_text(own)
    return machine_memory(tmp_path / "groups", tmp_path / "own")


def test_without_groups_it_is_the_machines(tmp_path: Path) -> None:
    machine = machine_memory(tmp_path / "none", tmp_path / "none")
    assert machine > 2 * GIB
    assert limited(tmp_path, "0::/\n", {"memory.max": "max"}) == machine


@pytest.mark.parametrize(
    ("own", "limits"),
    [
        ("", {"memory.max": f"{GIB}"}),  # a container's own group is the root that it sees
        ("", {"memory/memory.limit_in_bytes": f"{GIB}"}),
        ("0::/a/b\n", {"memory.max": "max", "a/b/memory.max": f"{GIB}"}),
        ("0::/a/b\n", {"a/memory.max": f"{GIB}", "a/b/memory.max": f"{2 * GIB}", "c/memory.max": "1"}),
        ("3:cpu:/c\n2:memory,pids:/a/b\n", {"memory/a/memory.limit_in_bytes": f"{GIB}", "memory/c/memory.limit_in_bytes": "1"}),
    ],
)
def test_each_group_around_a_process_binds_it(tmp_path: Path, own: str, limits: dict[str, str]) -> None:
    assert limited(tmp_path, own, limits) == GIB

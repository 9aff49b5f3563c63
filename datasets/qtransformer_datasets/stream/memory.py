"""How much memory this machine lets a process have."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def machine_memory(groups: Path = _GROUPS, own_groups: Path = _OWN_GROUPS) -> int:
    """Bytes of memory: the machine's, or less where a container, a job or a slice is given less.

    `groups`: where Linux shows its control groups; `own_groups`: where it says which are this process's (cgroups(7)).
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _limits(groups, own_groups):
        with suppress(OSError, ValueError):  # no such group, or "max"
            limits.append(int(path.read_text()))
    return min(limits)


def _limits(groups: Path, own_groups: Path) -> Iterator[Path]:
    """The files of this process's group and of all groups around it: each of them binds."""
    lines = ["0::/", "1:memory:/"]  # a container sees its own group as the root
    with suppress(OSError):
        lines += own_groups.read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = (groups / "memory", "memory.limit_in_bytes") if controllers else (groups, "memory.max")
        own = root.joinpath(path.lstrip("/"))
        yield from (folder / name for folder in (own, *own.parents) if folder.is_relative_to(root))

"""How much CPU time the process may use: Linux limits control groups, containers among them, below their CPUs."""

from __future__ import annotations

import math
from pathlib import Path


def cpu_quota(root: str = "/") -> int | None:
    """CPUs' worth of time, rounded up, that the process's control group and those above it may use; None for any.

    `root` is the folder that /proc and /sys are looked for in.
    """
    try:
        groups = Path(root, "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    limits: list[float] = []
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = Path(root, "sys/fs/cgroup"), ["cpu.max"]
        elif "cpu" in controllers.split(","):
            base, names = Path(root, "sys/fs/cgroup/cpu"), ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        folder = base / path.strip("/")
        for group in [folder, *folder.parents]:
            if group != base and base not in group.parents:
                break
            limits += _limit(group, names)
    return max(1, math.ceil(min(limits))) if limits else None


def _limit(group: Path, names: list[str]) -> list[float]:
    """The limit that a group's files give, if they are there and give one."""
    try:
        quota, period = " ".join((group / name).read_text() for name in names).split()
        return [int(quota) / int(period)] if quota not in ("max", "-1") else []
    except (OSError, ValueError, ZeroDivisionError):
        return []

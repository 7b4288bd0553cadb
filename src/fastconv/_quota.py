"""How much CPU time the process may use: Linux limits control groups, containers among them, below their CPUs."""

from __future__ import annotations

import math
import os.path


def cpu_quota(root: str = "/") -> int | None:
    """CPUs' worth of time, rounded up, that the process's control group and those above it may use; None for any.

    `root` is the folder that /proc and /sys are looked for in. Nothing is imported that importing NumPy doesn't.
    """
    try:
        groups = _read(root, "proc/self/cgroup").splitlines()
    except OSError:
        return None
    limits: list[float] = []
    for line in groups:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            base, names = "sys/fs/cgroup", ["cpu.max"]
        elif "cpu" in controllers.split(","):
            base, names = "sys/fs/cgroup/cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        parts = [part for part in group.split("/") if part]
        for depth in range(len(parts) + 1):
            limits += _limit(os.path.join(root, base, *parts[:depth]), names)
    return max(1, math.ceil(min(limits))) if limits else None


def _read(*path: str) -> str:
    with open(os.path.join(*path)) as file:
        return file.read()


def _limit(group: str, names: list[str]) -> list[float]:
    """The limit that a group's files give, if they are there and give one."""
    try:
        quota, period = " ".join(_read(group, name) for name in names).split()
        return [int(quota) / int(period)] if quota not in ("max", "-1") else []
    except (OSError, ValueError, ZeroDivisionError):
        return []

"""Limits on CPU time, as Linux writes them down."""

import os

import pytest

import fastconv
from fastconv._quota import cpu_quota


def lay_out(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n"}, 4),
        # The tightest of the groups above counts.
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
            },
            3,
        ),
        # Version 1.
        (
            {
                "proc/self/cgroup": "5:memory:/\n4:cpu,cpuacct:/box\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, None),
    ],
)
def test_quota(tmp_path, files, quota):
    assert cpu_quota(lay_out(tmp_path, files)) == quota


def test_the_environment_decides(run_python):
    done = run_python("import fastconv; print(fastconv.get_workers())", OMP_NUM_THREADS="3")
    assert done.stdout == "3\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_affinity_is_obeyed_at_once(run_python):
    script = """
import os, fastconv
before = fastconv.get_workers()
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(before, fastconv.get_workers())
"""
    before, after = map(int, run_python(script).stdout.split())
    assert after == 1 <= before <= len(os.sched_getaffinity(0))


def test_get_workers_is_no_more_than_there_are_cpus():
    assert 1 <= fastconv.get_workers() <= (os.cpu_count() or 1)

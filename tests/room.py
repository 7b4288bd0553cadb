"""The address space of this process, and a limit of what it may still take: for scripts that are to run out of it."""

import mmap
import resource


def used():
    """Bytes of address space."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * mmap.PAGESIZE


def leave(size):
    """Let the process take `size` bytes more than it has, and no more."""
    resource.setrlimit(resource.RLIMIT_AS, (used() + size,) * 2)

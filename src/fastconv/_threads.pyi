"""Workers: how many there are, and OpenMP's loop over numbered tasks. Nothing else in the library knows of threads."""

from contextlib import AbstractContextManager
from typing import SupportsIndex

openmp: int

def get_workers() -> int: ...
def set_workers(workers: SupportsIndex) -> AbstractContextManager[None]: ...

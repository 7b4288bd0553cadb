"""The same values in other memory: each function returns an array that equals the one it is given."""

import numpy as np


def around(array):
    """What lies between and beside the values, and must never be read into a result."""
    return 113 if array.dtype.kind in "biu" else np.nan


def unaligned(array):
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    memory[:] = np.frombuffer(array.tobytes(), np.uint8)
    return memory.view(array.dtype).reshape(array.shape)


def gapped(array):
    memory = np.full([2 * size for size in array.shape], around(array), array.dtype)
    memory[tuple(slice(None, None, 2) for _ in array.shape)] = array
    return memory[tuple(slice(None, None, 2) for _ in array.shape)]


def in_a_larger_image(array):
    memory = np.full([size + 3 for size in array.shape], around(array), array.dtype)
    inside = tuple(slice(1, -2) for _ in array.shape)
    memory[inside] = array
    return memory[inside]


def negative(array, axes):
    return np.flip(np.flip(array, axes).copy(), axes)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def in_records(array):
    """Fields of packed records: strides that are no multiple of the item."""
    records = np.zeros(array.shape, np.dtype([("flag", "u1"), ("value", array.dtype)]))
    records["value"] = array
    return records["value"]


LAYOUTS = {
    "contiguous": np.ascontiguousarray,
    "unaligned": unaligned,
    "gapped": gapped,
    "in a larger image": in_a_larger_image,
    "columns backwards": lambda array: negative(array, -1),
    "rows backwards": lambda array: negative(array, -2),
    "all backwards": lambda array: negative(array, None),
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "read-only": read_only,
    "Fortran": np.asfortranarray,
    "channels last": lambda array: np.moveaxis(np.moveaxis(array, 1, -1).copy(), -1, 1),
    "in records": in_records,
}

"""The problem in normal form. All that is in it is for the other compiled modules."""

MODES: tuple[str, ...]
PAD_MODES: tuple[str, ...]
LAYOUTS: tuple[str, ...]

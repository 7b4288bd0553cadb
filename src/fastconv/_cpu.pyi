"""What the CPU can do, asked before any module compiled for more than the baseline is imported."""

compiler: str

def supported_isas() -> list[str]: ...

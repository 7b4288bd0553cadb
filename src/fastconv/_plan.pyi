"""Plans: a method is chosen, weights are packed for it, and its tasks are run."""

METHODS: tuple[str, ...]
CHOICES: tuple[str, ...]
LIMITS: tuple[str, ...]
MEASURED: float

def use_isa(isa: str) -> None: ...

"""Plans: a method is chosen, weights are packed for it, and its tasks are run."""

METHODS: tuple[str, ...]

def use_isa(isa: str) -> None: ...
CHOICES: tuple[str, ...]
LIMITS: tuple[str, ...]

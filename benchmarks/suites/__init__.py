"""asv suites: setup prepares, time_ only measures. Sizes are the named shapes that the tests use too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # asv imports this folder alone

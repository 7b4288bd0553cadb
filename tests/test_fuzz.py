"""Some seconds of the scripts that run for hours: see fuzz.py and soak.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("script", "minutes"), [("fuzz.py", "0.04"), ("soak.py", "0.02")])
def test_finds_nothing(isa, script, minutes):
    """With another seed each time, which is printed."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script)), "--minutes", minutes],
        env=os.environ | {"FASTCONV_ISA": isa}, capture_output=True, text=True, timeout=300, check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no failures" in done.stdout

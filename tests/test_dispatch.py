"""The best instruction set is the one that runs, another can be forced, and one that can't run is refused."""

from pathlib import Path

import pytest

import fastconv
from fastconv import _cpu, _kernels, _plan

# What the compiler may use for x86-64-v3 and -v4, by the names that Linux gives them.
V3 = {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "popcnt"}
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
CPUINFO = Path("/proc/cpuinfo")

ASK = "import fastconv; from fastconv import _kernels; print(_kernels.isa, fastconv.Plan([[1.0]], (1, 1)).isa)"


def flags():
    line = next(line for line in CPUINFO.read_text().splitlines() if line.startswith("flags"))
    return set(line.partition(":")[2].split())


@pytest.mark.skipif(
    not CPUINFO.exists() or "\nflags" not in CPUINFO.read_text(), reason="no x86 flags in /proc/cpuinfo to compare with"
)
def test_supported_is_what_the_system_says():
    supported = ["baseline"] + ["avx2"] * (flags() >= V3) + ["avx512"] * (flags() >= V4)
    assert _cpu.supported_isas() == supported


def test_the_best_is_chosen(run_python):
    best = _cpu.supported_isas()[-1]
    for unset in ("", "import os; del os.environ['FASTCONV_ISA'];"):
        done = run_python(unset + ASK, FASTCONV_ISA="")
        assert done.stdout == f"{best} {best}\n", done.stderr


def test_a_forced_one_is_chosen(run_python, isa):
    done = run_python(ASK, FASTCONV_ISA=isa)
    assert done.stdout == f"{isa} {isa}\n", done.stderr


def test_only_the_chosen_one_is_loaded(run_python, isa):
    """The others' module initialisation may hold instructions that the CPU doesn't have."""
    script = (
        "import sys, fastconv\n"
        "print([name for name in sys.modules if name.startswith('fastconv._kernels.') and sys.modules[name]])\n"
    )
    assert run_python(script, FASTCONV_ISA=isa).stdout == f"['fastconv._kernels.{isa}']\n"


def test_all_modules_can_be_imported(run_python):
    """As tools do. What the CPU can't run is refused, which isn't the end of the process."""
    script = (
        "import importlib, pkgutil, fastconv\n"
        "from fastconv import _cpu\n"
        "for module in pkgutil.walk_packages(fastconv.__path__, 'fastconv.'):\n"
        "    if module.name != 'fastconv.__main__':\n"
        "        try:\n"
        "            importlib.import_module(module.name)\n"
        "        except ModuleNotFoundError as error:\n"
        "            assert error.name.rpartition('.')[2] in _cpu.unsupported_isas(), error\n"
        "print('done')\n"
    )
    done = run_python(script)
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("forced", ["avx1024", "AVX2 ", "none"])
def test_an_unknown_one_is_refused(run_python, forced):
    done = run_python("import fastconv", FASTCONV_ISA=forced)
    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert f"FASTCONV_ISA={forced!r}" in done.stderr
    assert "baseline" in done.stderr


def test_one_that_cannot_run_is_refused(monkeypatch):
    """As on a CPU that has the baseline alone; what runs stays as it was."""
    monkeypatch.setattr(_kernels, "supported_isas", lambda: ["baseline"])
    assert _kernels.choose_isa("") == "baseline"
    before = _kernels.isa
    for isa in ("avx2", "avx512"):
        with pytest.raises(ImportError, match=f"FASTCONV_ISA='{isa}'.*expected one of baseline"):
            _kernels.choose_isa(isa)
        with pytest.raises(ImportError, match=f"FASTCONV_ISA='{isa}'"):
            _plan.use_isa(isa)
    assert _kernels.isa == before


def test_a_cpu_without_it_refuses(run_python):
    """The whole import, in a process whose CPU is said to have the baseline alone."""
    pretend = (
        "import importlib.machinery, importlib.util, sys\n"
        "spec = importlib.machinery.PathFinder.find_spec('fastconv', sys.path)\n"
        "cpu_spec = importlib.machinery.PathFinder.find_spec('fastconv._cpu', spec.submodule_search_locations)\n"
        "cpu = importlib.util.module_from_spec(cpu_spec)\n"
        "cpu_spec.loader.exec_module(cpu)\n"
        "cpu.supported_isas, cpu.unsupported_isas = lambda: ['baseline'], lambda: ['avx2', 'avx512']\n"
        "sys.modules['fastconv._cpu'] = cpu\n"
    )
    done = run_python(pretend + ASK, FASTCONV_ISA="avx2")
    assert done.returncode == 1
    assert "ImportError: FASTCONV_ISA='avx2'" in done.stderr
    assert run_python(pretend + ASK, FASTCONV_ISA="").stdout == "baseline baseline\n"
    done = run_python(pretend + "import fastconv\nimport fastconv._kernels.avx2", FASTCONV_ISA="")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_show_config(capsys, isa):
    fastconv.show_config()
    printed = capsys.readouterr().out
    for part in (fastconv.__version__, isa, *_cpu.supported_isas(), str(fastconv.get_workers()), _cpu.compiler):
        assert part in printed


def test_public_names():
    assert set(fastconv.__all__) == {
        "Plan", "__version__", "convolve", "correlate", "get_workers", "set_workers", "show_config"
    }
    assert all(hasattr(fastconv, name) for name in fastconv.__all__)


def test_import_brings_numpy_alone(run_python):
    """Of the packages that are installed; SciPy and Matplotlib are for tests and the demo."""
    script = """
import sys
import numpy
before = set(sys.modules)
import fastconv
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))
"""
    done = run_python(script)
    assert done.returncode == 0, done.stderr
    brought = set(eval(done.stdout))
    assert "fastconv" in brought
    assert not brought & {"scipy", "matplotlib", "PIL", "threadpoolctl", "Cython"}
    assert {name for name in brought if "cython" not in name} == {"fastconv"}

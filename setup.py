"""The compiled modules: their flags, and nothing that pyproject.toml can say."""

import os
import platform
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# The one place for Cython directives.
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "embedsignature": True,
    "embedsignature.format": "python",
    "freethreading_compatible": True,
}

# The register tile needs its small loops unrolled and all of a variant inlined; benchmarks/tile_guard.py watches it.
# FMAs may replace a * b + c, but nothing else about floating point is relaxed: never -ffast-math.
# Debugging information would be six sevenths of the wheel.
OPTIMISE = ["-O3", "-g0", "-ffp-contract=fast", "-fno-math-errno"]
# Intel's processors from 2015 to 2020 decode code anew each time where a jump crosses or ends at a multiple of 32 bytes
# (their erratum "jump conditional code"): the assembler keeps jumps away from these. It gains 1.5 % on average there.
KEEP_JUMPS = ["-Wa,-mbranches-within-32B-boundaries", "-mbranches-within-32B-boundaries"]  # GCC's, and Clang's
INLINE = ("CYTHON_INLINE", "__inline__ __attribute__((__always_inline__, __unused__))")
ISA_FLAGS = {
    "baseline": ["-march=x86-64-v2"],
    "avx2": ["-march=x86-64-v3"],
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}
X86 = platform.machine().lower() in ("x86_64", "amd64")
if not X86:
    ISA_FLAGS = {"baseline": []}

NUMPY = {
    "include_dirs": [numpy.get_include()],
    "define_macros": [("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"), ("NPY_TARGET_VERSION", "NPY_1_25_API_VERSION")],
}


def kernel(isa, flags):
    return Extension(
        f"fastconv._kernels.{isa}",
        [f"src/fastconv/_kernels/{isa}.pyx"],
        depends=[str(path) for path in Path("src/fastconv/_kernels").glob("*.p*")],
        define_macros=[INLINE],
        extra_compile_args=OPTIMISE + flags,
    )


EXTENSIONS = [  # what takes longest first, as there may be several compilers at work
    *(kernel(isa, flags) for isa, flags in reversed(ISA_FLAGS.items())),
    *(
        Extension(f"fastconv.{name}", [f"src/fastconv/{name}.pyx"], **NUMPY)
        for name in ("_problem", "_spectral", "_plan", "_front")
    ),
    Extension("fastconv._threads", ["src/fastconv/_threads.pyx"]),
    Extension("fastconv._cpu", ["src/fastconv/_cpu.pyx"]),
]


class BuildWithOptions(build_ext):
    """Use what not every compiler has. Without OpenMP the library is built serial, and says so."""

    def build_extensions(self):
        threads = next(extension for extension in self.extensions if extension.name == "fastconv._threads")
        if self.compiles("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n", "-fopenmp"):
            threads.extra_compile_args += ["-fopenmp"]
            threads.extra_link_args += ["-fopenmp"]
        else:
            print("fastconv: this compiler has no OpenMP; building without threads", file=sys.stderr)
        keep = (flag for flag in KEEP_JUMPS if X86 and self.compiles("int main(void) { return 0; }\n", flag))
        flags = list(islice(keep, 1))
        for extension in self.extensions:
            if extension.name.startswith("fastconv._kernels."):
                extension.extra_compile_args += flags
        self.parallel = self.parallel or os.cpu_count()
        super().build_extensions()

    def compiles(self, text, flag):
        """Whether the compiler makes a program of this, with this flag."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "option.c")
            source.write_text(text)
            compiler = [*self.compiler.compiler_so, flag, str(source), "-o", str(source.with_suffix(""))]
            return subprocess.run(compiler, capture_output=True, check=False).returncode == 0


setup(
    ext_modules=cythonize(EXTENSIONS, compiler_directives=DIRECTIVES, nthreads=os.cpu_count() or 1),
    cmdclass={"build_ext": BuildWithOptions},
)

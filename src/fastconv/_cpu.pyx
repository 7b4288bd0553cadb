"""What the CPU can do, asked before any module compiled for more than the baseline is imported."""

cdef extern from *:
    """
    #if defined(__x86_64__) && defined(__GNUC__)
    #define CPU_INIT() __builtin_cpu_init()
    #define CPU_HAS(feature) (__builtin_cpu_supports(feature) != 0)
    #define HAS_AVX2 (CPU_HAS("avx2") && CPU_HAS("fma") && CPU_HAS("bmi") && CPU_HAS("bmi2") && CPU_HAS("popcnt"))
    #define HAS_AVX512 (HAS_AVX2 && CPU_HAS("avx512f") && CPU_HAS("avx512bw") && CPU_HAS("avx512cd") \\
                        && CPU_HAS("avx512dq") && CPU_HAS("avx512vl"))
    #else
    #define CPU_INIT()
    #define HAS_AVX2 0
    #define HAS_AVX512 0
    #endif
    #if defined(__clang__)
    #define COMPILER "Clang " __clang_version__
    #elif defined(__GNUC__)
    #define COMPILER "GCC " __VERSION__
    #else
    #define COMPILER "unknown"
    #endif
    """
    void CPU_INIT()
    bint HAS_AVX2
    bint HAS_AVX512
    const char* COMPILER


cdef list isas_that(bint run):
    CPU_INIT()
    runs = {"baseline": True, "avx2": HAS_AVX2, "avx512": HAS_AVX512}
    return [isa for isa, can_run in runs.items() if can_run == run]


def supported_isas():
    """Names of the instruction sets that this CPU and its operating system can run, the best last."""
    return isas_that(True)


def unsupported_isas():
    """Names of those that there are kernels for, and that it can't run."""
    return isas_that(False)


compiler = COMPILER.decode()

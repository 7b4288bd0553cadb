"""Plans: a method is chosen, weights are packed for it, and its tasks are run."""

import operator
import time

from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.math cimport INFINITY
from libc.stdlib cimport free

from fastconv import _kernels

from fastconv._kernels.kernel cimport (
    ceil_div, DIRECT, dim, filter_step, FILTERS, GROUPS_TOGETHER, Image, image_from, is_float, is_sequence, KERNELS,
    KernelTable, LINE, line_from, one_row, pixel_step, PIXELS, reach_h, result_bytes, SEPARABLE, Shape, split, TERMS,
    Weights, whole_lines,
)
from fastconv._problem cimport as_given, fill_padding_map, Problem
from fastconv._spectral cimport available, Cut, cut_problem, least_cycles, Spectra, transformed
from fastconv._threads cimport count_workers, MOST_THREADS, run_tasks, TaskFunction

cdef extern from *:
    """
    #include <stdlib.h>
    #include <sys/mman.h>
    #ifdef MADV_HUGEPAGE
    #define use_huge_pages(memory, size) madvise(memory, size, MADV_HUGEPAGE)
    #else
    #define use_huge_pages(memory, size)
    #endif
    """
    int posix_memalign(void** memory, size_t alignment, size_t size) nogil
    void use_huge_pages(void* memory, size_t size) nogil

cdef enum:
    HUGE_PAGE = 2 << 20         # bytes; from here on memory that is kept asks for such pages,
    NEVER_REUSED = 32 << 20     # and from here on any: glibc's malloc gives so much back to the system at once
    MANY_WEIGHTS = 1 << 30      # bytes; memory for so many is asked for before they are looked at
    ALONE = 100_000             # cycles: less work than this isn't worth waking another thread for
    HELD = 10_000               # cycles: nor, than this, letting other Python threads run
    SCALED = 2_000              # multiply-adds: less isn't worth looking for subnormal numbers
    LIGHT = 256                 # multiply-adds for each value of x and y: less isn't much more than going over them
    BAND_BYTES = 512 * 1024     # of what a band has of x and y, which stays in a second-level cache,
    LEAST_ROWS = 8              # of y, though, as rows are seen by two bands; and a multiple of so many, for workers
    BANDS_TOGETHER = 4
    LOOKED_FOR = 4              # times the least cost of a direct sum: not worth asking whether filters are separable
    BETWEEN_SIGNALS = 100_000_000   # cycles: Ctrl-C is looked for about this often

# The methods' names, in the order of the kernels that they run.
METHODS = (
    "direct-pixels", "direct-filters", "direct-matrix", "direct-groups", "direct-terms", "winograd", "separable", "fft",
)
CHOICES = ("auto", "direct", *METHODS)
LIMITS = (
    "it takes channels first where there are several, and no rows of x that are too long to stage",
    "",
    "it takes filters of 1 x 1, with channels first, and a vector of pixels at least",
    "it takes several groups, and no rows of x that are too long to stage",
    "it takes images of a few outputs",
    "it takes floats, filters of 144 terms or more that patches of 3 x 3, or of 3 in one row, fill well, and that"
    " are no larger than 64 x 64 or the outputs, strides of 1 and 2, and no dilation",
    "it takes floats, channels first where there are several, and filters of 16 values or more that are each, in each"
    " channel, a column times a row, which is looked for where it could gain",
)

MEASURED = 0.02     # seconds

cdef int FFT = METHODS.index("fft")     # of which there is no kernel

cdef const KernelTable* table


def use_isa(str isa):
    """Take kernels for an instruction set, for what is planned from now on. For tests: users set FASTCONV_ISA."""
    global table
    _kernels.choose_isa(isa)
    table = <const KernelTable*> PyCapsule_GetPointer(_kernels.load(isa).capsule, "fastconv.kernels")
    _kernels.isa = isa


use_isa(_kernels.isa)


cdef struct Cycles:
    # Predicted; infinite where a method can't compute the shape, or "auto" wouldn't let it.
    double image            # of an image
    double choice           # by which a method is chosen: with packing the weights, where they serve once


cdef Cycles cost(int method, const Shape* shape, bint once):
    """Of a method. Doesn't ask for transforms."""
    cdef Cut cut
    cdef double image = INFINITY, packing = 0
    if method != FFT:
        image = table.kernels[method].cost(shape)
        if once and image < INFINITY:
            packing = table.kernels[method].pack_cost(shape)
    elif shape.K > 0 and is_float(shape):
        cut = cut_problem(table, shape)
        if not cut.doubtful:
            image = cut.cycles
            packing = cut.pack_cycles if once else 0
    return Cycles(image, image + packing)


cdef str limit(int method, const Shape* shape):
    """Why a method's cost is infinite."""
    if method != FFT:
        return LIMITS[method]
    if not is_float(shape):
        return "it rounds, and integers are exact"
    if not available():
        return "it needs ducc0 or SciPy: pip install 'fastconv[fft]'"
    return "its rounding might not keep the error bound, so that only method='fft' takes it"


cdef int check_method(Recipe* recipe) except -1:
    """Raise where the method, which is asked for, can't run. Sets the cycles of one that has a kernel."""
    cdef const Problem* problem = &recipe.problem
    cdef const Shape* shape = &problem.shape
    if recipe.method == FFT and is_float(shape):
        if not available():
            raise ImportError(f"method is 'fft': {limit(recipe.method, shape)}")
        return 0
    recipe.cycles = INFINITY if recipe.method == FFT else table.kernels[recipe.method].cost(shape)
    if recipe.cycles == INFINITY:
        outputs, taps = as_given(problem, shape.P, shape.Q), as_given(problem, shape.R, shape.S)
        raise ValueError(
            f"method is {METHODS[recipe.method]!r}, which can't compute outputs of {outputs[0]} x {outputs[1]} with"
            f" filters of {problem.channels} x {taps[0]} x {taps[1]}: {limit(recipe.method, shape)}"
        )
    return 0


cdef int check_choice(object method, bint planned) except -1:
    if not isinstance(method, str) or method not in CHOICES and not (planned and method == "measure"):
        raise ValueError(
            f"method is {method!r}; expected one of {', '.join(map(repr, CHOICES))}, or of a Plan 'measure'"
        )
    return 0


cdef bint terms_gain(const Shape* shape):
    """Whether direct-terms is the fastest of the direct methods, packing left out.

    The others have the same bits. It hasn't: so a single call must not take it where a plan wouldn't.
    """
    cdef int number
    for number in range(DIRECT):
        if number != TERMS and cost(number, shape, False).image <= cost(TERMS, shape, False).image:
            return False
    return True


cdef int choose_method(Recipe* recipe, object method, bint once) except -1:
    """Set the recipe's method to the one that is asked for; of several, to the one with the least predicted time.

    A function of one image's sizes, the weights and the instruction set alone, so that the same method runs, and gives
    the same bits, for any number of images or workers.
    """
    cdef const Shape* shape = &recipe.problem.shape
    cdef int number
    cdef Cycles cycles
    cdef double least = INFINITY
    if method != "auto" and method != "direct":
        recipe.method = METHODS.index(method)
        return check_method(recipe)
    recipe.method, recipe.cycles = PIXELS, INFINITY
    for number in range(KERNELS if method == "auto" else DIRECT):
        cycles = cost(number, shape, once)
        if cycles.choice < least and (number != TERMS or terms_gain(shape)):
            recipe.method, recipe.cycles, least = number, cycles.image, cycles.choice
    # To find how transforms would cut the problem takes longer than a small one.
    if method == "auto" and least_cycles(shape) < least > cost(FFT, shape, once).choice and available():
        recipe.method = FFT
    return 0


cdef dict predictions(const Shape* shape):
    """Cycles of one image by each method that can compute it, packing left out; the fastest first."""
    cycles = {METHODS[number]: cost(number, shape, False).image for number in range(FFT + 1)}
    if not available():
        del cycles["fft"]
    return {method: cycles[method] for method in sorted(cycles, key=cycles.get) if cycles[method] < INFINITY}


cdef dict measured_times(Recipe* recipe, const Weights* weights, Image* x, char* y, object workers):
    """Seconds of one call by each method that can compute the recipe's problem, the fastest first.

    Each gets MEASURED seconds, or one call where that shows it to be far behind.
    """
    times = {}
    look_at_weights(recipe, None, False, weights)
    for method in predictions(&recipe.problem.shape):
        try:
            prepare(recipe, method, weights, NULL, workers)
            taken, spent = float("inf"), 0.0
            while spent < MEASURED and (spent == 0 or taken < 2 * min(times.values(), default=taken)):
                start = time.perf_counter()
                execute(recipe, x, y, workers)
                last = time.perf_counter() - start
                taken, spent = min(taken, last), spent + last
        finally:
            release(recipe)
        times[method] = taken
    return dict(sorted(times.items(), key=operator.itemgetter(1)))


cdef str explanation(const Shape* shape, dict measured):
    """A line for each method: what is predicted of it and was measured, or why it can't be taken."""
    predicted = predictions(shape)
    least = min(predicted.values())
    lines = []
    for method in measured or predicted:
        cycles = predicted[method]
        line = f"{method:16s}{cycles / 1e3:10.1f} kilocycles predicted, {cycles / least:.2f} of the least"
        if method in measured:
            line += f"; {measured[method] * 1e6:.1f} us measured"
        lines.append(line)
    for number, method in enumerate(METHODS):
        if method not in predicted:
            lines.append(f"{method:16s}not taken: {limit(number, shape)}")
    return "\n".join(lines)


cdef str method_name(const Recipe* recipe):
    return METHODS[recipe.method]


cdef char* allocate(dim size, str purpose, bint kept=False) except NULL:
    """`size` bytes on a cache line, to be freed with free(). What isn't kept is mostly memory of a call before."""
    cdef void* memory = NULL
    # Weights that are read once for each block of y would miss the page tables' cache as often. But malloc doesn't use
    # again what begins on a huge page: it would ask the system for new, cleared pages in each call.
    cdef bint huge = size >= (HUGE_PAGE if kept else NEVER_REUSED)
    if posix_memalign(&memory, HUGE_PAGE if huge else LINE, max(size, LINE)) != 0:
        raise MemoryError(f"can't allocate {size} bytes for {purpose}")
    if huge:
        use_huge_pages(memory, size)
    return <char*> memory


cdef char* small_memory(Small* small, dim size):
    """`size` bytes of small on a cache line, if there are as many; or NULL."""
    if small == NULL or size > SMALL_BYTES:
        return NULL
    return line_from(small.bytes)


cdef void look_at_weights(Recipe* recipe, object method, bint once, const Weights* weights):
    """Find what of the weights themselves the choice of a method depends on, where it could be chosen."""
    cdef Shape* shape = &recipe.problem.shape
    cdef double least = INFINITY
    cdef int number
    shape.separable = True
    if cost(SEPARABLE, shape, once).image < INFINITY and method != "separable":
        for number in range(DIRECT):
            least = min(least, cost(number, shape, once).choice)
    shape.separable = cost(SEPARABLE, shape, once).choice < LOOKED_FOR * least and table.is_separable(shape, weights)


cdef int prepare(Recipe* recipe, object method, const Weights* weights, Small* small, object workers) except -1:
    """Choose the kernel, pack the weights, map the padding. The recipe's problem is set; release() frees all of it.

    With `small`, weights may be packed there, for a single call, or as they are needed: they have to stay until then.
    """
    cdef Shape* shape = &recipe.problem.shape
    own_nothing(recipe)
    recipe.weights = weights[0]
    recipe.bias = weights.bias
    recipe.exponent = 0
    # A step that is never taken may be of any size; no other is larger than the padded image.
    shape.p_step = 1 if shape.P == 1 else shape.p_step
    shape.q_step = 1 if shape.Q == 1 else shape.q_step
    # Of a broadcast array there may be more than there is time to look at. These can't be packed either.
    if weights_bytes(shape) > MANY_WEIGHTS:
        free(allocate(weights_bytes(shape), "packed weights"))
    if is_float(shape) and multiply_adds(shape) > SCALED and have_subnormals(shape, weights):
        recipe.multiple = allocate(weights_bytes(shape), "a multiple of weights")
        recipe.exponent = table.scale_weights(shape, &recipe.weights, recipe.multiple)
        if recipe.exponent != 0:
            recipe.weights.bias = NULL
    return prepare_kernel(recipe, method, small, workers)


cdef bint have_subnormals(const Shape* shape, const Weights* weights):
    with nogil:     # there may be many
        return table.weights_have_subnormals(shape, weights)


cdef inline double multiply_adds(const Shape* shape) noexcept nogil:
    """Of one image: whatever kernel does them, so that a call and a plan treat it alike."""
    return <double> shape.G * shape.K * shape.C * shape.R * shape.S * shape.P * shape.Q


cdef inline dim weights_bytes(const Shape* shape) noexcept nogil:
    return shape.G * shape.K * shape.C * shape.R * shape.S * shape.item


cdef inline void own_nothing(Recipe* recipe) noexcept nogil:
    recipe.owned = False
    recipe.packed = recipe.multiple = NULL
    recipe.rows = recipe.columns = NULL
    recipe.spectra = NULL


cdef int prepare_kernel(Recipe* recipe, object method, Small* small, object workers) except -1:
    """Of a recipe whose problem and weights are set, and that owns no more than them, all else."""
    cdef const Shape* shape = &recipe.problem.shape
    cdef const Weights* weights = &recipe.weights
    cdef Spectra spectra
    cdef dim size
    look_at_weights(recipe, method, small != NULL, weights)
    choose_method(recipe, method, small != NULL)
    if recipe.method == FFT:
        spectra = transformed(table, shape, weights)
        if spectra is not None:
            recipe.cycles = spectra.cut.cycles
            recipe.spectra = <PyObject*> spectra
            Py_INCREF(spectra)
            return map_padding(recipe)
        choose_method(recipe, "direct", small != NULL)
    recipe.kernel = &table.kernels[recipe.method]
    recipe.direct = &table.kernels[FILTERS]
    recipe.problem.shape.unpacked = (
        small != NULL and recipe.kernel.packs_late != NULL and recipe.kernel.packs_late(shape, weights))
    size = recipe.kernel.packed_bytes(shape)
    recipe.packed = small_memory(small, size)
    if recipe.packed == NULL:
        recipe.packed = allocate(size, "packed weights", small == NULL)
        recipe.owned = True
    pack(recipe, workers)
    return map_padding(recipe)


cdef struct Packing:
    const Recipe* recipe
    dim tasks, parts        # a part is some of the kernel's tasks, which may be tiny


cdef int pack(const Recipe* recipe, object workers) except -1:
    """The weights, for the recipe's kernel, by so many workers."""
    cdef double cycles = recipe.kernel.pack_cost(&recipe.problem.shape)
    cdef Packing packing
    packing.recipe = recipe
    packing.tasks = recipe.kernel.pack_tasks(&recipe.problem.shape)
    packing.parts = min(packing.tasks, <dim> (cycles / HELD) + 1)
    return run_stretches(pack_part, &packing, packing.parts, <int> min(packing.parts, threads_for(cycles, workers)),
                         cycles, NULL)


cdef void pack_part(void* context, dim part, int worker) noexcept nogil:
    cdef const Packing* packing = <const Packing*> context
    cdef const Recipe* recipe = packing.recipe
    cdef dim task
    for task in range(split(packing.tasks, packing.parts, part), split(packing.tasks, packing.parts, part + 1)):
        recipe.kernel.pack(&recipe.problem.shape, &recipe.weights, recipe.packed, task)


cdef int map_padding(Recipe* recipe) except -1:
    cdef const Problem* problem = &recipe.problem
    cdef const Shape* shape = &recipe.problem.shape
    cdef dim rows = problem.top + shape.H + problem.bottom
    cdef dim columns = problem.left + shape.W + problem.right
    if rows > shape.H or columns > shape.W:
        recipe.rows = <dim*> allocate(rows * sizeof(dim), "a map of padded rows")
        recipe.columns = <dim*> allocate(columns * sizeof(dim), "a map of padded columns")
        fill_padding_map(problem, shape.H, problem.top, problem.bottom, recipe.rows)
        fill_padding_map(problem, shape.W, problem.left, problem.right, recipe.columns)
    return 0


cdef dim packed_bytes(const Recipe* recipe):
    """Of the weights as they are kept, and of the multiple that they were packed from."""
    cdef const Shape* shape = &recipe.problem.shape
    cdef dim multiple = weights_bytes(shape) if recipe.multiple != NULL else 0
    if recipe.spectra != NULL:
        return multiple + (<Spectra> recipe.spectra).packed_bytes()
    return multiple + recipe.kernel.packed_bytes(shape)


cdef dim workspace_bytes(const Recipe* recipe):
    """Of one worker."""
    cdef const Shape* shape = &recipe.problem.shape
    cdef Shape row
    if recipe.spectra != NULL:
        return (<Spectra> recipe.spectra).workspace_bytes(shape)
    if not is_sequence(shape):
        return recipe.kernel.workspace_bytes(shape, 1)
    row = one_row(shape)
    return max(recipe.kernel.workspace_bytes(shape, 1), recipe.kernel.workspace_bytes(&row, 1))


cdef void release(Recipe* recipe) noexcept:
    Py_XDECREF(recipe.spectra)
    recipe.spectra = NULL
    if recipe.owned:
        free(recipe.packed)
    free(recipe.multiple)
    free(recipe.rows)
    free(recipe.columns)
    recipe.packed = recipe.multiple = NULL
    recipe.rows = recipe.columns = NULL


cdef struct Call:
    # One execution, as its tasks see it.
    const Recipe* recipe
    const Shape* shape
    const Image* x
    char* y
    int workers
    char* workspace
    dim workspace_bytes         # of one worker
    PyObject* error             # the first exception of a task of method "fft"


cdef void run_task(void* context, dim task, int worker) noexcept nogil:
    cdef const Call* call = <const Call*> context
    call.recipe.kernel.run(call.shape, call.workers, call.recipe.packed, call.x, call.y, task,
                           call.workspace + worker * call.workspace_bytes)


cdef void run_share(void* context, dim task, int worker) noexcept nogil:
    cdef const Call* call = <const Call*> context
    call.recipe.kernel.share(call.shape, call.workers, call.x, task, call.workspace + worker * call.workspace_bytes)


cdef void run_transforms(void* context, dim task, int worker) noexcept nogil:
    """A task of method "fft", which holds the GIL while it calls Python, but not while anything is computed."""
    cdef Call* call = <Call*> context
    with gil:
        if call.error != NULL:
            return
        try:
            (<Spectra> call.recipe.spectra).compute(call.shape, call.x, call.y, task,
                                                    call.workspace + worker * call.workspace_bytes)
        except BaseException as error:
            if call.error == NULL:
                Py_INCREF(error)
                call.error = <PyObject*> error


cdef int execute(const Recipe* recipe, Image* x, char* y, object workers) except -1:
    """Compute y. Signals are handled between stretches of tasks; when one raises, y is left incomplete."""
    cdef const Shape* shape = &recipe.problem.shape
    cdef Recipe one
    cdef Image image
    cdef char* y_image
    cdef dim n
    if shape.N == 0 or shape.K == 0:
        return 0
    x.rows = recipe.rows
    x.columns = recipe.columns
    if not is_float(shape) or recipe.exponent == 0 and (
        multiply_adds(shape) < SCALED or not any_subnormals(shape, x)
    ):
        return execute_trusted(recipe, x, y, workers)
    # Image by image: what is done to one must not depend on the others.
    for n in range(shape.N):
        one = one_image(recipe)
        image = image_at(x, n)
        y_image = y + n * result_bytes(shape)
        if not execute_scaled(&one, &image, y_image, workers):
            execute_as_it_came(&one, &image, y_image, workers)
    return 0


cdef inline Recipe one_image(const Recipe* recipe):
    cdef Recipe one = recipe[0]
    one.problem.shape.N = 1
    return one


cdef inline Image image_at(const Image* x, dim n) noexcept nogil:
    cdef Image image = x[0]
    image.data += n * x.n
    return image


cdef bint any_subnormals(const Shape* shape, const Image* x):
    cdef Image image
    cdef dim n
    with nogil:
        for n in range(shape.N):
            image = image_at(x, n)
            if table.has_subnormals(shape, &image):
                return True
    return False


cdef int execute_scaled(const Recipe* recipe, const Image* x, char* y, object workers) except -1:
    """Compute an image from multiples of it and the weights; False where that can't be, with anything in y.

    Without biases, which may be of another order: they are added at the end.
    """
    cdef Recipe own
    cdef Small small
    cdef bint subnormals = table.has_subnormals(&recipe.problem.shape, x)
    if recipe.exponent == 0 and not subnormals:
        return False
    try:
        if recipe.weights.bias == NULL:
            return execute_multiple(recipe, x, subnormals, y, workers)
        try:
            pack_again(&own, recipe, NULL, "auto", &small, workers)
            return execute_multiple(&own, x, subnormals, y, workers)
        finally:
            release(&own)
    except MemoryError:     # there may be enough to do without
        return False


cdef int execute_multiple(const Recipe* recipe, const Image* x, bint subnormals, char* y, object workers) except -1:
    """As execute_scaled, of a recipe whose weights are packed without biases, and an image with subnormal numbers."""
    cdef const Shape* shape = &recipe.problem.shape
    cdef Image image = x[0]
    cdef int exponent = recipe.exponent
    cdef char* copy = NULL
    cdef Bands bands
    bands.recipe, bands.x, bands.y = recipe, x, y
    cut_lightly(&bands)
    if bands.count > 1:
        return execute_bands(&bands, workers)
    try:
        if subnormals:
            copy = allocate(shape.G * shape.C * shape.H * shape.W * shape.item, "a multiple of an image")
            with nogil:
                exponent += table.scale_image(shape, &image, copy)
        if exponent == 0:
            return False
        execute_trusted(recipe, &image, y, workers)
    finally:
        free(copy)
    with nogil:
        fits = table.unscale_result(shape, y, exponent, recipe.bias, y, plane_bytes(shape))
    return fits


cdef inline dim plane_bytes(const Shape* shape) noexcept nogil:
    """From one to the next of y's planes: of filters, or with channels last of pixels."""
    return max(filter_step(shape), pixel_step(shape))


# Where a sum has so few terms that going over memory takes as long, an image is multiplied, computed and divided a band
# at a time, while a cache holds it: a band of groups, or of rows.

cdef struct Bands:
    const Recipe* recipe
    const Image* x
    char* y
    dim count
    bint of_groups
    # A worker's memory: whether a result was too large, a copy of what is seen of x, the result, a kernel's workspace.
    char* memory
    dim copy_bytes, result_bytes, worker_bytes


cdef inline dim band_start(const Bands* bands, dim task) noexcept nogil:
    """The first of its groups, or of its rows of y."""
    cdef const Shape* shape = &bands.recipe.problem.shape
    if bands.of_groups:
        return min(shape.G, GROUPS_TOGETHER * split(ceil_div(shape.G, GROUPS_TOGETHER), bands.count, task))
    return split(shape.P, bands.count, task)


cdef Shape band_at(const Bands* bands, dim task, Image* x, dim* above) noexcept nogil:
    """A band as a problem of its own, of what it sees of x; of padded rows, `above` are before the first it sees."""
    cdef Shape band = bands.recipe.problem.shape
    cdef dim first = band_start(bands, task), count = band_start(bands, task + 1) - first
    cdef dim low = 0, high, i
    band.N = 1
    above[0] = 0
    if bands.of_groups:
        band.G = count
        x[0] = bands.x[0]
        x.data += first * band.C * x.c
        return band
    band.P = count
    x[0] = image_from(bands.x, first * band.p_step, 0)
    high = reach_h(&band, band.P)
    if x.rows != NULL:
        low, high = band.H, 0
        for i in range(reach_h(&band, band.P)):
            if x.rows[i] >= 0:
                low = min(low, x.rows[i])
                high = max(high, x.rows[i] + 1)
        low = min(low, high)
        x.data += low * x.h
    band.H = high - low
    above[0] = low
    return band


cdef void cut_lightly(Bands* bands):
    """Into how many bands, or 1: whatever the workers, as a result's last bits may depend on its factor."""
    cdef const Recipe* recipe = bands.recipe
    cdef const Shape* shape = &recipe.problem.shape
    cdef dim row = (shape.G * shape.C * shape.W * shape.p_step + shape.G * shape.K * shape.Q) * shape.item
    cdef dim groups = GROUPS_TOGETHER * (shape.C * shape.H * shape.W + shape.K * shape.P * shape.Q) * shape.item
    cdef dim steps = shape.P, above
    cdef Image image
    cdef Shape last
    bands.count = 1
    if (recipe.spectra != NULL or recipe.method >= DIRECT
            or multiply_adds(shape) * shape.item > LIGHT * <double> row * shape.P):
        return
    bands.of_groups = groups <= BAND_BYTES and shape.G > GROUPS_TOGETHER
    if bands.of_groups:
        steps = ceil_div(shape.G, GROUPS_TOGETHER)
        bands.count = ceil_div(steps, BAND_BYTES // groups)
    else:
        bands.count = ceil_div(shape.P, max(BAND_BYTES // row, <dim> LEAST_ROWS))
    if bands.count > 1:
        bands.count = min(steps, ceil_div(bands.count, BANDS_TOGETHER) * BANDS_TOGETHER)
        last = band_at(bands, bands.count - 1, &image, &above)     # the smallest
        if recipe.kernel.cost(&last) == INFINITY:
            bands.count = 1


cdef void run_band(void* context, dim task, int worker) noexcept nogil:
    cdef const Bands* bands = <const Bands*> context
    cdef const Recipe* recipe = bands.recipe
    cdef const Shape* shape = &recipe.problem.shape
    cdef dim first = band_start(bands, task), above, part
    cdef Image image
    cdef Shape band = band_at(bands, task, &image, &above)
    cdef int* unfit = <int*> (bands.memory + worker * bands.worker_bytes)
    cdef char* copy = <char*> unfit + LINE
    cdef char* sums = copy + bands.copy_bytes
    cdef char* y = bands.y + first * shape.Q * pixel_step(shape)
    cdef const char* packed = recipe.packed
    cdef const char* bias = recipe.bias
    cdef Weights late
    cdef int exponent = recipe.exponent
    if bands.of_groups:
        y = bands.y + first * shape.K * filter_step(shape)
        if bias != NULL:
            bias += first * shape.K * shape.item
        if shape.unpacked:
            late = (<const Weights*> packed)[0]
            late.data += first * shape.K * late.k
            packed = <const char*> &late
        else:
            band.G = first
            packed += recipe.kernel.packed_bytes(&band)
            band.G = band_start(bands, task + 1) - first
    if table.has_subnormals(&band, &image):
        exponent += table.scale_image(&band, &image, copy)
    image.data -= above * image.h
    for part in range(recipe.kernel.tasks(&band, 1)):
        recipe.kernel.run(&band, 1, packed, &image, sums, part, sums + bands.result_bytes)
    if not table.unscale_result(&band, sums, exponent, bias, y, plane_bytes(shape)):
        unfit[0] = True


cdef int execute_bands(Bands* bands, object workers) except -1:
    """As execute_multiple."""
    cdef const Recipe* recipe = bands.recipe
    cdef int threads = <int> min(bands.count, <dim> min(<int> MOST_THREADS, count_workers(workers)))
    cdef Image image
    cdef Shape band
    cdef dim workspace = 0, task, above
    cdef int worker
    cdef double cycles = recipe.cycles + 5.0 * bands.count * BAND_BYTES
    bands.copy_bytes = bands.result_bytes = 0
    for task in range(bands.count):
        band = band_at(bands, task, &image, &above)
        bands.copy_bytes = max(bands.copy_bytes, whole_lines(band.G * band.C * band.H * band.W * band.item))
        bands.result_bytes = max(bands.result_bytes, whole_lines(result_bytes(&band)))
        workspace = max(workspace, whole_lines(recipe.kernel.workspace_bytes(&band, 1)))
    bands.worker_bytes = LINE + bands.copy_bytes + bands.result_bytes + workspace
    bands.memory = allocate(threads * bands.worker_bytes, "multiples of parts of an image")
    try:
        for worker in range(threads):
            (<int*> (bands.memory + worker * bands.worker_bytes))[0] = False
        run_stretches(run_band, bands, bands.count, threads, cycles, NULL)
        for worker in range(threads):
            if (<int*> (bands.memory + worker * bands.worker_bytes))[0]:
                return False
    finally:
        free(bands.memory)
    return True


cdef int execute_as_it_came(const Recipe* recipe, const Image* x, char* y, object workers) except -1:
    """Compute an image from itself and the weights as they came, from which they are made again.

    Directly: transforms of subnormal numbers may round as much as there is of them.
    """
    cdef Recipe came = recipe[0]
    cdef Recipe own
    cdef Small small
    cdef Shape values = recipe.problem.shape
    cdef char* copy = NULL
    if recipe.exponent == 0:
        return execute_trusted(recipe, x, y, workers)
    # To unscale_result the weights are an image's result.
    values.P, values.Q, values.channels_last = values.C * values.R, values.S, False
    try:
        copy = allocate(weights_bytes(&values), "weights")
        with nogil:
            table.unscale_result(&values, recipe.multiple, recipe.exponent, NULL, copy, plane_bytes(&values))
        came.weights.data = copy
        try:
            pack_again(&own, &came, recipe.bias, "direct", &small, workers)
            execute_trusted(&own, x, y, workers)
        finally:
            release(&own)
    finally:
        free(copy)
    return 0


cdef int pack_again(Recipe* own, const Recipe* recipe, const char* bias, object method, Small* small,
                    object workers) except -1:
    """The recipe's weights for a single call, by its method if that is a direct one; release() frees it."""
    own[0] = recipe[0]
    own_nothing(own)
    own.problem.shape.unpacked = False
    own.weights.bias = bias
    return prepare_kernel(own, METHODS[recipe.method] if recipe.method < DIRECT else method, small, workers)


cdef int execute_trusted(const Recipe* recipe, const Image* x, char* y, object workers) except -1:
    """Compute y, of images that the kernel isn't trusted with directly."""
    cdef const Shape* shape = &recipe.problem.shape
    cdef Recipe some = recipe[0]
    cdef Image image
    cdef dim n = 0
    cdef bint trusted, following
    if recipe.spectra != NULL or recipe.kernel.trusted == NULL or recipe.kernel.trusted(shape, recipe.packed, NULL):
        return execute_all(recipe, x, y, workers)
    following = is_trusted(recipe, x, 0)
    while n < shape.N:
        trusted = following
        some.problem.shape.N = 1
        while n + some.problem.shape.N < shape.N:
            following = is_trusted(recipe, x, n + some.problem.shape.N)
            if following != trusted:
                break
            some.problem.shape.N += 1
        some.kernel = recipe.kernel if trusted else recipe.direct
        some.cycles = recipe.cycles if trusted else some.kernel.cost(shape)
        image = image_at(x, n)
        execute_all(&some, &image, y + n * result_bytes(shape), workers)
        n += some.problem.shape.N
    return 0


cdef bint is_trusted(const Recipe* recipe, const Image* x, dim n) except -1:
    """Whether the kernel is, with one of x's images."""
    cdef Image image = image_at(x, n)
    cdef bint trusted
    with nogil:     # it may be looked at as a whole
        trusted = recipe.kernel.trusted(&recipe.problem.shape, recipe.packed, &image)
    PyErr_CheckSignals()
    return trusted


cdef int execute_all(const Recipe* recipe, const Image* x, char* y, object workers) except -1:
    """All of a recipe's images by its kernel."""
    cdef const Shape* shape = &recipe.problem.shape
    cdef Shape row
    cdef Image image = x[0]
    cdef dim tasks, shared = 0
    cdef double cycles = recipe.cycles * shape.N
    cdef int threads = threads_for(cycles, workers)
    cdef Call call
    cdef TaskFunction function
    cdef Small small
    cdef char* allocated = NULL
    if recipe.spectra != NULL:
        tasks = (<Spectra> recipe.spectra).tasks(shape)
        call.workspace_bytes = (<Spectra> recipe.spectra).own_bytes(shape)
        function = run_transforms
    else:
        # Of one column it doesn't matter where the next would be, of a row it does. And the one column of a result may
        # be of the padding.
        if is_sequence(shape) and x.rows == NULL and x.h == shape.W * x.w and (shape.gathered or x.w == shape.item):
            row = one_row(shape)
            shape = &row
        tasks = recipe.kernel.tasks(shape, threads)
        call.workspace_bytes = recipe.kernel.workspace_bytes(shape, threads)
        if recipe.kernel.share != NULL:
            shared = whole_lines(recipe.kernel.shared_bytes(shape, threads))
        function = run_task
    call.error = NULL
    call.workers = threads
    call.recipe = recipe
    call.shape = shape
    call.x = &image
    call.y = y
    image.shared = NULL
    threads = <int> min(<dim> threads, tasks)
    if threads == 1:
        image.shared = small_memory(&small, shared + call.workspace_bytes)
    if image.shared == NULL:
        image.shared = allocated = allocate(shared + threads * call.workspace_bytes, "workspace")
    call.workspace = image.shared + shared
    try:
        if shared > 0:
            run_stretches(run_share, &call, recipe.kernel.sharing_tasks(shape, call.workers), threads, cycles, NULL)
        run_stretches(function, &call, tasks, threads, cycles, &call.error)
        if call.error != NULL:
            raise <object> call.error
    finally:
        Py_XDECREF(call.error)
        free(allocated)
    return 0


cdef inline int threads_for(double cycles, object workers) except -1:
    """How many threads are worth waking for so much work."""
    return min(count_workers(workers), <int> MOST_THREADS) if cycles > ALONE else 1


cdef int run_stretches(TaskFunction function, void* context, dim tasks, int threads, double cycles,
                       PyObject** error) except -1:
    """Run all tasks, which take so many cycles together, or until one has set an error; handle signals in between."""
    cdef dim first = 0, last, stretch
    if cycles <= HELD:
        run_tasks(function, context, 0, tasks, 1)
        return 0
    stretch = max(<dim> threads, <dim> min(<double> tasks, tasks * threads * (BETWEEN_SIGNALS / cycles)))
    while first < tasks and (error == NULL or error[0] == NULL):
        last = min(tasks, first + stretch)
        with nogil:
            run_tasks(function, context, first, last, threads)
        first = last
        PyErr_CheckSignals()
    return 0

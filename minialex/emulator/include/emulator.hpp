// Runs CUDA kernels on the CPU: what stands in front of a .cu file when g++ compiles it, and what Python
// calls. Read fibers.hpp, block.hpp, memory.hpp, intrinsics.hpp and faults.hpp in this order; this file is
// the last.

#ifndef MINIALEX_EMULATOR_HPP
#define MINIALEX_EMULATOR_HPP

#include <utility>

#include "faults.hpp"

namespace minialex {

const int MAX_ARGUMENTS = 512;

// As Python fills it in: an array with its size in elements, or the bytes of a scalar.
struct Argument {
    void* data;
    int64_t size;
    const char* name;
    uint64_t scalar;
    unsigned char written;
};

static Array arrays[MAX_ARGUMENTS];
static Argument arguments[MAX_ARGUMENTS];
static int n_arguments;
static uint64_t blocks_done, blocks_all, first_block, block_stride;
static bool inside_a_block;

// How a parameter's type is spelled for Python: "in f4", "out u1", "i8", "32 in f4" for a table of 32.
template <class T> struct Code {
    static_assert(sizeof(T) == 0, "a kernel parameter must be In<T>, Out<T>, an integer or a real number");
    static constexpr const char* text = "";  // So that there is no second error.
};
template <class T> struct Code<T*> {
    static_assert(sizeof(T) == 0,
                  "a kernel parameter must be In<T> or Out<T>, which know their bounds, not a pointer");
    static constexpr const char* text = "";
};
#define MINIALEX_CODE(T, TEXT) template <> struct Code<T> { static constexpr const char* text = TEXT; };
MINIALEX_CODE(float, "f4")
MINIALEX_CODE(double, "f8")
MINIALEX_CODE(bool, "b1")
MINIALEX_CODE(signed char, "i1")
MINIALEX_CODE(unsigned char, "u1")
MINIALEX_CODE(short, "i2")
MINIALEX_CODE(unsigned short, "u2")
MINIALEX_CODE(int, "i4")
MINIALEX_CODE(unsigned, "u4")
MINIALEX_CODE(long, "i8")
MINIALEX_CODE(unsigned long, "u8")
MINIALEX_CODE(long long, "i8")
MINIALEX_CODE(unsigned long long, "u8")

template <class P> struct Parameter {
    static constexpr const char* kind = "";
    static constexpr const char* code = Code<P>::text;
    static constexpr int count = 1;
    static P get(int i) {
        P value;
        memcpy(&value, &arguments[i].scalar, sizeof value);
        return value;
    }
};
template <class T> struct Parameter<InPointer<T>> {
    static constexpr const char* kind = "in ";
    static constexpr const char* code = Code<T>::text;
    static constexpr int count = 1;
    static InPointer<T> get(int i) { return {&arrays[i], 0}; }
};
template <class T> struct Parameter<OutPointer<T>> {
    static constexpr const char* kind = "out ";
    static constexpr const char* code = Code<T>::text;
    static constexpr int count = 1;
    static OutPointer<T> get(int i) { return {&arrays[i], 0}; }
};

// A struct with an array of pointers or of numbers in it and nothing else, as Table in common.cuh.
template <template <class> class Tabled, class X> struct Parameter<Tabled<X>> {
    static constexpr const char* kind = Parameter<X>::kind;
    static constexpr const char* code = Parameter<X>::code;
    static constexpr int count = sizeof(Tabled<X>) / sizeof(X);
    static Tabled<X> get(int i) {
        Tabled<X> table;
        for (int k = 0; k < count; ++k) table.entries[k] = Parameter<X>::get(i + k);
        return table;
    }
};

template <class... P>
const char* signature_of(void (*)(P...)) {
    static char text[24 * (sizeof...(P) + 1)];
    const char* kinds[] = {Parameter<P>::kind..., ""};
    const char* codes[] = {Parameter<P>::code..., ""};
    const int counts[] = {Parameter<P>::count..., 0};
    int n = 0;
    for (size_t i = 0; i < sizeof...(P); ++i) {
        n += snprintf(text + n, sizeof text - n, "%s", i ? "," : "");
        if (counts[i] > 1) n += snprintf(text + n, sizeof text - n, "%d ", counts[i]);
        n += snprintf(text + n, sizeof text - n, "%s%s", kinds[i], codes[i]);
    }
    return text;
}

// Where the values of parameter number i begin among all values.
template <class... P>
constexpr int first_value(size_t i) {
    const int counts[] = {Parameter<P>::count..., 0};
    int n = 0;
    for (size_t k = 0; k < i; ++k) n += counts[k];
    return n;
}

template <class... P, size_t... I>
MINIALEX_INLINE void call(void (*entry)(P...), std::index_sequence<I...>) {
    constexpr int first[] = {first_value<P...>(I)..., 0};
    entry(Parameter<P>::get(first[I])...);
}
template <class... P>
MINIALEX_INLINE void call(void (*entry)(P...)) {
    call(entry, std::index_sequence_for<P...>());
}

inline void begin_threads(const unsigned* block) {
    block_extent = {block[0], block[1], block[2]};
    n_threads = block[0] * block[1] * block[2];
    for (unsigned i = 0; i < (unsigned)n_threads; ++i)
        threads[i].index = {i % block[0], i / block[0] % block[1], i / block[0] / block[1]};
}

// False if there is no memory for keeping track of what is written.
inline bool begin_arguments(const Argument* passed, int n) {
    n_arguments = n;
    bool enough = true;
    for (int i = 0; i < n; ++i) {
        arguments[i] = passed[i];
        arrays[i] = {passed[i].name, (char*)passed[i].data, passed[i].size, nullptr, nullptr, nullptr, 0};
        if (passed[i].written) {
            arrays[i].writes = (uint64_t*)calloc(passed[i].size + 1, sizeof(uint64_t));
            arrays[i].reads = (uint64_t*)calloc(passed[i].size + 1, sizeof(uint64_t));
            enough = enough && arrays[i].writes && arrays[i].reads;
        }
    }
    return enough;
}

inline uint64_t common_factor(uint64_t a, uint64_t b) {
    while (b) {
        const uint64_t rest = a % b;
        a = b, b = rest;
    }
    return a;
}

// Blocks in a random order, too: from a random one on, in steps that share no factor with their number.
inline void begin_blocks(const unsigned* grid, uint64_t seed) {
    grid_extent = {grid[0], grid[1], grid[2]};
    random_state = seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du;
    if (random_state == 0) random_state = 1;
    for (int i = 0; i < 8; ++i) random_below(2);
    blocks_all = (uint64_t)grid[0] * grid[1] * grid[2];
    const uint32_t limit = (uint32_t)(blocks_all < 0xffffffffu ? blocks_all : 0xffffffffu);
    blocks_done = 0;
    first_block = random_below(limit);
    do block_stride = 1 + random_below(limit);
    while (common_factor(blocks_all, block_stride) != 1);
    inside_a_block = interrupted = false;
}

// Which block comes after so many others.
inline uint3 block_number(uint64_t done) {
    const uint64_t b = (uint64_t)(((unsigned __int128)done * block_stride + first_block) % blocks_all);
    return {(unsigned)(b % grid_extent.x), (unsigned)(b / grid_extent.x % grid_extent.y),
            (unsigned)(b / grid_extent.x / grid_extent.y)};
}

}  // namespace minialex

#define MINIALEX_API extern "C" __attribute__((visibility("default")))

// Gets everything ready for a launch. Returns whether there was enough memory.
MINIALEX_API int minialex_begin(void (*entry)(), const unsigned* grid, const unsigned* block,
                                const minialex::Argument* passed, int n, uint64_t seed) {
    Dl_info info;
    if (!minialex::library_base && dladdr((void*)&minialex_begin, &info))
        minialex::library_base = (char*)info.dli_fbase;
    minialex::kernel = entry;
    minialex::renew_epochs();
    minialex::begin_threads(block);
    minialex::begin_blocks(grid, seed);
    return minialex::begin_arguments(passed, n);
}

namespace minialex {

// From Python's stack to that of the thread whose turn it is, and back.
inline void go_on() {
    Fiber& next = interrupted ? interrupted_fiber : current_fiber();
    interrupted = false;
    jump(main_fiber, next);
}

inline Outcome run_a_slice() {
    slice_end = seconds() + SLICE_SECONDS;
    fuel = FUEL;
    while (inside_a_block || blocks_done < blocks_all) {
        if (!inside_a_block && !begin_block(block_number(blocks_done))) return NO_MEMORY;
        inside_a_block = true;
        go_on();
        if (outcome != DONE) return outcome;
        inside_a_block = false;
        ++blocks_done;
        if (blocks_done % 64 == 0 && seconds() > slice_end) return MORE;
    }
    return DONE;
}

}  // namespace minialex

// Around minialex_resume: signals are ours, and again whose they were.
MINIALEX_API void minialex_catch_signals() { minialex::catch_signals(); }
MINIALEX_API void minialex_release_signals() { minialex::release_signals(); }

// Runs for a while. Returns 0: done, 1: call again, 2: failed, 3: out of memory.
MINIALEX_API int minialex_resume() {
    minialex::begin_running();
    const minialex::Outcome outcome = minialex::run_a_slice();
    minialex::end_running();
    return outcome;
}

// Gives back what the launch needed, also when it is not done.
MINIALEX_API void minialex_end() {
    using namespace minialex;
    for (int i = 0; i < n_arguments; ++i) {
        free(arrays[i].writes);
        free(arrays[i].reads);
        arrays[i].writes = arrays[i].reads = nullptr;
    }
}

MINIALEX_API const minialex::Report* minialex_report() { return &minialex::report; }

MINIALEX_API const char* minialex_printed(uint64_t* size) {
    *size = minialex::n_printed;
    minialex::n_printed = 0;
    return minialex::printed;
}

// After the kernels: what Python must know of one entry.
#define MINIALEX_ENTRY(NAME, BOUND)                                                               \
    MINIALEX_API const char* minialex_signature_##NAME() { return minialex::signature_of(NAME); } \
    MINIALEX_API int minialex_bound_##NAME() { return BOUND; }                                    \
    MINIALEX_API void minialex_call_##NAME() { minialex::call(NAME); }

#endif

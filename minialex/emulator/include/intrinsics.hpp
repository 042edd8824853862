// The names that CUDA gives to every kernel: indices, barriers, warp functions and arithmetic.

#ifndef MINIALEX_INTRINSICS_HPP
#define MINIALEX_INTRINSICS_HPP

#include <math.h>  // In C++ also abs, isnan, isinf, exp, tanh and others for float and for double.

#include "memory.hpp"

#define __device__
#define __host__
#define __global__
#define __grid_constant__
#define __constant__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

static const uint3& threadIdx = minialex::thread_index;
static const uint3& blockIdx = minialex::block_index;
static const dim3& blockDim = minialex::block_extent;
static const dim3& gridDim = minialex::grid_extent;
static const int warpSize = minialex::WARP;

// Where a call stands: g++ fills these in at the place of the call.
#define MINIALEX_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define MINIALEX_SITE (minialex::Site{file, line})

inline void __syncthreads(MINIALEX_HERE) { minialex::barrier(0, MINIALEX_SITE); }
inline int __syncthreads_count(int p, MINIALEX_HERE) { return minialex::barrier(p != 0, MINIALEX_SITE); }
inline int __syncthreads_or(int p, MINIALEX_HERE) { return minialex::barrier(p != 0, MINIALEX_SITE) != 0; }
inline int __syncthreads_and(int p, MINIALEX_HERE) {
    return minialex::barrier(p != 0, MINIALEX_SITE) == minialex::n_threads;
}
// Memory is always in order here.
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace minialex {

inline int my_lane() { return current % WARP; }

template <class T>
inline T shuffle(unsigned mask, T value, int source, Site site) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves at most eight bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = exchange(mask, bits, source, site);
    memcpy(&value, &bits, sizeof value);
    return value;
}

// The lane that each kind of shuffle reads; outside of its part of the warp, a lane reads itself.
inline int lane_of(int source, int width) { return (my_lane() & ~(width - 1)) | (source & (width - 1)); }
inline int lane_above(unsigned delta, int width) {
    return (my_lane() & (width - 1)) + delta < (unsigned)width ? my_lane() + (int)delta : my_lane();
}
inline int lane_below(unsigned delta, int width) {
    return (unsigned)(my_lane() & (width - 1)) >= delta ? my_lane() - (int)delta : my_lane();
}
inline int lane_across(int flip, int width) {
    const int other = my_lane() ^ flip;
    return other < (my_lane() & ~(width - 1)) + width && other < WARP ? other : my_lane();
}

inline unsigned ballot(unsigned mask, int predicate, Site site) {
    // Every lane learns of one lane after another: a warp has 32, and this is no path that matters.
    unsigned votes = 0;
    for (int lane = 0; lane < WARP; ++lane)
        if (mask >> lane & 1 && !(warps[current / WARP].returned >> lane & 1))
            votes |= (unsigned)shuffle(mask, predicate != 0, lane, site) << lane;
    return votes;
}

}  // namespace minialex

inline void __syncwarp(unsigned mask = 0xffffffffu, MINIALEX_HERE) {
    minialex::exchange(mask, 0, minialex::my_lane(), MINIALEX_SITE);
}
inline unsigned __ballot_sync(unsigned mask, int p, MINIALEX_HERE) {
    return minialex::ballot(mask, p, MINIALEX_SITE);
}
inline int __any_sync(unsigned mask, int p, MINIALEX_HERE) {
    return minialex::ballot(mask, p, MINIALEX_SITE) != 0;
}
inline int __all_sync(unsigned mask, int p, MINIALEX_HERE) {
    return minialex::ballot(mask, !p, MINIALEX_SITE) == 0;
}

// Overloads and no template, as in CUDA: an element of an array must become a number first.
#define MINIALEX_SHUFFLES(T)                                                                              \
    inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, MINIALEX_HERE) {             \
        return minialex::shuffle(mask, value, minialex::lane_of(source, width), MINIALEX_SITE);           \
    }                                                                                                     \
    inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, MINIALEX_HERE) {    \
        return minialex::shuffle(mask, value, minialex::lane_above(delta, width), MINIALEX_SITE);         \
    }                                                                                                     \
    inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, MINIALEX_HERE) {      \
        return minialex::shuffle(mask, value, minialex::lane_below(delta, width), MINIALEX_SITE);         \
    }                                                                                                     \
    inline T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32, MINIALEX_HERE) {           \
        return minialex::shuffle(mask, value, minialex::lane_across(flip, width), MINIALEX_SITE);         \
    }
MINIALEX_SHUFFLES(int)
MINIALEX_SHUFFLES(unsigned)
MINIALEX_SHUFFLES(long long)
MINIALEX_SHUFFLES(unsigned long long)
MINIALEX_SHUFFLES(float)
MINIALEX_SHUFFLES(double)

// The pairs of types for which CUDA has min and max; another pair is ambiguous there as well.
#define MINIALEX_MIN_MAX(T)                                  \
    inline T min(T a, T b) { return b < a ? b : a; }         \
    inline T max(T a, T b) { return a < b ? b : a; }
MINIALEX_MIN_MAX(int)
MINIALEX_MIN_MAX(unsigned)
MINIALEX_MIN_MAX(long)
MINIALEX_MIN_MAX(unsigned long)
MINIALEX_MIN_MAX(long long)
MINIALEX_MIN_MAX(unsigned long long)
// A number wins against NaN, as in fminf and fmaxf.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

inline float rsqrtf(float x) { return (float)(1.0 / sqrt((double)x)); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }

// Rounded once, and never contracted into a multiply-add.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline int __mul24(int a, int b) { return (int)((unsigned)(a << 8 >> 8) * (unsigned)(b << 8 >> 8)); }
inline unsigned __umul24(unsigned a, unsigned b) { return (a & 0xffffffu) * (b & 0xffffffu); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }

#define MINIALEX_BITS(NAME, FROM, TO)     \
    inline TO NAME(FROM x) {              \
        TO bits;                          \
        memcpy(&bits, &x, sizeof bits);   \
        return bits;                      \
    }
MINIALEX_BITS(__float_as_int, float, int)
MINIALEX_BITS(__float_as_uint, float, unsigned)
MINIALEX_BITS(__int_as_float, int, float)
MINIALEX_BITS(__uint_as_float, unsigned, float)
MINIALEX_BITS(__double_as_longlong, double, long long)
MINIALEX_BITS(__longlong_as_double, long long, double)

template <class T>
inline T __ldg(minialex::InPointer<T> pointer) {
    return *pointer;
}

namespace minialex {

// What kernels print is kept for Python, which prints it where Python prints.
static char* printed;
static size_t n_printed, printed_capacity;
static volatile bool printing;  // The C library may hold a lock, and nobody may leave the kernel.
const size_t PRINTING_BYTES = 32 * 1024;  // Of the stack, more than the C library takes.

__attribute__((format(printf, 1, 2))) static int print(const char* format, ...) {
    char line[1024] MINIALEX_UNINITIALIZED;
    if ((size_t)(line - current_fiber().stack) < PRINTING_BYTES)
        fail(current, __builtin_return_address(0), "the stack of a thread is full, too full to print");
    burn_fuel();
    printing = true;
    va_list values;
    va_start(values, format);
    const int n = vsnprintf(line, sizeof line, format, values);
    va_end(values);
    const size_t length = strlen(line);
    if (n_printed + length > printed_capacity) {
        printed_capacity = 2 * (n_printed + length);
        printed = (char*)realloc(printed, printed_capacity);
    }
    memcpy(printed + n_printed, line, length);
    n_printed += length;
    printing = false;
    return n;
}

}  // namespace minialex

#define printf(...) ::minialex::print(__VA_ARGS__)

#endif

// What every kernel file shares: thread numbers and offsets in 64 bits, pointers, arithmetic for both real
// types, and sums over a block.
//
// The product blockIdx.x * blockDim.x is taken in 32 bits, and so is n * C * H * W between ints: from 2^31
// elements on (a column matrix of one large batch is enough) both wrap, and the kernel writes elsewhere.
// Every number below is widened before it is multiplied.
//
// Nothing is included, so that the file compiles under nvcc, under NVRTC and under the emulator alike.

#ifndef MINIALEX_COMMON_CUH
#define MINIALEX_COMMON_CUH

typedef long long index_t;

// The number of this thread among all threads of a one-dimensional grid, and how many there are.
#define THREAD_INDEX ((index_t)blockIdx.x * blockDim.x + threadIdx.x)
#define THREAD_COUNT ((index_t)gridDim.x * blockDim.x)

// Visits every i in 0 .. n-1 once, whatever the size of the grid. The condition is the bounds check.
#define FOR_EACH_INDEX(i, n) for (index_t i = THREAD_INDEX; i < (index_t)(n); i += THREAD_COUNT)

// Where element (n, c, h, w) of a C-contiguous array (N, C, H, W) stands, counted in elements.
#define OFFSET_NCHW(n, c, h, w, C, H, W) ((((index_t)(n) * (C) + (c)) * (H) + (h)) * (W) + (w))

// Parameters that a kernel reads, and those that it writes or changes. Nothing else may lead to what is
// written, so that the compiler may keep values in registers. The emulator's pointers know their bounds; one
// indexes them, follows them with * and adds offsets, and nothing else.
#ifdef MINIALEX_EMULATED
template <class T>
using In = minialex::InPointer<T>;
template <class T>
using Out = minialex::OutPointer<T>;
#else
template <class T>
using In = const T* __restrict__;
template <class T>
using Out = T* __restrict__;
#endif

// Up to 32 pointers or numbers, handed to a kernel by value: one launch for many parameters.
// minialex/backend/cuda.py has the same number.
const int TABLE_SIZE = 32;

template <class X>
struct Table {
    X entries[TABLE_SIZE];

    __device__ X operator[](index_t i) const { return entries[i]; }
};

// float and double arithmetic under one name each: expf(x) of a double would lose half of its digits.
__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }
__device__ __forceinline__ float square_root(float x) { return sqrtf(x); }
__device__ __forceinline__ double square_root(double x) { return sqrt(x); }
__device__ __forceinline__ float power(float x, float y) { return powf(x, y); }
__device__ __forceinline__ double power(double x, double y) { return pow(x, y); }
__device__ __forceinline__ float hyperbolic_tangent(float x) { return tanhf(x); }
__device__ __forceinline__ double hyperbolic_tangent(double x) { return tanh(x); }

// Four neighbours at once, moved 16 bytes at a time; the first must lie on a multiple of 16 bytes.
template <class T>
struct __align__(16) Four {
    static_assert(sizeof(T) % 4 == 0, "four of these are no multiple of 16 bytes");
    T a, b, c, d;
};

template <class T>
__device__ __forceinline__ Four<T> load4(In<T> array, index_t i)
{
#ifdef MINIALEX_EMULATED
    array.require_aligned(i);
    return Four<T>{array[i], array[i + 1], array[i + 2], array[i + 3]};
#else
    return *reinterpret_cast<const Four<T>*>(array + i);
#endif
}

template <class T>
__device__ __forceinline__ void store4(Out<T> array, index_t i, const Four<T>& four)
{
#ifdef MINIALEX_EMULATED
    array.require_aligned(i);
    array[i] = four.a, array[i + 1] = four.b, array[i + 2] = four.c, array[i + 3] = four.d;
#else
    *reinterpret_cast<Four<T>*>(array + i) = four;
#endif
}

// What a sum and a maximum over threads put together. NaN wins the maximum.
struct Sum {
    template <class T>
    __device__ T operator()(T a, T b) const { return a + b; }
};
struct Maximum {
    template <class T>
    __device__ T operator()(T a, T b) const { return b > a || b != b ? b : a; }
};

// The values of 32 threads put together, for each of them: pairs, pairs of pairs and so on, in this order.
template <class T, class Combine>
__device__ __forceinline__ T warp_reduce(T value, Combine combine)
{
    for (int distance = 16; distance > 0; distance /= 2) {
        value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
    }
    return value;
}

// The values of a whole block put together, for each of its threads. blockDim.x is a multiple of 32,
// blockDim.y and .z are 1, and every thread calls. It ends when everybody has read, so that it may be called
// again at once.
template <class T, class Combine>
__device__ T block_reduce(T value, Combine combine)
{
    __shared__ T of_warp[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    value = warp_reduce(value, combine);
    if (lane == 0) of_warp[warp] = value;
    __syncthreads();
    T all = of_warp[0];
    for (int other = 1; other < warps; other++) all = combine(all, (T)of_warp[other]);
    __syncthreads();
    return all;
}

template <class T>
__device__ T block_sum(T value) { return block_reduce(value, Sum()); }
template <class T>
__device__ T block_max(T value) { return block_reduce(value, Maximum()); }

#endif

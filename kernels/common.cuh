// What every kernel file shares: thread numbers and offsets in 64 bits.
//
// The product blockIdx.x * blockDim.x is taken in 32 bits, and so is n * C * H * W between ints: from 2^31
// elements on (a column matrix of one large batch is enough) both wrap, and the kernel writes elsewhere.
// Every number below is widened before it is multiplied.
//
// Nothing is included, so that the file compiles under nvcc and under NVRTC alike.

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

#endif

// What softmax.cu and cross_entropy.cu share: sums over a row of a matrix, whose entries a block has among
// its threads. Every thread of the block must call them.

#ifndef MINIALEX_ROWS_CUH
#define MINIALEX_ROWS_CUH

#include "common.cuh"

// The largest entry of row n, for every thread of the block. Whether it finds a NaN does not matter: the sum
// will.
template <class T>
__device__ T row_max(In<T> x_nk, index_t n, index_t K)
{
    T largest = x_nk[n * K];
    for (index_t k = threadIdx.x; k < K; k += blockDim.x) {
        const T value = x_nk[n * K + k];
        largest = value > largest ? value : largest;
    }
    return block_max(largest);
}

// sum of exp(x - largest) over row n, for every thread of the block.
template <class T>
__device__ T row_total(In<T> x_nk, index_t n, index_t K, T largest)
{
    T total = T(0);
    for (index_t k = threadIdx.x; k < K; k += blockDim.x) {
        total += exponential(x_nk[n * K + k] - largest);
    }
    return block_sum(total);
}

#endif

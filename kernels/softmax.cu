// Softmax and log-softmax of the rows of a matrix, and their gradients.
//
// softmax:     y = exp(x - m) / total, m the row's largest, total = sum of exp(x - m);
//              dx = y * (dy - sum of dy * y)
// log-softmax: y = x - m - log(total);  dx = dy - exp(y) * sum of dy
//
// One block owns a row; its threads take every blockDim.x-th entry, and their sums meet in a fixed order.
// Bound by bytes: each array once from memory; what is read again comes from a cache.

#include "rows.cuh"

template <class T>
__device__ void softmax_forward_body(In<T> x_nk, Out<T> y_nk, index_t N, index_t K)
{
    for (index_t n = blockIdx.x; n < N; n += gridDim.x) {
        const T largest = row_max<T>(x_nk, n, K), total = row_total<T>(x_nk, n, K, largest);
        for (index_t k = threadIdx.x; k < K; k += blockDim.x) {
            y_nk[n * K + k] = exponential(x_nk[n * K + k] - largest) / total;
        }
    }
}

template <class T>
__device__ void softmax_backward_body(In<T> dy_nk, In<T> y_nk, Out<T> dx_nk, index_t N, index_t K)
{
    for (index_t n = blockIdx.x; n < N; n += gridDim.x) {
        T mine = T(0);
        for (index_t k = threadIdx.x; k < K; k += blockDim.x) {
            mine += dy_nk[n * K + k] * y_nk[n * K + k];
        }
        const T total = block_sum(mine);
        for (index_t k = threadIdx.x; k < K; k += blockDim.x) {
            dx_nk[n * K + k] = y_nk[n * K + k] * (dy_nk[n * K + k] - total);
        }
    }
}

template <class T>
__device__ void log_softmax_forward_body(In<T> x_nk, Out<T> y_nk, index_t N, index_t K)
{
    for (index_t n = blockIdx.x; n < N; n += gridDim.x) {
        const T largest = row_max<T>(x_nk, n, K), log_total = logarithm(row_total<T>(x_nk, n, K, largest));
        for (index_t k = threadIdx.x; k < K; k += blockDim.x) {
            y_nk[n * K + k] = x_nk[n * K + k] - largest - log_total;
        }
    }
}

template <class T>
__device__ void log_softmax_backward_body(In<T> dy_nk, In<T> y_nk, Out<T> dx_nk, index_t N, index_t K)
{
    for (index_t n = blockIdx.x; n < N; n += gridDim.x) {
        T mine = T(0);
        for (index_t k = threadIdx.x; k < K; k += blockDim.x) {
            mine += dy_nk[n * K + k];
        }
        const T total = block_sum(mine);
        for (index_t k = threadIdx.x; k < K; k += blockDim.x) {
            dx_nk[n * K + k] = dy_nk[n * K + k] - exponential(y_nk[n * K + k]) * total;
        }
    }
}

#define ENTRIES(T)                                                                                           \
    extern "C" __global__ void softmax_forward_##T(In<T> x_nk, Out<T> y_nk, index_t N, index_t K)            \
    {                                                                                                        \
        softmax_forward_body<T>(x_nk, y_nk, N, K);                                                           \
    }                                                                                                        \
    extern "C" __global__ void softmax_backward_##T(In<T> dy_nk, In<T> y_nk, Out<T> dx_nk, index_t N,        \
                                                    index_t K)                                               \
    {                                                                                                        \
        softmax_backward_body<T>(dy_nk, y_nk, dx_nk, N, K);                                                  \
    }                                                                                                        \
    extern "C" __global__ void log_softmax_forward_##T(In<T> x_nk, Out<T> y_nk, index_t N, index_t K)        \
    {                                                                                                        \
        log_softmax_forward_body<T>(x_nk, y_nk, N, K);                                                       \
    }                                                                                                        \
    extern "C" __global__ void log_softmax_backward_##T(In<T> dy_nk, In<T> y_nk, Out<T> dx_nk, index_t N,    \
                                                        index_t K)                                           \
    {                                                                                                        \
        log_softmax_backward_body<T>(dy_nk, y_nk, dx_nk, N, K);                                              \
    }

ENTRIES(float)
ENTRIES(double)

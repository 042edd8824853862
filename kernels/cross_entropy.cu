// Cross-entropy from logits, and its gradient, each in one launch.
//
// losses[n] = log(total) - sum over k of target[n, k] * (x[n, k] - m);
// dlogits[n, k] = dlosses[n] * (exp(x[n, k] - m) / total - target[n, k]);
// m is the row's largest logit, total the sum of exp(x - m), target 1 - s at the label plus s / K everywhere.
//
// One block owns a row; its threads take every blockDim.x-th class, and their sums meet in a fixed order.
// Bound by bytes: the logits once from memory, then from a cache; backward dlogits written. A label outside
// 0 .. K-1 meets no class, and nothing is read for it.

#include "rows.cuh"

// What class k of a row should have.
template <class T>
__device__ T target_of(index_t k, index_t label, index_t K, T label_smoothing)
{
    return label_smoothing / T(K) + (k == label ? T(1) - label_smoothing : T(0));
}

template <class T>
__device__ void cross_entropy_forward_body(In<T> logits_nk, In<index_t> labels_n, Out<T> losses_n, index_t N,
                                           index_t K, T label_smoothing)
{
    for (index_t n = blockIdx.x; n < N; n += gridDim.x) {
        const T largest = row_max<T>(logits_nk, n, K), total = row_total<T>(logits_nk, n, K, largest);
        T mine = T(0);
        for (index_t k = threadIdx.x; k < K; k += blockDim.x) {
            const T target = target_of(k, labels_n[n], K, label_smoothing);
            if (target != T(0)) {  // Without smoothing a class of logit minus infinity costs nothing.
                mine += target * (logits_nk[n * K + k] - largest);
            }
        }
        const T expected = block_sum(mine);
        if (threadIdx.x == 0) {
            losses_n[n] = logarithm(total) - expected;
        }
    }
}

template <class T>
__device__ void cross_entropy_backward_body(In<T> dlosses_n, In<T> logits_nk, In<index_t> labels_n,
                                            Out<T> dlogits_nk, index_t N, index_t K, T label_smoothing)
{
    for (index_t n = blockIdx.x; n < N; n += gridDim.x) {
        const T largest = row_max<T>(logits_nk, n, K), total = row_total<T>(logits_nk, n, K, largest);
        for (index_t k = threadIdx.x; k < K; k += blockDim.x) {
            const T share = exponential(logits_nk[n * K + k] - largest) / total;
            dlogits_nk[n * K + k] = dlosses_n[n] * (share - target_of(k, labels_n[n], K, label_smoothing));
        }
    }
}

#define ENTRIES(T)                                                                                           \
    extern "C" __global__ void cross_entropy_forward_##T(In<T> logits_nk, In<index_t> labels_n,              \
                                                         Out<T> losses_n, index_t N, index_t K,              \
                                                         T label_smoothing)                                  \
    {                                                                                                        \
        cross_entropy_forward_body<T>(logits_nk, labels_n, losses_n, N, K, label_smoothing);                 \
    }                                                                                                        \
    extern "C" __global__ void cross_entropy_backward_##T(In<T> dlosses_n, In<T> logits_nk,                  \
                                                          In<index_t> labels_n, Out<T> dlogits_nk,           \
                                                          index_t N, index_t K, T label_smoothing)           \
    {                                                                                                        \
        cross_entropy_backward_body<T>(dlosses_n, logits_nk, labels_n, dlogits_nk, N, K, label_smoothing);   \
    }

ENTRIES(float)
ENTRIES(double)

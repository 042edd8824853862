// What a convolution needs around its matrix products: the products' (F, images x pixels) and the pictures'
// (N, F, OH, OW) are two orders of the same numbers, and each is changed into the other in the one pass that
// bias, ReLU, the ReLU's gradient and the bias gradient need anyway.
//
//     conv2d_output     y[n, f, pixel] = product[f, n, pixel] + bias[f], negative ones as 0 if relu
//     conv2d_bias       the same in place, where the product already stands as the pictures do
//     conv2d_gradient   gradient[f, n, pixel] = dy[n, f, pixel], or 0 where mask[n, f, pixel] <= 0;
//                       partial[f, block] = the sum of what this block moved
//     conv2d_bias_gradient   dbias[f] = sum over blocks of partial[f, block]
//
// y, dy, mask: (N, F, P); product, gradient: (F, N*S), for S pixels of each image from first_pixel on.
// One thread owns one element at a time; blockIdx.y is the filter. Sums: each thread in its own order, then a
// fixed tree over the block, then the blocks by another: the same bits in every run. Bound by bytes.

#include "common.cuh"

// Elements of one filter that a block of conv2d_gradient moves: its launch relies on it.
#define ROUNDS 16
#define THREADS 256

template <class T>
__device__ void conv2d_output_body(In<T> product, In<T> bias, Out<T> y, index_t N, index_t F, index_t P,
                                   index_t S, index_t first_pixel, bool relu) {
    const index_t count = N * S, source_step = gridDim.y * count, target_step = gridDim.y * P;
    FOR_EACH_INDEX(m, count) {
        const index_t n = m / S;
        index_t source = blockIdx.y * count + m;
        index_t target = (n * F + blockIdx.y) * P + (m - n * S) + first_pixel;
#pragma unroll 4
        for (index_t f = blockIdx.y; f < F; f += gridDim.y) {
            const T value = product[source] + (bias != nullptr ? bias[f] : T(0));
            y[target] = relu && value < T(0) ? T(0) : value;  // A NaN stays.
            source += source_step;
            target += target_step;
        }
    }
}

template <class T>
__device__ void conv2d_bias_body(Out<T> y, In<T> bias, index_t planes, index_t F, index_t P, bool relu) {
    FOR_EACH_INDEX(i, planes * P) {
        const T value = y[i] + (bias != nullptr ? bias[i / P % F] : T(0));
        y[i] = relu && value < T(0) ? T(0) : value;
    }
}

template <class T>
__device__ void conv2d_gradient_body(In<T> dy, In<T> mask, Out<T> gradient, Out<T> partial, index_t N,
                                     index_t F, index_t P, index_t S, index_t first_pixel, index_t blocks,
                                     index_t first_block) {
    const index_t count = N * S, begin = (index_t)blockIdx.x * (ROUNDS * THREADS) + threadIdx.x;
    // The next element of a thread is THREADS further on: so many images, so many pixels; no division a round.
    const index_t images = THREADS / S, pixels = THREADS - images * S;
    const index_t step = images * F * P + pixels, to_next_image = F * P - S;
    for (index_t f = blockIdx.y; f < F; f += gridDim.y) {
        const index_t n = begin / S;
        index_t pixel = begin - n * S, place = (n * F + f) * P + pixel + first_pixel;
        T total = T(0);
#pragma unroll 4
        for (index_t m = begin; m < begin + ROUNDS * THREADS && m < count; m += THREADS) {
            const T incoming = dy[place];
            const T value = mask != nullptr && mask[place] <= T(0) ? T(0) : incoming;
            gradient[f * count + m] = value;
            total += value;
            pixel += pixels;
            place += step;
            if (pixel >= S) {
                pixel -= S;
                place += to_next_image;
            }
        }
        if (partial != nullptr) {
            total = block_sum(total);
            if (threadIdx.x == 0) partial[f * blocks + first_block + blockIdx.x] = total;
        }
    }
}

// One block for each filter.
template <class T>
__device__ void conv2d_bias_gradient_body(In<T> partial, Out<T> dbias, index_t blocks) {
    T total = T(0);
    for (index_t i = threadIdx.x; i < blocks; i += THREADS) total += partial[blockIdx.x * blocks + i];
    total = block_sum(total);
    if (threadIdx.x == 0) dbias[blockIdx.x] = total;
}

#define ENTRIES(T)                                                                                           \
    extern "C" __global__ void conv2d_output_##T(In<T> product, In<T> bias, Out<T> y, index_t N, index_t F,  \
                                                 index_t P, index_t S, index_t first_pixel, index_t relu) {  \
        conv2d_output_body<T>(product, bias, y, N, F, P, S, first_pixel, relu != 0);                         \
    }                                                                                                        \
    extern "C" __global__ void conv2d_bias_##T(Out<T> y, In<T> bias, index_t planes, index_t F, index_t P,   \
                                               index_t relu) {                                               \
        conv2d_bias_body<T>(y, bias, planes, F, P, relu != 0);                                               \
    }                                                                                                        \
    extern "C" __global__ void conv2d_gradient_##T(In<T> dy, In<T> mask, Out<T> gradient, Out<T> partial,    \
                                                   index_t N, index_t F, index_t P, index_t S,               \
                                                   index_t first_pixel, index_t blocks,                      \
                                                   index_t first_block) {                                    \
        conv2d_gradient_body<T>(dy, mask, gradient, partial, N, F, P, S, first_pixel, blocks, first_block);  \
    }                                                                                                        \
    extern "C" __global__ void conv2d_bias_gradient_##T(In<T> partial, Out<T> dbias, index_t blocks) {       \
        conv2d_bias_gradient_body<T>(partial, dbias, blocks);                                                \
    }

ENTRIES(float)
ENTRIES(double)

// Local response normalisation across channels, and its gradient.
//
// y[n, c] = x[n, c] * scale[n, c]**-beta, scale[n, c] = k + alpha * sum of x[n, j]**2 over the channels j
// with c-lower <= j <= c+upper.
//
// One thread owns 32 channels of a pixel. The backward pass works the scale out again instead of reading it.
// Bound by bytes: x read and y written once; backward x and dy read, dx written.

#include "local_response_norm.cuh"

template <class T, int REACH>
struct Forward {
    In<T> x_nchw;
    Out<T> y_nchw;
    const Norm<T>& norm;

    __device__ void operator()(const Pixel& pixel, index_t, index_t, index_t start, index_t stop) const
    {
        Walk<false, T, REACH> walk;
        walk.start(x_nchw, pixel, start);
        for (index_t c = start; c < stop; c++) {
            const T scale = walk.scale(x_nchw, pixel, c, norm);
            y_nchw[pixel.place + c * pixel.plane] = walk.value() * powers_of(scale, norm.beta).power;
        }
    }
};

template <class T>
__device__ void lrn_forward_body(In<T> x_nchw, Out<T> y_nchw, index_t N, index_t C, index_t plane,
                                 const Norm<T>& norm)
{
    if (norm.lower == FIVE && norm.upper == FIVE) {
        for_each_share(N, C, plane, Forward<T, FIVE>{x_nchw, y_nchw, norm});
    } else {
        for_each_share(N, C, plane, Forward<T, ANY>{x_nchw, y_nchw, norm});
    }
}

// The gradient as an array holds it.
template <class T>
struct Stored {
    In<T> dy_nchw;
    index_t C, plane;
    __device__ T operator()(index_t n, index_t c, index_t hw) const
    {
        return dy_nchw[(n * C + c) * plane + hw];
    }
};

#define ENTRIES(T)                                                                                           \
    extern "C" __global__ void lrn_forward_##T(In<T> x_nchw, Out<T> y_nchw, index_t N, index_t C,            \
                                               index_t plane, index_t lower, index_t upper, T alpha,         \
                                               T beta, T k)                                                  \
    {                                                                                                        \
        lrn_forward_body<T>(x_nchw, y_nchw, N, C, plane, Norm<T>{lower, upper, alpha, beta, k});             \
    }                                                                                                        \
    extern "C" __global__ void lrn_backward_##T(In<T> dy_nchw, In<T> x_nchw, Out<T> dx_nchw, index_t N,      \
                                                index_t C, index_t plane, index_t lower, index_t upper,      \
                                                T alpha, T beta, T k)                                        \
    {                                                                                                        \
        const Stored<T> dy{dy_nchw, C, plane};                                                               \
        const Norm<T> norm{lower, upper, alpha, beta, k};                                                    \
        lrn_backward_body<false, T>(dy, x_nchw, dx_nchw, N, C, plane, norm);                                 \
    }

ENTRIES(float)
ENTRIES(double)

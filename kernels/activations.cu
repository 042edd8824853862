// ReLU, sigmoid and tanh, element by element; gradients come from the output, so that only it is kept.
//
//     relu       y = x if x > 0 else 0        dx = dy if y > 0 else 0      (a NaN in x, y or dy stays)
//     sigmoid    y = 1 / (1 + exp(-x))        dx = dy * y * (1 - y)
//     tanh       y = tanh(x)                  dx = dy * (1 - y * y)
//
// One thread owns an element, or a few that lie far apart in a long array. Bound by bytes: two arrays forward,
// three backward.

#include "common.cuh"

template <class T>
__device__ void relu_forward_body(In<T> x, Out<T> y, index_t count) {
    FOR_EACH_INDEX(i, count) {
        const T value = x[i];
        y[i] = value <= T(0) ? T(0) : value;
    }
}

template <class T>
__device__ void relu_backward_body(In<T> dy, In<T> y, Out<T> dx, index_t count) {
    FOR_EACH_INDEX(i, count) {
        const T gradient = dy[i];
        dx[i] = y[i] <= T(0) ? T(0) : gradient;
    }
}

// exp(-x) of a large -x is infinite, and its reciprocal the right 0.
template <class T>
__device__ void sigmoid_forward_body(In<T> x, Out<T> y, index_t count) {
    FOR_EACH_INDEX(i, count) y[i] = T(1) / (T(1) + exponential(-x[i]));
}

template <class T>
__device__ void sigmoid_backward_body(In<T> dy, In<T> y, Out<T> dx, index_t count) {
    FOR_EACH_INDEX(i, count) {
        const T value = y[i];
        dx[i] = dy[i] * value * (T(1) - value);
    }
}

template <class T>
__device__ void tanh_forward_body(In<T> x, Out<T> y, index_t count) {
    FOR_EACH_INDEX(i, count) y[i] = hyperbolic_tangent(x[i]);
}

template <class T>
__device__ void tanh_backward_body(In<T> dy, In<T> y, Out<T> dx, index_t count) {
    FOR_EACH_INDEX(i, count) {
        const T value = y[i];
        dx[i] = dy[i] * (T(1) - value * value);
    }
}

#define ENTRIES(NAME, T)                                                                                \
    extern "C" __global__ void NAME##_forward_##T(In<T> x, Out<T> y, index_t count) {                   \
        NAME##_forward_body<T>(x, y, count);                                                            \
    }                                                                                                   \
    extern "C" __global__ void NAME##_backward_##T(In<T> dy, In<T> y, Out<T> dx, index_t count) {       \
        NAME##_backward_body<T>(dy, y, dx, count);                                                      \
    }

ENTRIES(relu, float)
ENTRIES(relu, double)
ENTRIES(sigmoid, float)
ENTRIES(sigmoid, double)
ENTRIES(tanh, float)
ENTRIES(tanh, double)

// One step of Adam for up to 32 parameters in one launch.
//
// g = grad + weight_decay * weight; mean += fresh1 * (g - mean); square = kept2 * square + fresh2 * g**2;
// weight -= rate * mean / (sqrt(square) / root + eps), fresh1 = 1 - beta1, kept2 = beta2, fresh2 = 1 - beta2.
//
// One block owns a piece of a parameter. rate and root depend on how often a parameter was updated, and come
// in tables. Bound by bytes: four arrays read, three written, 28 bytes an element in float32.

#include "pieces.cuh"

template <class T>
__device__ void adam_body(const Table<Out<T>>& weights, const Table<In<T>>& grads, const Table<Out<T>>& means,
                          const Table<Out<T>>& squares, const Table<T>& rates, const Table<T>& roots,
                          const Table<index_t>& sizes, T fresh1, T kept2, T fresh2, T eps, T weight_decay)
{
    const Piece piece = piece_of_block(sizes);
    Out<T> weight = weights[piece.parameter];
    In<T> grad = grads[piece.parameter];
    Out<T> mean = means[piece.parameter];
    Out<T> square = squares[piece.parameter];
    const T rate = rates[piece.parameter], root = roots[piece.parameter];
    for (index_t i = piece.start + threadIdx.x; i < piece.stop; i += blockDim.x) {
        const T w = weight[i], g = grad[i] + weight_decay * w;
        const T m = mean[i] + fresh1 * (g - mean[i]);
        const T s = kept2 * square[i] + fresh2 * (g * g);
        mean[i] = m;
        square[i] = s;
        weight[i] = w - rate * m / (square_root(s) / root + eps);
    }
}

#define ENTRY(T)                                                                                             \
    extern "C" __global__ void adam_##T(                                                                     \
        const __grid_constant__ Table<Out<T>> weights, const __grid_constant__ Table<In<T>> grads,           \
        const __grid_constant__ Table<Out<T>> means, const __grid_constant__ Table<Out<T>> squares,          \
        const __grid_constant__ Table<T> rates, const __grid_constant__ Table<T> roots,                      \
        const __grid_constant__ Table<index_t> sizes, T fresh1, T kept2, T fresh2, T eps, T weight_decay)    \
    {                                                                                                        \
        adam_body<T>(weights, grads, means, squares, rates, roots, sizes, fresh1, kept2, fresh2, eps,        \
                     weight_decay);                                                                          \
    }

ENTRY(float)
ENTRY(double)

// One step of stochastic gradient descent, by two rules, for up to 32 parameters in one launch.
//
// torch: g = grad + weight_decay * weight; v = momentum * v + g; weight -= lr * v
//        (nesterov: weight -= lr * (g + momentum * v); without velocity: weight -= lr * g)
// paper: v = momentum * v - shrink * weight - lr * grad; weight += v, shrink = weight_decay * lr
//
// One block owns a piece of a parameter. Bound by bytes: weight, grad and velocity read, weight and velocity
// written, 20 bytes an element in float32.

#include "pieces.cuh"

template <class T>
__device__ void sgd_torch_body(const Table<Out<T>>& weights, const Table<In<T>>& grads,
                               const Table<Out<T>>& velocities, const Table<index_t>& sizes, T lr, T momentum,
                               T weight_decay, index_t nesterov)
{
    const Piece piece = piece_of_block(sizes);
    Out<T> weight = weights[piece.parameter];
    In<T> grad = grads[piece.parameter];
    Out<T> velocity = velocities[piece.parameter];
    for (index_t i = piece.start + threadIdx.x; i < piece.stop; i += blockDim.x) {
        const T w = weight[i];
        T g = grad[i] + weight_decay * w;
        if (velocity != nullptr) {
            const T v = momentum * velocity[i] + g;
            velocity[i] = v;
            g = nesterov ? g + momentum * v : v;
        }
        weight[i] = w - lr * g;
    }
}

template <class T>
__device__ void sgd_paper_body(const Table<Out<T>>& weights, const Table<In<T>>& grads,
                               const Table<Out<T>>& velocities, const Table<index_t>& sizes, T lr, T momentum,
                               T shrink)
{
    const Piece piece = piece_of_block(sizes);
    Out<T> weight = weights[piece.parameter];
    In<T> grad = grads[piece.parameter];
    Out<T> velocity = velocities[piece.parameter];
    for (index_t i = piece.start + threadIdx.x; i < piece.stop; i += blockDim.x) {
        const T w = weight[i], v = momentum * velocity[i] - shrink * w - lr * grad[i];
        velocity[i] = v;
        weight[i] = w + v;
    }
}

#define ENTRIES(T)                                                                                           \
    extern "C" __global__ void sgd_torch_##T(                                                                \
        const __grid_constant__ Table<Out<T>> weights, const __grid_constant__ Table<In<T>> grads,           \
        const __grid_constant__ Table<Out<T>> velocities, const __grid_constant__ Table<index_t> sizes,      \
        T lr, T momentum, T weight_decay, index_t nesterov)                                                  \
    {                                                                                                        \
        sgd_torch_body<T>(weights, grads, velocities, sizes, lr, momentum, weight_decay, nesterov);          \
    }                                                                                                        \
    extern "C" __global__ void sgd_paper_##T(                                                                \
        const __grid_constant__ Table<Out<T>> weights, const __grid_constant__ Table<In<T>> grads,           \
        const __grid_constant__ Table<Out<T>> velocities, const __grid_constant__ Table<index_t> sizes,      \
        T lr, T momentum, T shrink)                                                                          \
    {                                                                                                        \
        sgd_paper_body<T>(weights, grads, velocities, sizes, lr, momentum, shrink);                          \
    }

ENTRIES(float)
ENTRIES(double)

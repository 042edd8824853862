// Average pooling over rectangles, with a sigmoid in front of it or without; forward, and backward as a gather.
//
//     forward    y[n, c, p, q] = sum of x[n, c] over rows[p] x cols[q], divided by the rectangle's count
//     backward   dx[n, c, h, w] = sum of dy[n, c, p, q] / count over the rectangles that hold (h, w)
//     sigmoid    the same of sigmoids = 1 / (1 + exp(-x)), which are written too; dx is that of x:
//                the sum times sigmoids * (1 - sigmoids)
//
// rows (OH, 3), cols (OW, 3): start, stop, divisor of each interval; starts and stops never fall.
//
// A picture's lines, of all images and channels, run along blockIdx.x and threadIdx.y, columns along
// blockIdx.y and threadIdx.x, so that a thread divides once. Forward: one thread owns one output pixel, and the
// sigmoids from its rectangle's corner to that of the next rectangles below and to the right. Backward: one
// thread owns one pixel. Bound by bytes.

#include "common.cuh"

#define START(bounds, p) (int)bounds[3 * (index_t)(p)]
#define STOP(bounds, p) (int)bounds[3 * (index_t)(p) + 1]
#define DIVISOR(bounds, p) bounds[3 * (index_t)(p) + 2]

// Where the part of an axis begins that belongs to interval p alone: together the parts are the whole axis.
__device__ int part_start(In<index_t> bounds, int p, int count, int size) {
    return p == 0 ? 0 : p == count ? size : START(bounds, p);
}

template <class T, bool SIGMOID>
__device__ void forward_body(In<T> x, Out<T> sigmoids, Out<T> y, In<index_t> rows, In<index_t> cols,
                             index_t planes, int H, int W, int OH, int OW) {
    const index_t line = (index_t)blockIdx.x * blockDim.y + threadIdx.y;
    const int q = (int)(blockIdx.y * blockDim.x + threadIdx.x);
    if (line >= planes * OH || q >= OW) return;
    const index_t plane = line / OH;
    const int p = (int)(line - plane * OH);
    const int top = START(rows, p), bottom = STOP(rows, p), left = START(cols, q), right = STOP(cols, q);
    int first_h = top, last_h = bottom, first_w = left, last_w = right;
    int own_h = 0, own_w = 0, end_h = 0, end_w = 0;
    if (SIGMOID) {
        own_h = part_start(rows, p, OH, H), end_h = part_start(rows, p + 1, OH, H);
        own_w = part_start(cols, q, OW, W), end_w = part_start(cols, q + 1, OW, W);
        first_h = own_h < top ? own_h : top, last_h = end_h > bottom ? end_h : bottom;
        first_w = own_w < left ? own_w : left, last_w = end_w > right ? end_w : right;
    }
    T total = T(0);
    for (int h = first_h; h < last_h; ++h)
        for (int w = first_w; w < last_w; ++w) {
            const index_t place = (plane * H + h) * W + w;
            T value = x[place];
            if (SIGMOID) {
                value = T(1) / (T(1) + exponential(-value));
                if (h >= own_h && h < end_h && w >= own_w && w < end_w) sigmoids[place] = value;
            }
            if (h >= top && h < bottom && w >= left && w < right) total += value;
        }
    y[line * OW + q] = total / T(DIVISOR(rows, p) * DIVISOR(cols, q));
}

// The first of the intervals that hold `place`, or the first behind it. The guess is right or next to it where
// intervals are spread evenly.
__device__ int first_holding(In<index_t> bounds, int count, int place, int size) {
    int p = (int)((index_t)place * count / size);
    while (p > 0 && STOP(bounds, p - 1) > place) --p;
    while (p < count && STOP(bounds, p) <= place) ++p;
    return p;
}

template <class T, bool SIGMOID>
__device__ void backward_body(In<T> dy, In<T> sigmoids, Out<T> dx, In<index_t> rows, In<index_t> cols,
                              index_t planes, int H, int W, int OH, int OW) {
    const index_t line = (index_t)blockIdx.x * blockDim.y + threadIdx.y;
    const int w = (int)(blockIdx.y * blockDim.x + threadIdx.x);
    if (line >= planes * H || w >= W) return;
    const index_t plane = line / H;
    const int h = (int)(line - plane * H);
    const int first_q = first_holding(cols, OW, w, W);
    T total = T(0);
    for (int p = first_holding(rows, OH, h, H); p < OH && START(rows, p) <= h; ++p)
        for (int q = first_q; q < OW && START(cols, q) <= w; ++q)
            total += dy[(plane * OH + p) * OW + q] / T(DIVISOR(rows, p) * DIVISOR(cols, q));
    const index_t place = line * W + w;
    if (SIGMOID) {
        const T value = sigmoids[place];
        total = total * value * (T(1) - value);
    }
    dx[place] = total;
}

#define GEOMETRY In<index_t> rows, In<index_t> cols, index_t planes, index_t H, index_t W, index_t OH, index_t OW
#define SAME_GEOMETRY rows, cols, planes, (int)H, (int)W, (int)OH, (int)OW

#define ENTRIES(T)                                                                                            \
    extern "C" __global__ void average_pool_forward_##T(In<T> x, Out<T> y, GEOMETRY) {                        \
        forward_body<T, false>(x, nullptr, y, SAME_GEOMETRY);                                                 \
    }                                                                                                         \
    extern "C" __global__ void average_pool_backward_##T(In<T> dy, Out<T> dx, GEOMETRY) {                     \
        backward_body<T, false>(dy, nullptr, dx, SAME_GEOMETRY);                                              \
    }                                                                                                         \
    extern "C" __global__ void sigmoid_average_pool_forward_##T(In<T> x, Out<T> sigmoids, Out<T> y,           \
                                                                GEOMETRY) {                                   \
        forward_body<T, true>(x, sigmoids, y, SAME_GEOMETRY);                                                 \
    }                                                                                                         \
    extern "C" __global__ void sigmoid_average_pool_backward_##T(In<T> dy, In<T> sigmoids, Out<T> dx,         \
                                                                 GEOMETRY) {                                  \
        backward_body<T, true>(dy, sigmoids, dx, SAME_GEOMETRY);                                              \
    }

ENTRIES(float)
ENTRIES(double)

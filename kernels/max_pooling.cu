// Max-pooling, of x or of relu(x), and the gradient's way back to the pixel that won.
//
//     forward    y[n, c, p, q] = the largest x[n, c, p*SH - top + i, q*SW - left + j] on the picture;
//                argmax[n, c, p, q] = i*KW + j of the first such pixel
//     backward   dx[n, c, h, w] = sum of dy[n, c, p, q] over the windows whose winner is (h, w)
//
// A NaN wins over every number, the last NaN over the others. With rectify a window whose largest pixel is not
// above 0 gives 0, and its winner is nobody: KH*KW.
//
// A picture's lines, of all images and channels, run along blockIdx.x and threadIdx.y, columns along
// blockIdx.y and threadIdx.x; a thread owns a few pixels below one another, so that it divides once for all of
// them. Forward, they are output pixels. Backward, they are pixels of the picture, which gather from the windows
// that see them, in their order: no two threads write the same pixel. Bound by bytes: x is read once forward, dx
// written once backward.

#include "common.cuh"

// Pixels below one another that a thread owns, forward and backward: the launches rely on them.
#define OUTPUT_TILE 4
#define TILE 8

// KH_, KW_: the window's size if it is known while compiling, else 0.
template <class T, class Cell, int KH_, int KW_>
__device__ void max_pool2d_forward_body(In<T> x, Out<T> y, Out<Cell> argmax, index_t planes, int H, int W,
                                        int OH, int OW, int KH_given, int KW_given, int SH, int SW, int top,
                                        int left, bool rectify) {
    const int KH = KH_ > 0 ? KH_ : KH_given, KW = KW_ > 0 ? KW_ : KW_given;
    const int tiles = (OH + OUTPUT_TILE - 1) / OUTPUT_TILE;
    const index_t line = (index_t)blockIdx.x * blockDim.y + threadIdx.y;
    const int q = (int)(blockIdx.y * blockDim.x + threadIdx.x);
    if (line >= planes * tiles || q >= OW) return;
    const index_t plane = line / tiles;
    const int first_p = (int)(line - plane * tiles) * OUTPUT_TILE;
    const int last_p = first_p + OUTPUT_TILE < OH ? first_p + OUTPUT_TILE : OH;
    const int col = q * SW - left;
    const int first_j = col < 0 ? -col : 0, last_j = col + KW <= W ? KW : W - col;
    for (int p = first_p; p < last_p; ++p) {
        const int row = p * SH - top;
        const int first_i = row < 0 ? -row : 0, last_i = row + KH <= H ? KH : H - row;
        const index_t corner = (plane * H + row) * W + col;
        // The first pixel wins even if it is minus infinity. No window lies in the padding alone.
        T best = x[corner + (index_t)first_i * W + first_j];
        unsigned int winner = (unsigned int)first_i * KW + first_j;
        if (KH_ > 0 && last_i - first_i == KH && last_j - first_j == KW) {
#pragma unroll
            for (int i = 0; i < KH; ++i)
#pragma unroll
                for (int j = 0; j < KW; ++j) {
                    const T value = x[corner + (index_t)i * W + j];
                    if (value > best || value != value) {
                        best = value;
                        winner = i * KW + j;
                    }
                }
        } else {
            for (int i = first_i; i < last_i; ++i)
                for (int j = first_j; j < last_j; ++j) {
                    const T value = x[corner + (index_t)i * W + j];
                    if (value > best || value != value) {
                        best = value;
                        winner = (unsigned int)i * KW + j;
                    }
                }
        }
        if (rectify && best <= T(0)) {
            best = T(0);
            winner = (unsigned int)KH * KW;
        }
        const index_t place = (plane * OH + p) * OW + q;
        y[place] = best;
        argmax[place] = (Cell)winner;
    }
}

// SEEN_: how many windows along either axis see a pixel at most, if known while compiling, else 0.
template <class T, class Cell, int SEEN_>
__device__ void max_pool2d_backward_body(In<T> dy, In<Cell> argmax, Out<T> dx, index_t planes, int H, int W,
                                         int OH, int OW, int KH, int KW, int SH, int SW, int top, int left) {
    const int rows_seen = SEEN_ > 0 ? SEEN_ : (KH + SH - 1) / SH;
    const int cols_seen = SEEN_ > 0 ? SEEN_ : (KW + SW - 1) / SW;
    const int tiles = (H + TILE - 1) / TILE;
    const index_t line = (index_t)blockIdx.x * blockDim.y + threadIdx.y;
    const int w = (int)(blockIdx.y * blockDim.x + threadIdx.x);
    if (line >= planes * tiles || w >= W) return;
    const index_t plane = line / tiles;
    const int first = (int)(line - plane * tiles) * TILE;
    const int last = first + TILE < H ? first + TILE : H;
    const index_t windows = plane * OH * OW;
    const int last_q = (w + left) / SW;
    const int most_q = SEEN_ > 0 || cols_seen <= last_q ? cols_seen - 1 : last_q;
    const int least_q = SEEN_ > 0 || last_q < OW ? 0 : last_q - OW + 1;
    int last_p = (first + top) / SH, next_row = (last_p + 1) * SH;  // Where window last_p + 1 begins.
    for (int h = first; h < last; ++h) {
        if (h + top == next_row) {
            ++last_p;
            next_row += SH;
        }
        const int most_p = SEEN_ > 0 || rows_seen <= last_p ? rows_seen - 1 : last_p;
        const int least_p = SEEN_ > 0 || last_p < OH ? 0 : last_p - OH + 1;
        T total = T(0);
#pragma unroll
        for (int back_p = most_p; back_p >= least_p; --back_p) {
            const int p = last_p - back_p, i = h + top - p * SH;
            const bool row_sees = p >= 0 && p < OH && i < KH;
#pragma unroll
            for (int back_q = most_q; back_q >= least_q; --back_q) {
                const int q = last_q - back_q, j = w + left - q * SW;
                if (row_sees && q >= 0 && q < OW && j < KW) {
                    const index_t window = windows + (index_t)p * OW + q;
                    if ((unsigned int)argmax[window] == (unsigned int)i * KW + j) total += dy[window];
                }
            }
        }
        dx[(plane * H + h) * W + w] = total;
    }
}

#define GEOMETRY                                                                                         \
    index_t planes, index_t H, index_t W, index_t OH, index_t OW, index_t KH, index_t KW, index_t SH,    \
        index_t SW, index_t top, index_t left
#define SAME_GEOMETRY                                                                                    \
    planes, (int)H, (int)W, (int)OH, (int)OW, (int)KH, (int)KW, (int)SH, (int)SW, (int)top, (int)left

// CELL: the type of argmax, a byte unless windows have more cells. Only of bytes there are special cases.
#define ENTRIES(NAME, CELL, T)                                                                           \
    extern "C" __global__ void max_pool2d_forward_##NAME##_##T(In<T> x, Out<T> y, Out<CELL> argmax,      \
                                                               GEOMETRY, index_t rectify) {              \
        if (sizeof(CELL) == 1 && KH == 3 && KW == 3)                                                     \
            max_pool2d_forward_body<T, CELL, 3, 3>(x, y, argmax, SAME_GEOMETRY, rectify != 0);           \
        else if (sizeof(CELL) == 1 && KH == 2 && KW == 2)                                                \
            max_pool2d_forward_body<T, CELL, 2, 2>(x, y, argmax, SAME_GEOMETRY, rectify != 0);           \
        else                                                                                             \
            max_pool2d_forward_body<T, CELL, 0, 0>(x, y, argmax, SAME_GEOMETRY, rectify != 0);           \
    }                                                                                                    \
    extern "C" __global__ void max_pool2d_backward_##NAME##_##T(In<T> dy, In<CELL> argmax, Out<T> dx,    \
                                                                GEOMETRY) {                              \
        if (sizeof(CELL) == 1 && KH <= SH && KW <= SW)                                                   \
            max_pool2d_backward_body<T, CELL, 1>(dy, argmax, dx, SAME_GEOMETRY);                         \
        else if (sizeof(CELL) == 1 && KH <= 2 * SH && KW <= 2 * SW)                                      \
            max_pool2d_backward_body<T, CELL, 2>(dy, argmax, dx, SAME_GEOMETRY);                         \
        else                                                                                             \
            max_pool2d_backward_body<T, CELL, 0>(dy, argmax, dx, SAME_GEOMETRY);                         \
    }

ENTRIES(uint8, unsigned char, float)
ENTRIES(uint8, unsigned char, double)
ENTRIES(uint16, unsigned short, float)
ENTRIES(uint16, unsigned short, double)
ENTRIES(uint32, unsigned int, float)
ENTRIES(uint32, unsigned int, double)

// im2col lays every window of a picture out as a column; col2im adds columns back to where they came from.
//
//     im2col   columns[c, i, j, n, p, q] = x[n, c, row, col], or 0 in the padding
//     col2im   dx[n, c, row, col] = sum over i, j of columns[c, i, j, n, p, q]   (or that added to dx)
//     with     row = (first_row + p) * SH - top + i * DH,  col = q * SW - left + j * DW
//
// Output rows first_row .. first_row + OH - 1 are done. Where the image n stands among the axes of `columns`
// is told by two strides: from one image to the next, and from one window cell to the next. (A picture for
// each image: C*KH*KW*OH*OW and OH*OW; all images side by side, for one long matrix: OH*OW and N*OH*OW.)
//
// im2col: one thread owns the column of one window and one channel; neighbours write neighbouring elements.
// col2im: one thread owns one pixel and gathers from the windows that see it, cell by cell in their order.
// blockIdx.y is the channel. Bound by bytes: the columns are KH*KW times as many as the pixels. The few
// divisions that are left are made once a thread, before the loop over cells.

#include "common.cuh"

// KW_: the window's width if it is known while compiling, else 0.
template <class T, int KW_>
__device__ void im2col_body(In<T> x, Out<T> columns, index_t N, int C, int H, int W, int KH, int KW_given,
                            int OH, int OW, int SH, int SW, int top, int left, int DH, int DW,
                            index_t first_row, index_t image_stride, index_t cell_stride) {
    const int KW = KW_ > 0 ? KW_ : KW_given;
    const index_t positions = (index_t)OH * OW;
    FOR_EACH_INDEX(m, N * positions) {
        const index_t n = m / positions;
        const index_t position = m - n * positions;
        const int p = (int)(position / OW);
        const int q = (int)(position - (index_t)p * OW);
        const int first = (int)((first_row + p) * SH - top);
        const int begin = q * SW - left;
        for (int c = blockIdx.y; c < C; c += gridDim.y) {
            const index_t plane = (n * C + c) * H * W;
            index_t target = (index_t)c * KH * KW * cell_stride + n * image_stride + position;
            for (int i = 0; i < KH; ++i) {
                const int row = first + i * DH;
                const bool on_picture = row >= 0 && row < H;
                const index_t line = plane + (index_t)row * W;
#pragma unroll
                for (int j = 0; j < KW; ++j) {
                    const int col = begin + j * DW;
                    const bool inside = on_picture && col >= 0 && col < W;
                    columns[target] = inside ? x[line + col] : T(0);
                    target += cell_stride;
                }
            }
        }
    }
}

// Windows that see a pixel, along one axis: cells cell, cell + step, ... of the windows at position,
// position - back, ...
struct Reach {
    int cell, position;
};

// The first cell of any window that lies on `pixel`, counted from the padding's edge; steps between such cells
// are stride / gcd(stride, dilation).
__device__ Reach first_reach(int pixel, int stride, int dilation, int step) {
    if (stride == 1) return {0, pixel};
    for (int cell = 0; cell < step; ++cell) {
        const int start = pixel - cell * dilation;
        if (start % stride == 0) return {cell, start / stride};
    }
    return {0, -1};  // A position below 0 is that of no window.
}

// KW_: the window's width if it is known while compiling and its columns are neither strided nor dilated,
// else 0.
template <class T, int KW_>
__device__ void col2im_body(In<T> columns, Out<T> dx, index_t N, int C, int H, int W, int KH, int KW, int OH,
                            int OW, int SH, int SW, int top, int left, int DH, int DW, index_t first_row,
                            index_t image_stride, index_t cell_stride, int row_step, int row_back,
                            int col_step, int col_back, bool add) {
    const index_t pixels = (index_t)H * W;
    FOR_EACH_INDEX(m, N * pixels) {
        const index_t n = m / pixels;
        const index_t pixel = m - n * pixels;
        const int h = (int)(pixel / W);
        const int w = (int)(pixel - (index_t)h * W);
        const Reach rows = first_reach(h + top, SH, DH, row_step);
        const Reach cols = first_reach(w + left, SW, DW, col_step);
        for (int c = blockIdx.y; c < C; c += gridDim.y) {
            const index_t place = (n * C + c) * pixels + pixel;
            const index_t source = (index_t)c * KH * KW * cell_stride + n * image_stride;
            T total = add ? dx[place] : T(0);
            index_t p = rows.position - first_row;
            for (int i = rows.cell; i < KH && p >= 0; i += row_step, p -= row_back) {
                if (p >= OH) continue;
                const index_t line = source + (index_t)i * KW * cell_stride + p * OW;
                if (KW_ > 0) {
#pragma unroll
                    for (int j = 0; j < KW_; ++j) {
                        const int q = cols.position - j;
                        if (q >= 0 && q < OW) total += columns[line + j * cell_stride + q];
                    }
                } else {
                    int q = cols.position;
                    for (int j = cols.cell; j < KW && q >= 0; j += col_step, q -= col_back)
                        if (q < OW) total += columns[line + j * cell_stride + q];
                }
            }
            dx[place] = total;
        }
    }
}

#define GEOMETRY                                                                                            \
    index_t N, index_t C, index_t H, index_t W, index_t KH, index_t KW, index_t OH, index_t OW, index_t SH, \
        index_t SW, index_t top, index_t left, index_t DH, index_t DW, index_t first_row,                   \
        index_t image_stride, index_t cell_stride
#define SAME_GEOMETRY                                                                                       \
    N, (int)C, (int)H, (int)W, (int)KH, (int)KW, (int)OH, (int)OW, (int)SH, (int)SW, (int)top, (int)left,   \
        (int)DH, (int)DW, first_row, image_stride, cell_stride
#define STEPS index_t row_step, index_t row_back, index_t col_step, index_t col_back, index_t add
#define SAME_STEPS (int)row_step, (int)row_back, (int)col_step, (int)col_back, add != 0

#define ENTRIES(T)                                                                                  \
    extern "C" __global__ void im2col_##T(In<T> x, Out<T> columns, GEOMETRY) {                      \
        if (KW == 3)                                                                                \
            im2col_body<T, 3>(x, columns, SAME_GEOMETRY);                                           \
        else if (KW == 5)                                                                           \
            im2col_body<T, 5>(x, columns, SAME_GEOMETRY);                                           \
        else if (KW == 11)                                                                          \
            im2col_body<T, 11>(x, columns, SAME_GEOMETRY);                                          \
        else                                                                                        \
            im2col_body<T, 0>(x, columns, SAME_GEOMETRY);                                           \
    }                                                                                               \
    extern "C" __global__ void col2im_##T(In<T> columns, Out<T> dx, GEOMETRY, STEPS) {              \
        if (KW == 3 && SW == 1 && DW == 1)                                                          \
            col2im_body<T, 3>(columns, dx, SAME_GEOMETRY, SAME_STEPS);                              \
        else if (KW == 5 && SW == 1 && DW == 1)                                                     \
            col2im_body<T, 5>(columns, dx, SAME_GEOMETRY, SAME_STEPS);                              \
        else                                                                                        \
            col2im_body<T, 0>(columns, dx, SAME_GEOMETRY, SAME_STEPS);                              \
    }

ENTRIES(float)
ENTRIES(double)

// ReLU, local response normalisation and max-pooling in one, and the gradient of the three.
//
// y, argmax = max-pooling of lrn(relu(x)); dx = relu's and lrn's gradient of what pooling sends back.
//
// Forward, a block owns a rectangle of output pixels. For each of its channels the threads normalise what the
// windows see into a tile of shared memory, wait for each other, and pool from there: between x and y nothing
// goes through memory. Backward, one thread owns 32 channels of an input pixel, as in local_response_norm,
// and gathers what arrives there from the windows that it won. Sums run in the windows' order, without
// atomics. Bound by bytes: x read, y and argmax written; backward x, dy and argmax read, dx written.

#include "local_response_norm.cuh"

// Extents of a picture and of its outputs, and how windows lie on it. Each fits 32 bits, in which threads
// divide and compare faster; offsets into arrays are 64 bits wide.
struct Windows {
    int C, H, W, OH, OW, KH, KW, SH, SW, top, left;
};

// Threads of a block in the forward pass, pixels of a tile that each of them fills, and all of these. There
// is room for two channels. minialex/kernels/fused_pooling.py has the same numbers, and gives a block as many
// outputs as its tile holds the windows of.
const int BLOCK = 256, PIXELS = 4, TILE = BLOCK * PIXELS;

// Where a block works: its image, its outputs, and what their windows see of the picture.
struct Rectangle {
    index_t n;
    int p0, p1, q0, q1, row0, row1, col0, col1;
};

__device__ Rectangle rectangle_of(int block, int rows, int columns, const Windows& windows)
{
    const int across = (windows.OW + columns - 1) / columns, down = (windows.OH + rows - 1) / rows;
    Rectangle r;
    r.n = block / across / down;
    r.p0 = block / across % down * rows;
    r.q0 = block % across * columns;
    r.p1 = min(r.p0 + rows, windows.OH);
    r.q1 = min(r.q0 + columns, windows.OW);
    r.row0 = max(r.p0 * windows.SH - windows.top, 0);
    r.col0 = max(r.q0 * windows.SW - windows.left, 0);
    r.row1 = min((r.p1 - 1) * windows.SH - windows.top + windows.KH, windows.H);
    r.col1 = min((r.q1 - 1) * windows.SW - windows.left + windows.KW, windows.W);
    return r;
}

// Fills a tile with relu(x), normalised, of one channel after another. Each thread has the same pixels of the
// rectangle for all channels, and walks along them.
template <class T, int REACH>
struct Filler {
    Walk<true, T, REACH> walks[PIXELS];
    Pixel pixels[PIXELS];

    // Stands before channel c.
    __device__ void start(In<T> x_nchw, const Rectangle& r, int width, int cells, const Windows& windows,
                          int c)
    {
#pragma unroll
        for (int k = 0; k < PIXELS; k++) {
            const int i = threadIdx.x + k * BLOCK;
            if (i < cells) {
                const int row = r.row0 + i / width, col = r.col0 + i % width;
                const index_t place = OFFSET_NCHW(r.n, 0, row, col, windows.C, windows.H, windows.W);
                pixels[k] = Pixel{place, (index_t)windows.H * windows.W, windows.C};
                walks[k].start(x_nchw, pixels[k], c);
            }
        }
    }
    template <class Tile>
    __device__ void fill(Tile& tile, int half, In<T> x_nchw, int cells, int c, const Norm<T>& norm)
    {
#pragma unroll
        for (int k = 0; k < PIXELS; k++) {
            const int i = threadIdx.x + k * BLOCK;
            if (i < cells) {
                const T scale = walks[k].scale(x_nchw, pixels[k], c, norm);
                tile[half + i] = walks[k].value() * powers_of(scale, norm.beta).power;
            }
        }
    }
};

// What won a window, and in which cell.
template <class T>
struct Winner {
    T value;
    int cell;
};

// The largest of the window of output (p, q) in the tile, which holds rectangle r from `half` on.
template <class T, class Tile>
__device__ Winner<T> pooled(Tile& tile, int half, int p, int q, const Rectangle& r, const Windows& windows)
{
    // The window, counted from the tile's corner: its first cells may lie in the padding, before the corner.
    const int top = p * windows.SH - windows.top - r.row0, left = q * windows.SW - windows.left - r.col0;
    const int width = r.col1 - r.col0, right = min(left + windows.KW, width);
    const int bottom = min(top + windows.KH, r.row1 - r.row0);
    Winner<T> best{T(0), -1};
    for (int row = max(top, 0); row < bottom; row++) {
        for (int col = max(left, 0); col < right; col++) {
            const T value = tile[half + row * width + col];
            // The first pixel wins even if it is minus infinity itself; NaN always wins.
            if (value > best.value || value != value || best.cell < 0) {
                best = Winner<T>{value, (row - top) * windows.KW + (col - left)};
            }
        }
    }
    return best;
}

template <int REACH, class T, class Cell, class Tile>
__device__ void pool_channels(Tile& tile, In<T> x_nchw, Out<T> y_nchw, Out<Cell> argmax_nchw,
                              const Norm<T>& norm, const Windows& windows, const Rectangle& r, int first,
                              int last)
{
    const int width = r.col1 - r.col0, cells = (r.row1 - r.row0) * width;
    const int across = r.q1 - r.q0, outputs = (r.p1 - r.p0) * across;
    Filler<T, REACH> filler;
    filler.start(x_nchw, r, width, cells, windows, first);
    for (int c = first; c < last; c++) {
        // Two halves by turns: who is quick may fill one while others still pool from the other.
        const int half = c % 2 * TILE;
        filler.fill(tile, half, x_nchw, cells, c, norm);
        __syncthreads();
        for (int o = threadIdx.x; o < outputs; o += BLOCK) {
            const int p = r.p0 + o / across, q = r.q0 + o % across;
            const Winner<T> winner = pooled<T>(tile, half, p, q, r, windows);
            const index_t place = OFFSET_NCHW(r.n, c, p, q, windows.C, windows.OH, windows.OW);
            y_nchw[place] = winner.value;
            argmax_nchw[place] = (Cell)winner.cell;
        }
    }
}

template <class T, class Cell>
__device__ void relu_lrn_max_pool2d_body(In<T> x_nchw, Out<T> y_nchw, Out<Cell> argmax_nchw,
                                         const Norm<T>& norm, const Windows& windows, int rows, int columns,
                                         int channels)
{
    __shared__ T tile[2 * TILE];
    const Rectangle r = rectangle_of(blockIdx.x, rows, columns, windows);
    const int first = blockIdx.y * channels, last = min(first + channels, windows.C);
    if (norm.lower == FIVE && norm.upper == FIVE) {
        pool_channels<FIVE, T>(tile, x_nchw, y_nchw, argmax_nchw, norm, windows, r, first, last);
    } else {
        pool_channels<ANY, T>(tile, x_nchw, y_nchw, argmax_nchw, norm, windows, r, first, last);
    }
}

// The gradient of pooling at a pixel: dy of all windows that it won.
template <class T, class Cell>
struct Pooled {
    In<T> dy_nchw;
    In<Cell> argmax_nchw;
    Windows windows;

    __device__ T operator()(index_t n, index_t c, index_t hw) const
    {
        // Counted from the corner of the padding, so that window p begins at row p * SH.
        const int h = (int)hw / windows.W + windows.top, w = (int)hw % windows.W + windows.left;
        const int p0 = h < windows.KH ? 0 : (h - windows.KH) / windows.SH + 1;
        const int q0 = w < windows.KW ? 0 : (w - windows.KW) / windows.SW + 1;
        const int p1 = min(h / windows.SH, windows.OH - 1), q1 = min(w / windows.SW, windows.OW - 1);
        T sum = T(0);
        for (int p = p0; p <= p1; p++) {
            for (int q = q0; q <= q1; q++) {
                const index_t place = OFFSET_NCHW(n, c, p, q, windows.C, windows.OH, windows.OW);
                if ((int)argmax_nchw[place] == (h - p * windows.SH) * windows.KW + (w - q * windows.SW)) {
                    sum += dy_nchw[place];
                }
            }
        }
        return sum;
    }
};

// BLOCKS: how many blocks of the forward pass one multiprocessor should hold at once.
// Cell: unsigned char for windows of up to 256 cells, unsigned int for larger ones.
#define ENTRIES(T, BLOCKS, SUFFIX, Cell)                                                                     \
    extern "C" __global__ void __launch_bounds__(BLOCK, BLOCKS) relu_lrn_max_pool2d_forward##SUFFIX##_##T(   \
        In<T> x_nchw, Out<T> y_nchw, Out<Cell> argmax_nchw, index_t C, index_t H, index_t W, index_t OH,     \
        index_t OW, index_t lower, index_t upper, T alpha, T beta, T k, index_t KH, index_t KW, index_t SH,  \
        index_t SW, index_t top, index_t left, index_t rows, index_t columns, index_t channels)              \
    {                                                                                                        \
        const Windows windows{(int)C,  (int)H,  (int)W,  (int)OH,  (int)OW,  (int)KH,                        \
                              (int)KW, (int)SH, (int)SW, (int)top, (int)left};                               \
        const Norm<T> norm{lower, upper, alpha, beta, k};                                                    \
        relu_lrn_max_pool2d_body<T, Cell>(x_nchw, y_nchw, argmax_nchw, norm, windows, rows, columns,         \
                                          channels);                                                         \
    }                                                                                                        \
    extern "C" __global__ void relu_lrn_max_pool2d_backward##SUFFIX##_##T(                                   \
        In<T> dy_nchw, In<Cell> argmax_nchw, In<T> x_nchw, Out<T> dx_nchw, index_t N, index_t C, index_t H,  \
        index_t W, index_t OH, index_t OW, index_t lower, index_t upper, T alpha, T beta, T k, index_t KH,   \
        index_t KW, index_t SH, index_t SW, index_t top, index_t left)                                       \
    {                                                                                                        \
        const Windows windows{(int)C,  (int)H,  (int)W,  (int)OH,  (int)OW,  (int)KH,                        \
                              (int)KW, (int)SH, (int)SW, (int)top, (int)left};                               \
        const Norm<T> norm{lower, upper, alpha, beta, k};                                                    \
        const Pooled<T, Cell> dy{dy_nchw, argmax_nchw, windows};                                             \
        lrn_backward_body<true, T>(dy, x_nchw, dx_nchw, N, C, H * W, norm);                                  \
    }

ENTRIES(float, 4, , unsigned char)
ENTRIES(double, 2, , unsigned char)
ENTRIES(float, 4, _wide, unsigned int)
ENTRIES(double, 2, _wide, unsigned int)

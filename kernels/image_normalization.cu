// From the bytes of pictures to the numbers that a net takes: cropped, mirrored, coloured, scaled.
//
// y[n, c, h, w] = (pixels[n, top + h, left + v, c] / 255 + shift[n, c] - mean[c, h, w]) / std[c],
// v = flip ? OW-1-w : w; top, left and flip are crops[n]. The mean is an image, or one number a channel.
//
// One thread owns an output pixel, all channels of it: neighbours read neighbouring bytes and write
// neighbouring numbers. Null pointers stand for no crop, no flip and no shift. Bound by bytes: the crop read
// once, y written once.

#include "common.cuh"

template <class T>
__device__ void normalize_body(In<T> mean_chw, In<T> std_c, In<unsigned char> pixels_nhwc,
                               In<index_t> crops_n3, In<T> shift_nc, Out<T> y_nchw, index_t mean_is_image,
                               index_t N, index_t H, index_t W, index_t C, index_t OH, index_t OW)
{
    FOR_EACH_INDEX(i, N * OH * OW) {
        const index_t w = i % OW, h = i / OW % OH, n = i / OW / OH;
        const bool whole = crops_n3 == nullptr;
        const index_t row = whole ? h : crops_n3[3 * n] + h;
        const index_t col = whole ? w : crops_n3[3 * n + 1] + (crops_n3[3 * n + 2] ? OW - 1 - w : w);
        const index_t pixel = ((n * H + row) * W + col) * C;
        for (index_t c = 0; c < C; c++) {
            T value = T(pixels_nhwc[pixel + c]) / T(255);
            if (shift_nc != nullptr) {
                value += shift_nc[n * C + c];
            }
            const T mean = mean_chw[mean_is_image ? (c * OH + h) * OW + w : c];
            y_nchw[OFFSET_NCHW(n, c, h, w, C, OH, OW)] = (value - mean) / std_c[c];
        }
    }
}

#define ENTRY(T)                                                                                             \
    extern "C" __global__ void normalize_images_##T(                                                         \
        In<T> mean_chw, In<T> std_c, In<unsigned char> pixels_nhwc, In<index_t> crops_n3, In<T> shift_nc,    \
        Out<T> y_nchw, index_t mean_is_image, index_t N, index_t H, index_t W, index_t C, index_t OH,        \
        index_t OW)                                                                                          \
    {                                                                                                        \
        normalize_body<T>(mean_chw, std_c, pixels_nhwc, crops_n3, shift_nc, y_nchw, mean_is_image, N, H, W,  \
                          C, OH, OW);                                                                        \
    }

ENTRY(float)
ENTRY(double)

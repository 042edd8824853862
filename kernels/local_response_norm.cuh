// What local_response_norm.cu and fused_pooling.cu share: scales along the channels of a pixel, and the
// gradient's way back through them.
//
// A thread walks along the channels of one pixel, and neighbouring threads have neighbouring pixels, so that
// each read is of consecutive numbers. For the window of 5 channels that all AlexNets have, what overlapping
// windows share is kept in registers: each number is read once. Every sum is made anew all the same: one that
// slides by adding and subtracting would cancel. Other windows are read anew for each channel, at a price.

#ifndef MINIALEX_LOCAL_RESPONSE_NORM_CUH
#define MINIALEX_LOCAL_RESPONSE_NORM_CUH

#include "common.cuh"

// How many channels before and after its own a window reaches; scale = k + alpha * sum, y = x * scale**-beta.
template <class T>
struct Norm {
    index_t lower, upper;
    T alpha, beta, k;
};

// How far the window of 5 reaches; and for the templates below, any window, which is read anew.
const int FIVE = 2, ANY = 0;

// Channels of a pixel that one thread makes, besides the few before and after them that it reads.
const index_t CHANNELS = 32;

// Where channel 0 of a pixel stands, and how far it is from each channel to the next.
struct Pixel {
    index_t place, plane, C;
};

// value, or relu(value). A NaN stays: nothing compares with it.
template <bool RECTIFY, class T>
__device__ T rectified(T value)
{
    return RECTIFY && value <= T(0) ? T(0) : value;
}

// x of a channel; 0 beyond the first and the last, where windows are cut.
template <class T>
__device__ T channel_or_zero(In<T> x_nchw, const Pixel& pixel, index_t c)
{
    return 0 <= c && c < pixel.C ? x_nchw[pixel.place + c * pixel.plane] : T(0);
}

// The last SIZE numbers of a sequence, in registers; [0] is the oldest.
template <class T, int SIZE>
struct Recent {
    T number[SIZE];
    __device__ void push(T newest)
    {
#pragma unroll
        for (int i = 0; i + 1 < SIZE; i++) {
            number[i] = number[i + 1];
        }
        number[SIZE - 1] = newest;
    }
};

// x (or relu(x)) and its scale, k + alpha * sum of x[j]**2 over the channels j of c's window, channel by
// channel.
template <bool RECTIFY, class T, int REACH>
struct Walk {
    Recent<T, 2 * REACH + 1> window;
    T ahead;  // Read one step before it is needed: memory takes its time.

    // Stands before channel c.
    __device__ void start(In<T> x_nchw, const Pixel& pixel, index_t c)
    {
        for (index_t j = c - REACH; j < c + REACH; j++) {
            window.push(rectified<RECTIFY>(channel_or_zero<T>(x_nchw, pixel, j)));
        }
        ahead = channel_or_zero<T>(x_nchw, pixel, c + REACH);
    }
    // Goes on to channel c, the next one. Returns its scale.
    __device__ T scale(In<T> x_nchw, const Pixel& pixel, index_t c, const Norm<T>& norm)
    {
        window.push(rectified<RECTIFY>(ahead));
        ahead = channel_or_zero<T>(x_nchw, pixel, c + REACH + 1);
        T energy = T(0);
#pragma unroll
        for (int i = 0; i <= 2 * REACH; i++) {
            energy += window.number[i] * window.number[i];
        }
        return norm.k + norm.alpha * energy;
    }
    // The channel that it stands at.
    __device__ T value() const { return window.number[REACH]; }
};

template <bool RECTIFY, class T>
struct Walk<RECTIFY, T, ANY> {
    T here;

    __device__ void start(In<T> x_nchw, const Pixel& pixel, index_t c) {}
    __device__ T scale(In<T> x_nchw, const Pixel& pixel, index_t c, const Norm<T>& norm)
    {
        T energy = T(0);
        const index_t last = min(c + norm.upper, pixel.C - 1);
        for (index_t j = max(c - norm.lower, (index_t)0); j <= last; j++) {
            const T value = rectified<RECTIFY>(x_nchw[pixel.place + j * pixel.plane]);
            energy += value * value;
        }
        here = rectified<RECTIFY>(x_nchw[pixel.place + c * pixel.plane]);
        return norm.k + norm.alpha * energy;
    }
    __device__ T value() const { return here; }
};

// scale**-beta, and 1 / scale.
template <class T>
struct Powers {
    T power, inverse;
};

__device__ __forceinline__ float inverse_root(float x) { return rsqrtf(x); }
__device__ __forceinline__ double inverse_root(double x) { return rsqrt(x); }

// For the paper's beta of 3/4 from the inverse root, good to a few units of the last place: a power and a
// division take several times as long.
template <class T>
__device__ Powers<T> powers_of(T scale, T beta)
{
    if (beta == T(0.75)) {
        const T root = inverse_root(scale);
        return Powers<T>{root * square_root(root), root * root};
    }
    return Powers<T>{power(scale, -beta), T(1) / scale};
}

// Calls work(pixel, n, hw, start, stop) for the share of this thread: channels start .. stop-1 of pixel hw of
// image n.
template <class Work>
__device__ void for_each_share(index_t N, index_t C, index_t plane, const Work& work)
{
    const index_t chunks = (C + CHANNELS - 1) / CHANNELS;
    FOR_EACH_INDEX(i, N * chunks * plane) {
        const index_t hw = i % plane, start = i / plane % chunks * CHANNELS, n = i / plane / chunks;
        work(Pixel{n * C * plane + hw, plane, C}, n, hw, start, min(start + CHANNELS, C));
    }
}

// dx[c] = own[c] - 2 * alpha * beta * x[c] * sum of the shares of the channels whose windows hold c,
// own = dy * scale**-beta, share = own * x / scale; and 0 where RECTIFY finds nothing above zero.
// Gradient: dy(n, c, hw) is what arrives at an element of y.
template <bool RECTIFY, class T, class Gradient, int REACH>
struct Backward {
    const Gradient& dy;
    In<T> x_nchw;
    Out<T> dx_nchw;
    const Norm<T>& norm;

    // Channel c is complete when c + REACH, the last whose window holds it, has sent its share.
    __device__ void operator()(const Pixel& pixel, index_t n, index_t hw, index_t start, index_t stop) const
    {
        Walk<RECTIFY, T, REACH> walk;
        Recent<T, 2 * REACH + 1> shares;
        Recent<T, REACH + 1> owns;
        walk.start(x_nchw, pixel, start - REACH);
        for (index_t j = start - REACH; j < stop + REACH; j++) {
            const Powers<T> powers = powers_of(walk.scale(x_nchw, pixel, j, norm), norm.beta);
            const T own = 0 <= j && j < pixel.C ? dy(n, j, hw) * powers.power : T(0);
            // A channel that is not there sends nothing, also if its scale is no number.
            shares.push(0 <= j && j < pixel.C ? own * walk.value() * powers.inverse : T(0));
            owns.push(own);
            if (j >= start + REACH) {
                T crossed = T(0);
#pragma unroll
                for (int i = 0; i <= 2 * REACH; i++) {
                    crossed += shares.number[i];
                }
                write(pixel, j - REACH, walk.window.number[0], owns.number[0], crossed);
            }
        }
    }
    __device__ void write(const Pixel& pixel, index_t c, T value, T own, T crossed) const
    {
        const T gradient = own - T(2) * norm.alpha * norm.beta * value * crossed;
        dx_nchw[pixel.place + c * pixel.plane] = RECTIFY && value <= T(0) ? T(0) : gradient;
    }
};

// Any window: the shares of all channels whose windows hold c, worked out anew for each c.
template <bool RECTIFY, class T, class Gradient>
struct Backward<RECTIFY, T, Gradient, ANY> {
    const Gradient& dy;
    In<T> x_nchw;
    Out<T> dx_nchw;
    const Norm<T>& norm;

    __device__ void operator()(const Pixel& pixel, index_t n, index_t hw, index_t start, index_t stop) const
    {
        Walk<RECTIFY, T, ANY> walk;
        for (index_t c = start; c < stop; c++) {
            T crossed = T(0), own_c = T(0);
            const index_t last = min(c + norm.lower, pixel.C - 1);
            for (index_t j = max(c - norm.upper, (index_t)0); j <= last; j++) {
                const Powers<T> powers = powers_of(walk.scale(x_nchw, pixel, j, norm), norm.beta);
                const T own = dy(n, j, hw) * powers.power;
                crossed += own * walk.value() * powers.inverse;
                own_c = j == c ? own : own_c;
            }
            const T value = rectified<RECTIFY>(x_nchw[pixel.place + c * pixel.plane]);
            const T gradient = own_c - T(2) * norm.alpha * norm.beta * value * crossed;
            dx_nchw[pixel.place + c * pixel.plane] = RECTIFY && value <= T(0) ? T(0) : gradient;
        }
    }
};

template <bool RECTIFY, class T, class Gradient>
__device__ void lrn_backward_body(const Gradient& dy, In<T> x_nchw, Out<T> dx_nchw, index_t N, index_t C,
                                  index_t plane, const Norm<T>& norm)
{
    if (norm.lower == FIVE && norm.upper == FIVE) {
        for_each_share(N, C, plane, Backward<RECTIFY, T, Gradient, FIVE>{dy, x_nchw, dx_nchw, norm});
    } else {
        for_each_share(N, C, plane, Backward<RECTIFY, T, Gradient, ANY>{dy, x_nchw, dx_nchw, norm});
    }
}

#endif

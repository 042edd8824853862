// float32 to bfloat16, for the factors of a matrix product on tensor cores (minialex/backend/cublas.py).
//
// y[i] = the upper half of x[i], rounded to nearest, ties to even. One thread an element; bound by bytes: 4
// read and 2 written for each.

#include "common.cuh"

// The bits of a float32, as an integer.
__device__ unsigned int bits_of(float x)
{
    union { float number; unsigned int bits; } both;
    both.number = x;
    return both.bits;
}

extern "C" __global__ void round_to_bfloat16_float(In<float> x, Out<unsigned short> y, index_t size)
{
    FOR_EACH_INDEX(i, size) {
        unsigned int bits = bits_of(x[i]);
        if ((bits & 0x7FFFFFFFu) > 0x7F800000u) {
            // A NaN stays one, whatever its payload: rounding up could carry it into an infinity.
            y[i] = (unsigned short)(bits >> 16 | 0x0040u);
        } else {
            y[i] = (unsigned short)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
        }
    }
}

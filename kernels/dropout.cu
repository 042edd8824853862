// Dropout by counter: the mask is a function of (seed, step, item, element), the same as on the CPU.
//
// y[e] = x[e] * (word(e) >> 8 >= limit ? scale : 0), word e % 4 of Philox block e // 4.
//
// One thread owns a block of four elements. Bound by bytes: x read and y written once.
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

#include "common.cuh"

// The 128 bits of a counter, or of what comes out.
struct Words {
    unsigned int word[4];
};

// Philox4x32-10, as minialex/rng.py spells it out. Unsigned sums and products are modulo 2**32.
__device__ Words philox4x32(Words counter, unsigned int key0, unsigned int key1)
{
    unsigned int c0 = counter.word[0], c1 = counter.word[1], c2 = counter.word[2], c3 = counter.word[3];
    for (int round = 0; round < 10; round++) {
        const unsigned int high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const unsigned int high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ key0;
        c1 = low1;
        c2 = high0 ^ c3 ^ key1;
        c3 = low0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return Words{{c0, c1, c2, c3}};
}

template <class T>
__device__ void dropout_body(In<T> x, Out<T> y, index_t size, index_t limit, T scale, unsigned int key0,
                             unsigned int key1, unsigned int purpose, unsigned int step, unsigned int item)
{
    FOR_EACH_INDEX(block, (size + 3) / 4) {
        // The block's number counts modulo 2**32, as on the CPU.
        const Words random = philox4x32(Words{{purpose, step, item, (unsigned int)block}}, key0, key1);
        for (int i = 0; i < 4; i++) {
            const index_t e = 4 * block + i;
            if (e < size) {
                // A product, also with zero: a NaN is not hidden by being dropped.
                y[e] = x[e] * ((index_t)(random.word[i] >> 8) >= limit ? scale : T(0));
            }
        }
    }
}

#define ENTRY(T)                                                                                             \
    extern "C" __global__ void dropout_##T(In<T> x, Out<T> y, index_t size, index_t limit, T scale,          \
                                           unsigned int key0, unsigned int key1, unsigned int purpose,       \
                                           unsigned int step, unsigned int item)                             \
    {                                                                                                        \
        dropout_body<T>(x, y, size, limit, scale, key0, key1, purpose, step, item);                          \
    }

ENTRY(float)
ENTRY(double)

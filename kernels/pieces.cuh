// What sgd.cu and adam.cu share: one launch for many parameters.
//
// Parameters come in tables of up to 32 pointers, which are handed to the kernel by value. Each is cut into
// pieces of PIECE elements; the pieces of all are numbered through, and block b works on piece b.

#ifndef MINIALEX_PIECES_CUH
#define MINIALEX_PIECES_CUH

#include "common.cuh"

// minialex/kernels/updates.py has the same number, and launches a block for each piece.
const index_t PIECE = 4096;

// Elements start .. stop-1 of a parameter.
struct Piece {
    index_t parameter, start, stop;
};

// What this block works on. sizes[i] is the number of elements of parameter i, 0 behind the last one.
__device__ Piece piece_of_block(const Table<index_t>& sizes)
{
    index_t number = blockIdx.x, i = 0;
    for (; i < TABLE_SIZE - 1 && number * PIECE >= sizes[i]; i++) {
        number -= (sizes[i] + PIECE - 1) / PIECE;
    }
    const index_t start = number * PIECE;
    return Piece{i, start, min(start + PIECE, sizes[i])};
}

#endif

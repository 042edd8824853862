// One block of threads at a time: who runs, who waits for whom, and what is wrong when nobody can go on.
//
// Each CUDA thread runs until it returns or must wait; then another is taken at random. A thread that never
// waits needs no stack of its own: it runs on the one that the thread before it has left.

#ifndef MINIALEX_BLOCK_HPP
#define MINIALEX_BLOCK_HPP

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fibers.hpp"

// Never inlined: the address that such a function would return to tells Python the line of the kernel.
#define MINIALEX_COLD __attribute__((noinline, cold))
#define MINIALEX_INLINE __attribute__((always_inline)) inline
// Where local variables begin with a pattern (see building.py), these of our own do not.
#define MINIALEX_UNINITIALIZED __attribute__((uninitialized))

typedef long long index_t;

struct uint3 {
    unsigned x, y, z;
};
typedef uint3 dim3;

namespace minialex {

const int MAX_THREADS = 1024, WARP = 32;

enum State : unsigned char { UNSTARTED, RUNNABLE, AT_BARRIER, AT_WARP, RETURNED };

// A line of the source at which threads wait for each other.
struct Site {
    const char* file;
    int line;
    bool operator==(const Site& other) const {
        return line == other.line && (file == other.file || strcmp(file, other.file) == 0);
    }
};

struct Thread {
    uint3 index;
    Fiber* fiber;
    State state;
    Site site;  // Where it waits, if it does.
    int vote;   // What it brings to __syncthreads_count and its like, and takes from it.
    uint64_t value;  // What it brings to a shuffle, and takes from it.
    int source;      // The lane that it takes from.
};

// Lanes of one warp that wait at one line for the others of their mask.
struct Meeting {
    unsigned mask, arrived;
    Site site;
};

struct Warp {
    unsigned epoch;      // Counts what the warp has waited for since the last barrier.
    unsigned returned;   // Lanes that returned, or that the block does not have.
    int meetings;
    Meeting meeting[WARP];
};

// What went wrong, for Python to say.
struct Report {
    char message[2048];
    unsigned block[3];
    int thread[3];  // -1: it is about the block, not about one thread.
    uint64_t address;  // Of the code, counted from the beginning of the library; 0 if unknown.
};

enum Outcome { DONE, MORE, FAILED, NO_MEMORY };

// Used through pointers: g++ checks the indices of arrays, for the sake of kernels, and here it takes time.
static Thread all_threads[MAX_THREADS], *const threads = all_threads;
static Warp all_warps[MAX_THREADS / WARP], *const warps = all_warps;
static Fiber all_fibers[MAX_THREADS], *const fibers = all_fibers, main_fiber;
static int all_free[MAX_THREADS], *const free_fibers = all_free, n_free;
static int all_runnable[MAX_THREADS], *const runnable = all_runnable;
static int n_runnable, n_threads, n_at_barrier, n_returned;
static int current;  // The number of the thread that runs.
static uint3 thread_index, block_index, block_extent, grid_extent;
static void (*kernel)();
static Report report;
static Outcome outcome;

// Epochs are numbered across blocks and launches: what was touched before the last barrier has a smaller one.
static uint32_t epoch = 1, block_epoch = 1;

// A thread is interrupted after so many memory accesses to look at the clock, so that Ctrl-C reaches Python.
static const int FUEL = 1 << 16;
static int fuel = FUEL;
static double slice_end;
static const double SLICE_SECONDS = 0.05;

static uint64_t random_state;

inline uint32_t random_below(uint32_t n) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(((random_state >> 32) * n) >> 32);
}

inline double seconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

inline Fiber& current_fiber() { return *threads[current].fiber; }

inline void make_current(int number) {
    current = number;
    thread_index = threads[number].index;
}

// Leaves the block for Python, for good. Nothing in a kernel has a destructor, so its stack is just left.
[[noreturn]] inline void leave(Outcome why) {
    outcome = why;
    Fiber abandoned;
    jump(abandoned, main_fiber);
    __builtin_unreachable();
}

// Of the library that this file is a part of; set once, because asking for it takes a lock.
static char* library_base;

[[noreturn]] MINIALEX_COLD __attribute__((format(printf, 3, 4))) static void fail(
    int thread, void* address, const char* format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(report.message, sizeof report.message, format, values);
    va_end(values);
    report.block[0] = block_index.x, report.block[1] = block_index.y, report.block[2] = block_index.z;
    const uint3 at = threads[thread < 0 ? 0 : thread].index;
    report.thread[0] = thread < 0 ? -1 : (int)at.x, report.thread[1] = at.y, report.thread[2] = at.z;
    report.address = address && library_base ? (char*)address - library_base - 1 : 0;
    leave(FAILED);
}

__attribute__((noinline)) static void look_at_the_clock() {
    fuel = FUEL;
    if (seconds() < slice_end) return;
    outcome = MORE;
    jump(current_fiber(), main_fiber);
}

inline void burn_fuel() {
    if (__builtin_expect(--fuel == 0, 0)) look_at_the_clock();
}

struct Text {
    char text[160];
};

inline Text describe(int number) {
    const Thread& thread = threads[number];
    Text text;
    const char* file = strrchr(thread.site.file ? thread.site.file : "", '/');
    int n = snprintf(text.text, sizeof text.text, "thread (%u, %u, %u) ", thread.index.x, thread.index.y,
                     thread.index.z);
    if (thread.state == RETURNED)
        snprintf(text.text + n, sizeof text.text - n, "has returned");
    else
        snprintf(text.text + n, sizeof text.text - n, "waits at %s:%d", file ? file + 1 : thread.site.file,
                 thread.site.line);
    return text;
}

// Thread i waits for lanes of its warp, and nobody can run.
[[noreturn]] MINIALEX_COLD static void fail_warp(int i) {
    const int first = i / WARP * WARP;
    for (int other = first; other < first + WARP && other < n_threads; ++other) {
        const bool meets = threads[other].state == AT_WARP && threads[other].site == threads[i].site;
        if (threads[other].state != RETURNED && !meets)
            fail(-1, nullptr, "a warp cannot go on: %s for lanes of its mask, but %s", describe(i).text,
                 describe(other).text);
    }
    fail(-1, nullptr, "a warp cannot go on: %s, but the lanes there were called with different masks",
         describe(i).text);
}

// Nobody can run: either everybody stands at the same barrier, or the kernel would hang or worse on a GPU.
inline void check_the_barrier() {
    int first = 0;
    while (threads[first].state == RETURNED) ++first;
    for (int i = 0; i < n_threads; ++i)
        if (threads[i].state == AT_WARP) fail_warp(i);
    for (int i = 0; i < n_threads; ++i)
        if (threads[i].state == RETURNED || !(threads[i].site == threads[first].site))
            fail(-1, nullptr,
                 "divergent barrier: %d of %d threads wait; %s, but %s; every thread of a block must reach "
                 "the same __syncthreads()",
                 n_at_barrier, n_threads, describe(first).text, describe(i).text);
}

inline void release(int number) {
    threads[number].state = RUNNABLE;
    runnable[n_runnable++] = number;
}

inline void open_the_barrier() {
    check_the_barrier();
    ++epoch;
    int votes = 0;
    for (int i = 0; i < n_threads; ++i) votes += threads[i].vote;
    for (int i = 0; i < n_threads; ++i) {
        threads[i].vote = votes;
        release(i);
    }
    for (int i = 0; i * WARP < n_threads; ++i) warps[i].epoch = 0;
    n_at_barrier = 0;
}

inline int take_one() {
    const int i = random_below(n_runnable), number = runnable[i];
    runnable[i] = runnable[--n_runnable];
    return number;
}

// The thread that runs next, at random; -1 when the block is done.
inline int choose() {
    burn_fuel();
    if (n_runnable == 0) {
        if (n_returned == n_threads) return -1;
        open_the_barrier();
    }
    return take_one();
}

void thread_loop();

// The current thread waits: another one runs, and this returns when the current one may go on.
inline void wait() {
    const int me = current, next = choose();
    Fiber& mine = *threads[me].fiber;
    if (next != me) {
        make_current(next);
        if (threads[next].state == UNSTARTED) {
            const int number = free_fibers[--n_free];
            Fiber& fresh = fibers[number];
            if (!has_stack(fresh, number)) fail(next, nullptr, "no memory for the stack of one more thread");
            prepare(fresh, thread_loop);
            threads[next].fiber = &fresh;
        }
        jump(mine, *threads[next].fiber);
    }
    make_current(me);
}

inline const char* why_missing(unsigned mask, int lane) {
    return mask >> lane & 1 ? "has returned or is not in this block" : "is not in the mask";
}

inline void meet(Warp& warp, int i) {
    const Meeting meeting = warp.meeting[i];
    warp.meeting[i] = warp.meeting[--warp.meetings];
    const int first = (int)(&warp - warps) * WARP;
    uint64_t values[WARP] MINIALEX_UNINITIALIZED;
    for (int lane = 0; lane < WARP; ++lane) values[lane] = threads[first + lane].value;
    for (int lane = 0; lane < WARP; ++lane)
        if (meeting.arrived >> lane & 1) {
            Thread& thread = threads[first + lane];
            if (!(meeting.arrived >> thread.source & 1))
                fail(first + lane, nullptr,
                     "the shuffle at line %d takes the value of lane %d, which %s (mask 0x%08x)",
                     meeting.site.line, thread.source, why_missing(meeting.mask, thread.source),
                     meeting.mask);
            thread.value = values[thread.source];
            release(first + lane);
        }
    ++warp.epoch;
}

inline void thread_returns() {
    threads[current].state = RETURNED;
    ++n_returned;
    Warp& warp = warps[current / WARP];
    warp.returned |= 1u << current % WARP;
    for (int i = warp.meetings - 1; i >= 0; --i)
        if (warp.meeting[i].arrived == (warp.meeting[i].mask & ~warp.returned)) meet(warp, i);
}

// What runs on every fiber: threads that have not started, one after another, until one that waits is next.
void thread_loop() {
    for (;;) {
        Fiber& mine = current_fiber();
        threads[current].state = RUNNABLE;
        kernel();
        thread_returns();
        const int next = choose();
        if (next < 0) leave(DONE);
        make_current(next);
        if (threads[next].state == UNSTARTED) {
            threads[next].fiber = &mine;
        } else {
            free_fibers[n_free++] = (int)(&mine - fibers);
            jump(mine, *threads[next].fiber);
        }
    }
}

// Everything is ready for the first thread; false if there is no memory for its stack.
inline bool begin_block(uint3 index) {
    block_index = index;
    block_epoch = ++epoch;
    n_runnable = n_at_barrier = n_returned = 0;
    n_free = n_threads;
    for (int i = 0; i < n_threads; ++i) {
        free_fibers[i] = n_threads - 1 - i;
        threads[i].state = UNSTARTED;
        runnable[n_runnable++] = i;
    }
    for (int i = 0; i * WARP < n_threads; ++i) {
        const int lanes = n_threads - i * WARP;
        warps[i].epoch = warps[i].meetings = 0;
        warps[i].returned = lanes < WARP ? ~0u << lanes : 0;
    }
    const int first = take_one();
    make_current(first);
    threads[first].fiber = &fibers[free_fibers[--n_free]];
    if (!has_stack(*threads[first].fiber, free_fibers[n_free])) return false;
    prepare(*threads[first].fiber, thread_loop);
    return true;
}

// Waits at a barrier with a number, and gives the sum of all threads' numbers.
__attribute__((noinline)) static int barrier(int vote, Site site) {
    Thread& thread = threads[current];
    thread.state = AT_BARRIER, thread.site = site, thread.vote = vote;
    ++n_at_barrier;
    wait();
    return thread.vote;
}

// Waits for the lanes of the mask with a value; returns that of lane `source`.
__attribute__((noinline)) static uint64_t exchange(unsigned mask, uint64_t value, int source, Site site) {
    const int me = current, lane = me % WARP;
    Warp& warp = warps[me / WARP];
    Thread& thread = threads[me];
    if (!(mask >> lane & 1))
        fail(me, __builtin_return_address(0),
             "lane %d calls a warp function with mask 0x%08x, which it is not in", lane, mask);
    thread.state = AT_WARP, thread.site = site, thread.value = value, thread.source = source;
    int i = 0;
    while (i < warp.meetings && !(warp.meeting[i].mask == mask && warp.meeting[i].site == site)) ++i;
    if (i == warp.meetings) warp.meeting[warp.meetings++] = Meeting{mask, 0, site};
    warp.meeting[i].arrived |= 1u << lane;
    if (warp.meeting[i].arrived == (mask & ~warp.returned)) meet(warp, i);
    wait();
    return thread.value;
}

}  // namespace minialex

#endif

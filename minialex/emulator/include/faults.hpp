// Signals that end a program, caught while a kernel runs: a division by zero, a full stack, a bad address,
// the trap that g++ sets at an index outside a local array, and Ctrl-C in a loop that never looks at the clock.
//
// They count only on the thread of the operating system that runs the kernel, and only while its stack
// pointer is on a fiber's stack; all others go to whoever was to get them before, such as Python's
// faulthandler. After a fault the thread goes on in `land`, on the stack that the fault has spoilt anyway,
// and leaves the block as after any other mistake. The handler has a stack of its own: the fiber's may be
// full.

#ifndef MINIALEX_FAULTS_HPP
#define MINIALEX_FAULTS_HPP

#include <dlfcn.h>

#include "intrinsics.hpp"

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))
#define MINIALEX_FAULTS 1
#include <pthread.h>
#include <signal.h>
#include <ucontext.h>
#endif

namespace minialex {

static Fiber interrupted_fiber;
static bool interrupted;  // By Ctrl-C, amid a kernel's code: interrupted_fiber goes on there.

#ifdef MINIALEX_FAULTS

const int CAUGHT[] = {SIGFPE, SIGSEGV, SIGILL, SIGTRAP, SIGINT}, N_CAUGHT = 5;
static struct sigaction previous[N_CAUGHT];
static stack_t previous_stack;
alignas(16) static char handler_stack[64 * 1024];
static pthread_t runner;
static volatile bool running;  // From before the first jump to a fiber until after the last one back.

struct Fault {
    int signal;
    uint64_t code;  // The instruction.
    bool full;
};
static Fault fault;

#ifdef __x86_64__
inline uint64_t program_counter(const ucontext_t& context) { return context.uc_mcontext.gregs[REG_RIP]; }
inline uint64_t stack_pointer(const ucontext_t& context) { return context.uc_mcontext.gregs[REG_RSP]; }
inline void go_on_at(ucontext_t& context, void (*function)(), char* top) {
    context.uc_mcontext.gregs[REG_RIP] = (greg_t)function;
    context.uc_mcontext.gregs[REG_RSP] = (greg_t)(((uint64_t)top & ~15ull) - 8);  // As if it had been called.
}
#else
inline uint64_t program_counter(const ucontext_t& context) { return context.uc_mcontext.pc; }
inline uint64_t stack_pointer(const ucontext_t& context) { return context.uc_mcontext.sp; }
inline void go_on_at(ucontext_t& context, void (*function)(), char* top) {
    context.uc_mcontext.pc = (uint64_t)function;
    context.uc_mcontext.sp = (uint64_t)top & ~15ull;
}
#endif

// The fiber on whose stack, or on the guard below it, an address is.
inline Fiber* fiber_at(uint64_t address) {
    for (Fiber& fiber : all_fibers)
        if (fiber.stack && address - ((uint64_t)fiber.stack - GUARD_BYTES) <= GUARD_BYTES + fiber.size)
            return &fiber;
    return nullptr;
}

inline Fiber* fiber_of(const void* context) {
    if (!running || !pthread_equal(pthread_self(), runner)) return nullptr;
    return fiber_at(stack_pointer(*(const ucontext_t*)context));
}

static void pass_on(int signal, siginfo_t* info, void* context) {
    int i = 0;
    while (CAUGHT[i] != signal) ++i;
    const struct sigaction& old = previous[i];
    const bool sent = info->si_code <= 0;  // By a program, and not by the processor.
    if (old.sa_flags & SA_SIGINFO) {
        old.sa_sigaction(signal, info, context);
    } else if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) {
        old.sa_handler(signal);
    } else if (old.sa_handler == SIG_DFL || !sent) {
        struct sigaction standard = {};
        standard.sa_handler = SIG_DFL;
        sigaction(signal, &standard, nullptr);
        raise(signal);  // It waits until this handler has returned.
    }
}

// Where a thread goes on after a fault.
[[noreturn]] static void land() {
    Dl_info info;
    const bool ours = dladdr((void*)fault.code, &info) && (char*)info.dli_fbase == library_base;
    void* address = ours ? (void*)(fault.code + 1) : nullptr;  // As a return address: behind the instruction.
    if (fault.signal == SIGFPE)
        fail(current, address,
             "integer division by zero (or of the smallest integer by -1); a GPU gives some number instead");
    if (fault.signal == SIGILL || fault.signal == SIGTRAP)
        fail(current, address, "an index outside a local array");
    if (fault.full)
        fail(current, address,
             "the stack of a thread is full, %d KiB: a recursion that does not end, or local arrays that are "
             "too large",
             (int)(STACK_BYTES / 1024));
    fail(current, address,
         "reads or writes memory that is not the kernel's, through a pointer or a local array");
}

static void on_fault(int signal, siginfo_t* info, void* context) {
    Fiber* fiber = info->si_code <= 0 ? nullptr : fiber_of(context);
    if (!fiber) return pass_on(signal, info, context);
    const ucontext_t& at = *(const ucontext_t*)context;
    // A page above the guard counts as full too: the system could not put a signal's frame there.
    const uint64_t end = (uint64_t)fiber->stack, page = 4096;
    fault.signal = signal, fault.code = program_counter(at);
    fault.full = stack_pointer(at) < end + page ||
                 (uint64_t)info->si_addr - (end - GUARD_BYTES) < GUARD_BYTES;
    running = false;  // A fault in `land` is nobody's but ours.
    go_on_at(*(ucontext_t*)context, land, fiber->stack + fiber->size);
}

// Ctrl-C: Python notes it and sees to it when it has control, so the kernel stops here, and may go on later.
// Amid the C library's allocation it goes on until it asks for the time.
static void on_interrupt(int signal, siginfo_t* info, void* context) {
    pass_on(signal, info, context);
    if (!fiber_of(context) || printing) return;
    const Outcome before = outcome;
    outcome = MORE, interrupted = true;
    jump(interrupted_fiber, main_fiber);
    outcome = before;
}

inline bool is_ours(const struct sigaction& action) {
    return action.sa_flags & SA_SIGINFO &&
           (action.sa_sigaction == on_fault || action.sa_sigaction == on_interrupt);
}

inline void catch_signals() {
    for (int i = 0; i < N_CAUGHT; ++i) {
        struct sigaction now, action = {};
        sigaction(CAUGHT[i], nullptr, &now);
        const bool ctrl_c = CAUGHT[i] == SIGINT, plain = !(now.sa_flags & SA_SIGINFO);
        // Who ignores Ctrl-C, or dies of it, is to do so here as well.
        if (is_ours(now)) continue;
        if (ctrl_c && plain && (now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN)) continue;
        previous[i] = now;
        action.sa_sigaction = ctrl_c ? on_interrupt : on_fault;
        // Not blocked while the handler of Ctrl-C runs: that may return much later, or never.
        action.sa_flags = SA_SIGINFO | (ctrl_c ? SA_NODEFER : SA_ONSTACK);
        sigaction(CAUGHT[i], &action, nullptr);
    }
}

inline void release_signals() {
    for (int i = 0; i < N_CAUGHT; ++i) {
        struct sigaction now;
        sigaction(CAUGHT[i], nullptr, &now);
        if (is_ours(now)) sigaction(CAUGHT[i], &previous[i], nullptr);
    }
}

// On the thread that runs the kernel, before it does and after.
inline void begin_running() {
    stack_t stack = {};
    stack.ss_sp = handler_stack, stack.ss_size = sizeof handler_stack;
    sigaltstack(&stack, &previous_stack);
    runner = pthread_self();
    running = true;
}
inline void end_running() {
    running = false;
    sigaltstack(&previous_stack, nullptr);
}

#else

inline void catch_signals() {}
inline void release_signals() {}
inline void begin_running() {}
inline void end_running() {}

#endif

}  // namespace minialex

#endif

// Fibers: many CUDA threads on one thread of the operating system, switched by hand.
//
// ucontext would do everywhere, but its swapcontext asks the system for the signal mask at every switch: a
// microsecond, where saving the registers that a function must keep costs two nanoseconds. So Linux on x86-64
// and on 64-bit ARM have a switch of their own here; everything else takes ucontext.

#ifndef MINIALEX_FIBERS_HPP
#define MINIALEX_FIBERS_HPP

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__)) && !defined(MINIALEX_UCONTEXT)
#define MINIALEX_OWN_SWITCH 1
#else
#include <ucontext.h>
#endif

namespace minialex {

// Only touched pages cost memory, so this can be generous: printf alone takes several kilobytes.
const size_t STACK_BYTES = 256 * 1024;
const size_t GUARD_BYTES = 64 * 1024;  // A multiple of every page size; who runs over it gets a signal.

#ifdef MINIALEX_OWN_SWITCH

struct Fiber {
    void* stack_pointer = nullptr;
    char* stack = nullptr;
    size_t size = 0;
};

// Saves the registers that a callee must keep, stores the stack pointer at *save, and goes on at `restore`.
extern "C" void minialex_switch(void** save, void* restore);

#ifdef __x86_64__
asm(".text\n"
    ".p2align 4\n"
    ".type minialex_switch, @function\n"
    "minialex_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size minialex_switch, . - minialex_switch\n");

inline void prepare(Fiber& fiber, void (*start)()) {
    void** top = (void**)(fiber.stack + fiber.size);
    top[-1] = nullptr;  // Where `start` would return to, and what puts its frame on 16 bytes plus 8.
    top[-2] = (void*)start;
    for (int i = 3; i <= 8; ++i) top[-i] = nullptr;
    fiber.stack_pointer = top - 8;
}
#else
asm(".text\n"
    ".p2align 4\n"
    ".type minialex_switch, %function\n"
    "minialex_switch:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n"
    "  stp x25, x26, [sp, #48]\n  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
    "  ldp x19, x20, [sp]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n"
    "  ldp x25, x26, [sp, #48]\n  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n"
    ".size minialex_switch, . - minialex_switch\n");

inline void prepare(Fiber& fiber, void (*start)()) {
    void** base = (void**)(fiber.stack + fiber.size) - 20;
    for (int i = 0; i < 20; ++i) base[i] = nullptr;
    base[11] = (void*)start;  // x30, where the switch returns to.
    fiber.stack_pointer = base;
}
#endif

inline void jump(Fiber& from, Fiber& to) { minialex_switch(&from.stack_pointer, to.stack_pointer); }

#else

struct Fiber {
    ucontext_t context;
    char* stack = nullptr;
    size_t size = 0;
};

inline void prepare(Fiber& fiber, void (*start)()) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = fiber.size;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, start, 0);
}

inline void jump(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }

#endif

// Gives fiber number `number` a stack if it has none yet; they are kept from block to block and from launch
// to launch. Stacks begin at different offsets in their pages, because all at the same would share a few
// lines of the cache: a switch then takes twice as long.
inline bool has_stack(Fiber& fiber, int number) {
    if (fiber.stack) return true;
    void* memory = mmap(nullptr, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return false;
    mprotect(memory, GUARD_BYTES, PROT_NONE);
    fiber.stack = (char*)memory + GUARD_BYTES;
    fiber.size = STACK_BYTES - number * 448 % 4096;
    return true;
}

}  // namespace minialex

#endif

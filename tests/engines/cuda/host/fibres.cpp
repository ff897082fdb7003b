// Executes CUDA kernels on the host: each thread of a block is a fibre, and blocks run one at a time.
//
// __syncthreads and the warp operations are barriers: a fibre waits until all live threads of its
// block, or the lanes in the mask of its warp, have arrived. A seed determines the order of fibres
// and blocks, so that a kernel with a missing barrier computes different results for different
// seeds. A scheduling round without progress is a deadlock and aborts the process.
//
// After its first run, a fibre is resumed with _longjmp, because swapcontext makes a system call per
// switch. The address sanitizer does not support that, so it always uses swapcontext.
#include "shim.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

Dim3 gridDim, blockIdx, blockDim;

namespace host {

const Dim3* thread_index;

// The state has external linkage, so that the compiler reloads it after a switch.

constexpr int WARP = 32;
constexpr size_t STACK = 256 * 1024;

struct Barrier {
    int arrived = 0;
    unsigned long generation = 0;
    unsigned long long values[2][WARP] = {};
};

struct Fibre {
    ucontext_t context;
    jmp_buf resume_point;
    std::unique_ptr<char[]> stack;
    Dim3 thread;
    int number = 0;
    bool started = false;
    bool done = false;
    void* fake_stack = nullptr;
};

std::deque<Fibre> fibres;  // a deque does not move its elements
std::vector<Barrier> warps;
Barrier block;
Fibre* current = nullptr;
ucontext_t scheduler;
jmp_buf scheduler_point;
void (*body)(void*);
void* body_argument;
int live_threads = 0;
bool progress = false;
std::mt19937 random_order;
#if defined(__SANITIZE_ADDRESS__)
void* scheduler_fake = nullptr;
const void* scheduler_stack = nullptr;
size_t scheduler_size = 0;
#endif

void yield_to_scheduler() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&current->fake_stack, scheduler_stack, scheduler_size);
    swapcontext(&current->context, &scheduler);
    __sanitizer_finish_switch_fiber(current->fake_stack, nullptr, nullptr);
#else
    if (!_setjmp(current->resume_point)) {
        _longjmp(scheduler_point, 1);
    }
#endif
}

void resume(Fibre& fibre) {
    current = &fibre;
    thread_index = &fibre.thread;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&scheduler_fake, fibre.stack.get(), STACK);
    swapcontext(&scheduler, &fibre.context);
    __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
#else
    if (!_setjmp(scheduler_point)) {
        if (fibre.started) {
            _longjmp(fibre.resume_point, 1);
        }
        fibre.started = true;
        setcontext(&fibre.context);
    }
#endif
}

void wait_for(const Barrier& barrier, unsigned long generation) {
    while (barrier.generation == generation) {
        yield_to_scheduler();
    }
}

void release(Barrier& barrier) {
    barrier.arrived = 0;
    ++barrier.generation;
    progress = true;
}

// Entry point of a fibre, which executes one thread of each block and is then reused.
void enter() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
    for (;;) {
        body(body_argument);
        current->done = true;
        progress = true;
        if (--live_threads > 0 && block.arrived == live_threads) {
            release(block);
        }
        yield_to_scheduler();
    }
}

void create_context(Fibre& fibre) {
    fibre.stack.reset(new char[STACK]);
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.get();
    fibre.context.uc_stack.ss_size = STACK;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, enter, 0);
}

void prepare(int threads) {
    fibres.resize(std::max<size_t>(fibres.size(), threads));
    warps.assign((threads + WARP - 1) / WARP, Barrier());
    block = Barrier();
    live_threads = threads;
    for (int i = 0; i < threads; ++i) {
        Fibre& fibre = fibres[i];
        fibre.thread = {(unsigned)i, 0, 0};
        fibre.number = i;
        fibre.done = false;
        if (!fibre.stack) {
            create_context(fibre);
        }
    }
}

void run_block(int threads) {
    prepare(threads);
    std::vector<int> order(threads);
    for (int i = 0; i < threads; ++i) {
        order[i] = i;
    }
    std::shuffle(order.begin(), order.end(), random_order);
    while (live_threads > 0) {
        progress = false;
        for (int i : order) {
            if (!fibres[i].done) {
                resume(fibres[i]);
            }
        }
        if (!progress) {
            fprintf(stderr, "deadlock: %d threads wait at barriers\n", live_threads);
            abort();
        }
    }
}

void block_barrier() {
    const unsigned long generation = block.generation;
    progress = true;
    if (++block.arrived == live_threads) {
        release(block);
    } else {
        wait_for(block, generation);
    }
}

const unsigned long long* exchange(unsigned mask, unsigned long long value) {
    if (!((mask >> lane()) & 1)) {
        fprintf(stderr, "a lane that is not in its mask called a warp operation\n");
        abort();
    }
    Barrier& warp = warps[current->number / WARP];
    const unsigned long generation = warp.generation;
    warp.values[generation & 1][lane()] = value;
    progress = true;
    if (++warp.arrived == __builtin_popcount(mask)) {
        release(warp);
    } else {
        wait_for(warp, generation);
    }
    return warp.values[generation & 1];
}

int lane() { return current->number % WARP; }

void run_grid(void (*kernel)(void*), void* argument, Dim3 grid, int threads, unsigned seed) {
    random_order.seed(seed);
    gridDim = grid;
    blockDim = {(unsigned)threads, 1, 1};
    body = kernel;
    body_argument = argument;
    std::vector<Dim3> blocks;
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) blocks.push_back({x, y, z});
    std::shuffle(blocks.begin(), blocks.end(), random_order);
    for (const Dim3& index : blocks) {
        blockIdx = index;
        run_block(threads);
    }
}

}  // namespace host

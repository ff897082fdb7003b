// Runs CUDA kernels on the host: every thread of a block is a fibre, blocks run one by one.
//
// __syncthreads and the warp operations are meeting points: a fibre waits there until all living
// threads of its block (or the named lanes of its warp) have come. The order in which fibres and
// blocks run is drawn from a seed, so that a kernel that needs a barrier it does not have gives
// another answer under another seed. A round in which nobody gets on is a deadlock and aborts.
#pragma once

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <random>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(n)
#define __shared__ static

inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    return bits;
}

inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

struct Dim3 {
    unsigned x, y, z;
};

namespace host {

constexpr int WARP = 32;
constexpr size_t STACK = 256 * 1024;

struct Meeting {
    int arrived = 0;
    unsigned long turn = 0;
    unsigned long long values[2][WARP] = {};
};

struct Fibre {
    ucontext_t context;
    std::vector<char> stack;
    Dim3 thread;
    int number = 0;
    bool done = false;
    void* fake_stack = nullptr;
};

inline std::vector<Fibre> fibres;
inline std::vector<Meeting> warps;
inline Meeting block_meeting;
inline Fibre* current = nullptr;
inline ucontext_t scheduler;
inline std::function<void()> body;
inline int living = 0;
inline bool progress = false;
inline std::mt19937 random_order;
inline void* scheduler_fake = nullptr;
inline const void* scheduler_stack = nullptr;
inline size_t scheduler_size = 0;

inline void yield_to_scheduler() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(current->done ? nullptr : &current->fake_stack,
                                   scheduler_stack, scheduler_size);
#endif
    swapcontext(&current->context, &scheduler);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(current->fake_stack, nullptr, nullptr);
#endif
}

inline void wait_turn(const Meeting& meeting, unsigned long turn) {
    while (meeting.turn == turn) {
        yield_to_scheduler();
    }
}

inline void release(Meeting& meeting) {
    meeting.arrived = 0;
    ++meeting.turn;
    progress = true;
}

inline void block_barrier() {
    const unsigned long turn = block_meeting.turn;
    progress = true;
    if (++block_meeting.arrived == living) {
        release(block_meeting);
    } else {
        wait_turn(block_meeting, turn);
    }
}

// Lanes of `mask` put a value down and, when all have, see each other's.
inline const unsigned long long* exchange(unsigned mask, unsigned long long value) {
    const int lane = current->number % WARP;
    if (!((mask >> lane) & 1)) {
        fprintf(stderr, "a lane outside its own mask called a warp operation\n");
        abort();
    }
    Meeting& warp = warps[current->number / WARP];
    const unsigned long turn = warp.turn;
    warp.values[turn & 1][lane] = value;
    progress = true;
    if (++warp.arrived == __builtin_popcount(mask)) {
        release(warp);
    } else {
        wait_turn(warp, turn);
    }
    return warp.values[turn & 1];
}

inline void enter() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
    body();
    current->done = true;
    progress = true;
    if (--living > 0 && block_meeting.arrived == living) {
        release(block_meeting);
    }
    yield_to_scheduler();
}

inline void resume(Fibre& fibre) {
    current = &fibre;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&scheduler_fake, fibre.stack.data(), fibre.stack.size());
#endif
    swapcontext(&scheduler, &fibre.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
#endif
}

inline void prepare(int threads) {
    fibres.resize(std::max<size_t>(fibres.size(), threads));
    warps.assign((threads + WARP - 1) / WARP, Meeting());
    block_meeting = Meeting();
    living = threads;
    for (int i = 0; i < threads; ++i) {
        Fibre& fibre = fibres[i];
        fibre.stack.resize(STACK);
        fibre.thread = {(unsigned)i, 0, 0};
        fibre.number = i;
        fibre.done = false;
        fibre.fake_stack = nullptr;
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack.data();
        fibre.context.uc_stack.ss_size = fibre.stack.size();
        fibre.context.uc_link = nullptr;
        makecontext(&fibre.context, enter, 0);
    }
}

inline void run_block(int threads) {
    prepare(threads);
    std::vector<int> order(threads);
    for (int i = 0; i < threads; ++i) {
        order[i] = i;
    }
    std::shuffle(order.begin(), order.end(), random_order);
    while (living > 0) {
        progress = false;
        for (int i : order) {
            if (!fibres[i].done) {
                resume(fibres[i]);
            }
        }
        if (!progress) {
            fprintf(stderr, "deadlock: %d threads wait for each other\n", living);
            abort();
        }
    }
}

}  // namespace host

inline Dim3 gridDim, blockIdx, blockDim;
#define threadIdx (host::current->thread)

// Launches kernel(args...) over a grid, blocks in an order drawn from the seed.
template <typename Kernel, typename... Args>
void launch(Kernel kernel, Dim3 grid, int threads, unsigned seed, Args... args) {
    host::random_order.seed(seed);
    gridDim = grid;
    blockDim = {(unsigned)threads, 1, 1};
    host::body = [&] { kernel(args...); };
    std::vector<Dim3> blocks;
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) blocks.push_back({x, y, z});
    std::shuffle(blocks.begin(), blocks.end(), host::random_order);
    for (const Dim3& block : blocks) {
        blockIdx = block;
        host::run_block(threads);
    }
}

inline void __syncthreads() { host::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { host::exchange(mask, 0); }
inline void __threadfence() {}

inline unsigned __ballot_sync(unsigned mask, bool flag) {
    const unsigned long long* flags = host::exchange(mask, flag);
    unsigned bits = 0;
    for (int lane = 0; lane < host::WARP; ++lane) {
        bits |= ((mask >> lane) & 1) && flags[lane] ? 1u << lane : 0;
    }
    return bits;
}

inline unsigned __shfl_sync(unsigned mask, unsigned value, int lane) {
    return (unsigned)host::exchange(mask, value)[lane & 31];
}

inline unsigned __shfl_up_sync(unsigned mask, unsigned value, int distance) {
    const int lane = host::current->number % host::WARP;
    const unsigned long long* values = host::exchange(mask, value);
    return (unsigned)values[lane >= distance ? lane - distance : lane];
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }

inline unsigned atomicAdd(unsigned* at, unsigned value) {
    const unsigned before = *at;
    *at = before + value;
    return before;
}

// CUDA's built-in variables and functions for kernels that are compiled for the host.
//
// The scheduler that executes the threads is in fibres.cpp and compiled once; this header is kept
// small because the tests compile the kernels with many settings.
#pragma once

#include <math.h>
#include <string.h>

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(n)
#define __shared__ static

struct Dim3 {
    unsigned x, y, z;
};

namespace host {

extern const Dim3* thread_index;

// Execute `body(argument)` for each thread of a grid; the seed determines the order.
void run_grid(void (*body)(void*), void* argument, Dim3 grid, int threads, unsigned seed);

// Wait for all live threads of the block.
void block_barrier();

// Exchange a value between the lanes of `mask`; return the values by lane once all have arrived.
const unsigned long long* exchange(unsigned mask, unsigned long long value);

// Return the lane of the current thread.
int lane();

}  // namespace host

extern Dim3 gridDim, blockIdx, blockDim;
#define threadIdx (*host::thread_index)

// Launch kernel(args...) over a grid.
template <typename Kernel, typename... Args>
void launch(Kernel kernel, Dim3 grid, int threads, unsigned seed, Args... args) {
    auto body = [=] { kernel(args...); };
    host::run_grid([](void* argument) { (*(decltype(body)*)argument)(); }, &body, grid, threads,
                   seed);
}

struct alignas(8) uint2 {
    unsigned x, y;
};

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

template <typename T>
inline T __ldg(const T* address) {
    return *address;
}

// Sum of two bytes of a word, weighted by two 16-bit numbers.
inline unsigned __dp2a_lo(unsigned weights, unsigned bytes, unsigned sum) {
    return sum + (weights & 0xffff) * (bytes & 0xff) + (weights >> 16) * (bytes >> 8 & 0xff);
}

inline unsigned __dp2a_hi(unsigned weights, unsigned bytes, unsigned sum) {
    return __dp2a_lo(weights, bytes >> 16, sum);
}

inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)((((unsigned long long)high << 32) | low) >> (shift & 31));
}

inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    const unsigned long long bytes = ((unsigned long long)high << 32) | low;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        result |= (unsigned)(bytes >> (8 * (selector >> (4 * i) & 7)) & 0xff) << (8 * i);
    }
    return result;
}

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

inline void __syncthreads() { host::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { host::exchange(mask, 0); }
inline void __threadfence() {}

inline unsigned __ballot_sync(unsigned mask, bool flag) {
    const unsigned long long* flags = host::exchange(mask, flag);
    unsigned bits = 0;
    for (int lane = 0; lane < 32; ++lane) {
        bits |= ((mask >> lane) & 1) && flags[lane] ? 1u << lane : 0;
    }
    return bits;
}

inline unsigned __shfl_sync(unsigned mask, unsigned value, int lane) {
    return (unsigned)host::exchange(mask, value)[lane & 31];
}

inline unsigned __shfl_up_sync(unsigned mask, unsigned value, int distance) {
    const int lane = host::lane();
    const unsigned long long* values = host::exchange(mask, value);
    return (unsigned)values[lane >= distance ? lane - distance : lane];
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }

inline unsigned atomicAdd(unsigned* target, unsigned value) {
    const unsigned before = *target;
    *target = before + value;
    return before;
}

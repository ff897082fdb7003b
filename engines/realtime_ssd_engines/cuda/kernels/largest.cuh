// Selects and sorts the largest of many 64-bit keys: radix selection, then a bitonic sort.
//
// Must be called by all SUPPRESS_THREADS threads of a block; at most SORT_SIZE keys are selected.
// Keys are distinct and never 0, so the result does not depend on the order of the threads.
#pragma once

#include "common.cuh"

#define LOADS 8  // outstanding loads per thread

// Shared memory of a selection.
struct Sorter {
    u64 keys[SORT_SIZE];
    u32 histogram[256];
    u64 prefix;
    u32 remaining;
    u32 filled;
    u32 exact;
};

// Call `visit` with each key of a list. The list is volatile because other blocks of the same
// launch may have written it and L1 may be stale. Loads are issued in groups to overlap latency.
template <typename Visit>
static __device__ __forceinline__ void for_each_key(
    const volatile u64* list, int count, Visit visit) {
    for (int i = (int)threadIdx.x; i < count; i += LOADS * SUPPRESS_THREADS) {
        u64 keys[LOADS];
#pragma unroll
        for (int k = 0; k < LOADS; ++k) {
            const int index = i + k * SUPPRESS_THREADS;
            keys[k] = index < count ? list[index] : 0;
        }
#pragma unroll
        for (int k = 0; k < LOADS; ++k) {
            if (keys[k] != 0) {
                visit(keys[k]);
            }
        }
    }
}

// Find the value of the current digit that contains the `remaining`-th largest key, from the
// digit's histogram. Called by the first warp; lane 0 covers the largest digit values.
static __device__ __forceinline__ void pick_digit(Sorter& s, int shift) {
    const int lane = (int)threadIdx.x;
    const int top = 255 - lane * 8;
    u32 sum = 0;
    for (int i = 0; i < 8; ++i) {
        sum += s.histogram[top - i];
    }
    u32 inclusive = sum;  // prefix sum over the lanes
    for (int distance = 1; distance < 32; distance *= 2) {
        const u32 lower = __shfl_up_sync(FULL_WARP, inclusive, distance);
        inclusive += lane >= distance ? lower : 0;
    }
    const u32 remaining = s.remaining;
    const u32 lanes = __ballot_sync(FULL_WARP, inclusive >= remaining);
    if (lane != __ffs((int)lanes) - 1) {
        return;
    }
    u32 above = inclusive - sum;
    int digit = top;
    while (above + s.histogram[digit] < remaining) {
        above += s.histogram[digit--];
    }
    s.remaining = remaining - above;
    s.prefix |= (u64)digit << shift;
    s.exact = s.histogram[digit] == s.remaining;
}

// Radix selection: store the `limit` largest of `count` distinct keys in s.keys, unsorted.
static __device__ void select_largest(
    Sorter& s, const volatile u64* list, int count, int limit) {
    const int thread = (int)threadIdx.x;
    if (thread == 0) {
        s.prefix = 0;
        s.remaining = (u32)limit;
        s.filled = 0;
        s.exact = 0;
    }
    for (int shift = 56; shift >= 0; shift -= 8) {
        for (int i = thread; i < 256; i += SUPPRESS_THREADS) {
            s.histogram[i] = 0;
        }
        __syncthreads();
        if (s.exact) {
            break;
        }
        const u64 prefix = s.prefix;
        for_each_key(list, count, [&](u64 key) {
            if (shift == 56 || ((key ^ prefix) >> (shift + 8)) == 0) {
                atomicAdd(&s.histogram[(key >> shift) & 255], 1u);
            }
        });
        __syncthreads();
        if (thread < 32) {
            pick_digit(s, shift);
        }
        __syncthreads();
    }
    const u64 smallest = s.prefix;
    for_each_key(list, count, [&](u64 key) {
        if (key >= smallest) {
            s.keys[atomicAdd(&s.filled, 1u)] = key;
        }
    });
}

// Bitonic sort of s.keys in descending order, zero-padded to a power of two.
static __device__ void sort_keys(Sorter& s, int count) {
    int size = 2;
    while (size < count) {
        size *= 2;
    }
    for (int i = count + (int)threadIdx.x; i < size; i += SUPPRESS_THREADS) {
        s.keys[i] = 0;
    }
    for (int span = 2; span <= size; span *= 2) {
        for (int distance = span / 2; distance > 0; distance /= 2) {
            __syncthreads();
            for (int i = (int)threadIdx.x; i < size / 2; i += SUPPRESS_THREADS) {
                const int a = 2 * i - (i & (distance - 1));
                const int b = a + distance;
                const u64 first = s.keys[a], second = s.keys[b];
                if ((first < second) == ((a & span) == 0)) {
                    s.keys[a] = second;
                    s.keys[b] = first;
                }
            }
        }
    }
    __syncthreads();
}

// Load the largest `limit` keys of a list into s.keys, sorted; return their number.
static __device__ int load_largest(
    Sorter& s, const volatile u64* list, int count, int limit) {
    if (count <= SORT_SIZE) {
        for (int i = (int)threadIdx.x; i < count; i += SUPPRESS_THREADS) {
            s.keys[i] = list[i];
        }
    } else {
        select_largest(s, list, count, limit);
        count = limit;
    }
    __syncthreads();
    sort_keys(s, count);
    return count < limit ? count : limit;
}

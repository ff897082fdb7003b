// The largest of many 64-bit keys, in order: radix selection, then a bitonic sort.
//
// Called by all SUPPRESS_THREADS threads of a block together; SORT_SIZE keys fit. Keys are all
// different and never 0, so the answer does not depend on the order in which threads come.
#pragma once

#include "common.cuh"

#define LOADS 8  // of a thread under way at once

// Shared memory of one selection.
struct Sorter {
    u64 keys[SORT_SIZE];
    u32 histogram[256];
    u64 prefix;
    u32 need;
    u32 filled;
    u32 exact;
};

// Hand every key of a list to `use`. The list is volatile because other blocks of the same launch
// may have written it: L1 could be stale. Loads are issued together, so that their waits overlap.
template <typename Use>
static __device__ __forceinline__ void for_each_key(const volatile u64* list, int count, Use use) {
    for (int i = (int)threadIdx.x; i < count; i += LOADS * SUPPRESS_THREADS) {
        u64 keys[LOADS];
#pragma unroll
        for (int k = 0; k < LOADS; ++k) {
            const int at = i + k * SUPPRESS_THREADS;
            keys[k] = at < count ? list[at] : 0;
        }
#pragma unroll
        for (int k = 0; k < LOADS; ++k) {
            if (keys[k] != 0) {
                use(keys[k]);
            }
        }
    }
}

// Find, from the histogram of one digit, the digit in which the `need`-th largest key lies.
// Called by the first warp; lane 0 holds the largest digits.
static __device__ __forceinline__ void pick_digit(Sorter& s, int shift) {
    const int lane = (int)threadIdx.x;
    const int top = 255 - lane * 8;
    u32 sum = 0;
    for (int i = 0; i < 8; ++i) {
        sum += s.histogram[top - i];
    }
    u32 upto = sum;
    for (int distance = 1; distance < 32; distance *= 2) {
        const u32 other = __shfl_up_sync(FULL_WARP, upto, distance);
        upto += lane >= distance ? other : 0;
    }
    const u32 need = s.need;
    const u32 reached = __ballot_sync(FULL_WARP, upto >= need);
    if (lane != __ffs((int)reached) - 1) {
        return;
    }
    u32 above = upto - sum;
    int digit = top;
    while (above + s.histogram[digit] < need) {
        above += s.histogram[digit--];
    }
    s.need = need - above;
    s.prefix |= (u64)digit << shift;
    s.exact = s.histogram[digit] == s.need;
}

// Radix selection: leave the `wanted` largest of `count` distinct keys in s.keys, unsorted.
static __device__ void select_largest(
    Sorter& s, const volatile u64* list, int count, int wanted) {
    const int thread = (int)threadIdx.x;
    if (thread == 0) {
        s.prefix = 0;
        s.need = (u32)wanted;
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

// Bitonic sort of s.keys, largest first; `count` is filled up with zeros to a power of two.
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

// Load the best `limit` of a list into s.keys, sorted; returns how many there are.
static __device__ int best_keys(
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

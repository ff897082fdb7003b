// Raw SSD heads -> detections, in two kernels for a whole batch.
//
//   ssd_select    activates the scores of every default box and lists, for each class, the boxes
//                 above the threshold as sortable 64-bit keys
//   ssd_suppress  one block a class: best TOP_K of the class, decode just these, NMS by bitmask;
//                 the block that finishes last in an image merges the classes and keeps the best
//
// The steps and the order of the answer (score, then default box, then class) are those of
// realtime_ssd/core/postprocess.py. Lists are filled by atomics in any order and sorted afterwards by
// keys that are all different, so the answer is the same on every run.
//
// Compile-time settings: SCORE_T, OFFSET_T (float or half_t), CLASSES, BACKGROUND (-1: none),
// ACTIVATION (0 none, 1 softmax, 2 sigmoid), CODING (0 x y w h, 1 y x h w, 2 corners), CLIP (1:
// clip before NMS), TOP_K, KEEP (both at most 1024), VARIANCE_X, _Y, _W, _H.

#include "common.cuh"

#ifndef SCORE_T
#define SCORE_T float
#endif
#ifndef OFFSET_T
#define OFFSET_T float
#endif
#ifndef CLASSES
#define CLASSES 21
#endif
#ifndef BACKGROUND
#define BACKGROUND 0
#endif
#ifndef ACTIVATION
#define ACTIVATION 1
#endif
#ifndef CODING
#define CODING 0
#endif
#ifndef CLIP
#define CLIP 0
#endif
#ifndef TOP_K
#define TOP_K 400
#endif
#ifndef KEEP
#define KEEP 200
#endif

#ifndef VARIANCE_X
#define VARIANCE_X 0.1f
#define VARIANCE_Y 0.1f
#define VARIANCE_W 0.2f
#define VARIANCE_H 0.2f
#endif

// Default boxes of a block of ssd_select: its scores fit into 48 KiB of shared memory.
#define SELECT_ROWS (CLASSES <= 128 ? 64 : CLASSES <= 256 ? 32 : CLASSES <= 1024 ? 8 : 2)
#define SUPPRESS_THREADS 256
#define LARGER (TOP_K > KEEP ? TOP_K : KEEP)
#define SORT_SIZE (LARGER <= 256 ? 256 : LARGER <= 512 ? 512 : 1024)
// An odd distance between rows keeps the 32 banks of shared memory apart.
#define ROW_STRIDE (CLASSES | 1)
#define ROW_WORDS 8
// Threads of ssd_select that work together: a warp, or the whole of a smaller block.
#define GROUP (SELECT_ROWS < 32 ? SELECT_ROWS : 32)
#define GROUP_MASK (GROUP == 32 ? FULL_WARP : (1u << (GROUP & 31)) - 1)
#define BATCH 8  // loads of a thread under way at once

#include "largest.cuh"

static_assert(TOP_K <= 1024 && KEEP <= 1024, "a warp's bitmask holds 1024 boxes");
static_assert(CLASSES <= 4096, "a key has 12 bits for the class");

struct alignas(16) Box {
    float x1, y1, x2, y2;
};

// The layout is mirrored by engines/realtime_ssd_engines/cuda/kernel_params.py.
struct DetectParams {
    u64 scores;         // SCORE_T, images x boxes x CLASSES
    u64 offsets;        // OFFSET_T, images x boxes x 4
    u64 default_boxes;  // float, boxes x 4 (cx, cy, w, h)
    u64 wanted;         // u32 bits, one a class
    u64 candidates;     // u64 keys, images x CLASSES x capacity
    u64 counters;       // u32, images x (CLASSES + 4); all zero before the first run
    u64 survivors;      // u64 keys, images x CLASSES x KEEP
    u64 output;         // u32, images x (KEEP + 1) x ROW_WORDS
    int boxes;
    int capacity;
    float score_threshold;
    float nms_threshold;
    float score_margin;     // a logit must exceed background + margin (softmax) or margin (sigmoid)
    int score_class_stride; // in elements; 1 and CLASSES for a head laid out boxes x classes
    int score_box_stride;
    int reserved;
};

// Behind the CLASSES list lengths of an image: what its blocks count together.
enum { DONE = CLASSES, SURVIVORS, OVERFLOWN, BROKEN, COUNTERS_END };

static __device__ __forceinline__ u32* counters_of(const DetectParams& p, int image) {
    return (u32*)p.counters + (long long)image * COUNTERS_END;
}

static __device__ __forceinline__ u64 make_key(float score, int box, int label) {
    return ((u64)__float_as_uint(score) << 32) | ((u64)(0xfffff - box) << 12) | (u64)(0xfff - label);
}

static __device__ __forceinline__ int key_box(u64 key) {
    return 0xfffff - (int)((key >> 12) & 0xfffff);
}

static __device__ __forceinline__ int key_label(u64 key) {
    return 0xfff - (int)(key & 0xfff);
}

// Softmax of one row in place. Tells whether a class can pass the threshold: rows without any
// chance, nearly all, are left before the exponentials.
static __device__ __forceinline__ bool softmax(const DetectParams& p, float* row) {
    const float bar = BACKGROUND >= 0 ? row[BACKGROUND >= 0 ? BACKGROUND : 0] + p.score_margin
                                      : LOWEST;
    float best = LOWEST;
    float chance = LOWEST;
    for (int c = 0; c < CLASSES; ++c) {
        best = fmaxf(best, row[c]);
        chance = c == BACKGROUND ? chance : fmaxf(chance, row[c]);
    }
    if (!(chance > bar)) {
        return false;
    }
    float sum = 0.0f;
    for (int c = 0; c < CLASSES; ++c) {
        row[c] = expf(row[c] - best);
        sum += row[c];
    }
    for (int c = 0; c < CLASSES; ++c) {
        row[c] = row[c] / sum;
    }
    return true;
}

// Sigmoid of the values of a row that can pass the threshold; tells whether there is one.
static __device__ __forceinline__ bool sigmoid(const DetectParams& p, float* row) {
    bool chance = false;
    for (int c = 0; c < CLASSES; ++c) {
        if (row[c] > p.score_margin) {
            row[c] = 1.0f / (1.0f + expf(-row[c]));
            chance = true;
        } else {
            row[c] = LOWEST;
        }
    }
    return chance;
}

static __device__ __forceinline__ bool has_nan(
    const DetectParams& p, int image, int box, const float* row) {
    const OFFSET_T* raw = (const OFFSET_T*)p.offsets + ((long long)image * p.boxes + box) * 4;
    bool found = false;
    for (int i = 0; i < 4; ++i) {
        const float value = to_float(raw[i]);
        found = found || value != value;
    }
    for (int c = 0; c < CLASSES; ++c) {
        found = found || row[c] != row[c];
    }
    return found;
}

// List the candidates among the rows of a group, class by class. Lane k looks after class k of
// GROUP classes at a time: it takes the places for all rows with one atomic.
static __device__ __forceinline__ void offer_rows(
    const DetectParams& p, int image, int box, bool chance, const float* row) {
    const int lane = (int)threadIdx.x % GROUP;
    const u32* wanted = (const u32*)p.wanted;  // without the background
    for (int base = 0; base < CLASSES; base += GROUP) {
        const u32 classes = wanted[base / 32] >> (base % 32);
        u32 mine = 0;
        for (int k = 0; k < GROUP && base + k < CLASSES; ++k) {
            const bool good =
                chance && ((classes >> k) & 1) && row[base + k] > p.score_threshold;
            const u32 rows = __ballot_sync(GROUP_MASK, good);
            mine = lane == k ? rows : mine;
        }
        u32 first = 0;
        if (mine != 0) {
            first = atomicAdd(&counters_of(p, image)[base + lane], (u32)__popc(mine));
        }
        u32 open = __ballot_sync(GROUP_MASK, mine != 0);
        for (; open != 0; open &= open - 1) {
            const int k = __ffs((int)open) - 1, label = base + k;
            const u32 rows = __shfl_sync(GROUP_MASK, mine, k);
            const u32 start = __shfl_sync(GROUP_MASK, first, k);
            const u32 place = start + (u32)__popc(rows & ((1u << lane) - 1));
            if (((rows >> lane) & 1) && place < (u32)p.capacity) {
                u64* list = (u64*)p.candidates + ((long long)image * CLASSES + label) * p.capacity;
                list[place] = make_key(row[label], box, label);
            }
        }
    }
}

// Bring the rows of this block to shared memory with neighbouring threads on neighbouring values:
// classes first where those lie side by side, else default boxes first. Loads are issued together,
// so that their waits overlap.
template <bool CLASSES_FIRST>
static __device__ __forceinline__ void load_rows(
    const DetectParams& p, int image, int first, int rows, float* tile) {
    const SCORE_T* scores = (const SCORE_T*)p.scores + (long long)image * p.boxes * CLASSES;
    for (int i = (int)threadIdx.x; i < rows * CLASSES; i += BATCH * SELECT_ROWS) {
        SCORE_T values[BATCH];
        int targets[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; ++k) {
            const int at = i + k * SELECT_ROWS;
            targets[k] = -1;
            if (at < rows * CLASSES) {
                const int row = CLASSES_FIRST ? at / CLASSES : at % rows;
                const int label = CLASSES_FIRST ? at % CLASSES : at / rows;
                targets[k] = row * ROW_STRIDE + label;
                values[k] = scores[(long long)(first + row) * p.score_box_stride +
                                   (long long)label * p.score_class_stride];
            }
        }
#pragma unroll
        for (int k = 0; k < BATCH; ++k) {
            if (targets[k] >= 0) {
                tile[targets[k]] = to_float(values[k]);
            }
        }
    }
}

// Grid: (ceil(boxes / SELECT_ROWS), images); SELECT_ROWS threads, one a default box.
extern "C" __global__ void __launch_bounds__(SELECT_ROWS) ssd_select(DetectParams p) {
    __shared__ float tile[SELECT_ROWS * ROW_STRIDE];
    const int image = (int)blockIdx.y;
    const int first = (int)blockIdx.x * SELECT_ROWS;
    const int rows = p.boxes - first < SELECT_ROWS ? p.boxes - first : SELECT_ROWS;
    if (p.score_class_stride == 1) {
        load_rows<true>(p, image, first, rows, tile);
    } else {
        load_rows<false>(p, image, first, rows, tile);
    }
    __syncthreads();
    const int box = first + (int)threadIdx.x;
    float* row = tile + threadIdx.x * ROW_STRIDE;
    bool chance = (int)threadIdx.x < rows;
    if (chance && has_nan(p, image, box, row)) {
        atomicAdd(&counters_of(p, image)[BROKEN], 1u);
        chance = false;
    }
    if (ACTIVATION != 0 && chance) {
        chance = ACTIVATION == 1 ? softmax(p, row) : sigmoid(p, row);
    }
    if (__ballot_sync(GROUP_MASK, chance) != 0) {
        offer_rows(p, image, box, chance, row);
    }
}

// Shared memory of one block of ssd_suppress.
struct Workspace {
    Box boxes[TOP_K];
    Sorter sorter;
    u32 mask[32 * 32];      // 32 rows x 32 words: which later boxes a box suppresses
    u32 removed[32];
    u16 order[KEEP];        // kept boxes, as places in the sorter's keys
    u32 kept;
    u32 base;
};

// Unlike fminf and fmaxf, this leaves NaN as it is.
static __device__ __forceinline__ float clip_unit(float value) {
    return !CLIP ? value : value < 0.0f ? 0.0f : value > 1.0f ? 1.0f : value;
}

// Offsets -> corners, as fractions of the network input.
static __device__ Box decode_box(const DetectParams& p, int image, int box) {
    const OFFSET_T* raw =
        (const OFFSET_T*)p.offsets + ((long long)image * p.boxes + box) * 4;
    const float v[4] = {to_float(raw[0]), to_float(raw[1]), to_float(raw[2]), to_float(raw[3])};
    Box out;
    if (CODING == 2) {
        out.x1 = v[0];
        out.y1 = v[1];
        out.x2 = v[2];
        out.y2 = v[3];
    } else {
        const float* d = (const float*)p.default_boxes + (long long)box * 4;
        const int x = CODING == 1, y = CODING == 0;
        const float cx = v[x] * VARIANCE_X * d[2] + d[0];
        const float cy = v[y] * VARIANCE_Y * d[3] + d[1];
        const float half_w = expf(v[2 + x] * VARIANCE_W) * d[2] * 0.5f;
        const float half_h = expf(v[2 + y] * VARIANCE_H) * d[3] * 0.5f;
        out.x1 = cx - half_w;
        out.y1 = cy - half_h;
        out.x2 = cx + half_w;
        out.y2 = cy + half_h;
    }
    out.x1 = clip_unit(out.x1);
    out.y1 = clip_unit(out.y1);
    out.x2 = clip_unit(out.x2);
    out.y2 = clip_unit(out.y2);
    return out;
}

// A box as NMS compares it: one that is not a number has no area and drops nobody.
static __device__ __forceinline__ Box comparable(const Box& b) {
    const bool whole = b.x1 == b.x1 && b.y1 == b.y1 && b.x2 == b.x2 && b.y2 == b.y2;
    return whole ? b : Box{0.0f, 0.0f, 0.0f, 0.0f};
}

static __device__ __forceinline__ float area_of(const Box& b) {
    return fmaxf(b.x2 - b.x1, 0.0f) * fmaxf(b.y2 - b.y1, 0.0f);
}

// IoU > threshold as float32 division decides it; the division is spared where it cannot matter.
static __device__ __forceinline__ bool overlaps(const Box& a, const Box& b, float threshold) {
    const float width = fmaxf(fminf(a.x2, b.x2) - fmaxf(a.x1, b.x1), 0.0f);
    const float height = fmaxf(fminf(a.y2, b.y2) - fmaxf(a.y1, b.y1), 0.0f);
    const float shared = width * height;
    const float joint = area_of(a) + area_of(b) - shared;
    const float excess = shared - threshold * joint;
    const float doubt = 1e-6f * joint;
    if (excess > doubt) {
        return true;
    }
    return excess < -doubt ? false : shared / joint > threshold;
}

// Fill the mask for the living boxes of one group of 32: a warp makes one word at a time.
static __device__ __forceinline__ void fill_mask(
    Workspace& s, int count, int group, u32 living, float threshold) {
    const int lane = (int)threadIdx.x & 31;
    const int words = (count + 31) / 32;
    for (int task = (int)threadIdx.x / 32; task < 32 * (words - group);
         task += SUPPRESS_THREADS / 32) {
        const int row = task & 31, word = group + task / 32;
        if (!((living >> row) & 1)) {
            continue;
        }
        const int better = group * 32 + row, worse = word * 32 + lane;
        const bool hit = worse < count && worse > better &&
                         overlaps(s.boxes[better], s.boxes[worse], threshold);
        const u32 bits = __ballot_sync(FULL_WARP, hit);
        if (lane == 0) {
            s.mask[row * 32 + word] = bits;
        }
    }
}

// Walk the living boxes of one group in order; lane w carries word w of the removed set.
static __device__ __forceinline__ void walk_group(Workspace& s, int count, int group) {
    const int lane = (int)threadIdx.x;
    const int words = (count + 31) / 32;
    const int rest = count - group * 32;
    const u32 real = rest >= 32 ? FULL_WARP : (1u << rest) - 1;
    u32 removed = s.removed[lane];
    u32 kept = s.kept;
    u32 open = ~__shfl_sync(FULL_WARP, removed, group) & real;
    while (open != 0 && kept < KEEP) {
        const int row = __ffs((int)open) - 1;
        if (lane == 0) {
            s.order[kept] = (u16)(group * 32 + row);
        }
        ++kept;
        removed |= lane >= group && lane < words ? s.mask[row * 32 + lane] : 0;
        const u32 later = row == 31 ? 0 : FULL_WARP << (row + 1);
        open = ~__shfl_sync(FULL_WARP, removed, group) & real & later;
    }
    s.removed[lane] = removed;
    __syncwarp();
    if (lane == 0) {
        s.kept = kept;
    }
}

// Greedy NMS over s.boxes (sorted); leaves the kept places in s.order and their number in s.kept.
static __device__ void suppress(Workspace& s, int count, float threshold) {
    if (threadIdx.x < 32) {
        s.removed[threadIdx.x] = 0;
    }
    if (threadIdx.x == 0) {
        s.kept = 0;
    }
    __syncthreads();
    for (int group = 0; group * 32 < count && s.kept < KEEP; ++group) {
        const u32 living = ~s.removed[group];
        fill_mask(s, count, group, living, threshold);
        __syncthreads();
        if (threadIdx.x < 32) {
            walk_group(s, count, group);
        }
        __syncthreads();
    }
}

// The best of one class: from its candidate list to the image's list of survivors.
static __device__ void reduce_class(const DetectParams& p, Workspace& s, int image, int label) {
    u32* counters = counters_of(p, image);
    const u32 found = counters[label];
    __syncthreads();
    if (threadIdx.x == 0 && found > 0) {
        counters[label] = 0;
        if (found > (u32)p.capacity) {
            atomicAdd(&counters[OVERFLOWN], found - (u32)p.capacity);
        }
    }
    if (found == 0) {
        return;
    }
    const u64* list = (const u64*)p.candidates + ((long long)image * CLASSES + label) * p.capacity;
    const int listed = (int)(found < (u32)p.capacity ? found : (u32)p.capacity);
    const int count = best_keys(s.sorter, list, listed, TOP_K);
    for (int i = (int)threadIdx.x; i < count; i += SUPPRESS_THREADS) {
        s.boxes[i] = comparable(decode_box(p, image, key_box(s.sorter.keys[i])));
    }
    __syncthreads();
    suppress(s, count, p.nms_threshold);
    if (threadIdx.x == 0) {
        s.base = atomicAdd(&counters[SURVIVORS], s.kept);
    }
    __syncthreads();
    u64* survivors = (u64*)p.survivors + (long long)image * CLASSES * KEEP + s.base;
    for (int i = (int)threadIdx.x; i < (int)s.kept; i += SUPPRESS_THREADS) {
        survivors[i] = s.sorter.keys[s.order[i]];
    }
}

static __device__ __forceinline__ void write_row(
    const DetectParams& p, u32* row, int image, u64 key) {
    const Box box = decode_box(p, image, key_box(key));
    row[0] = __float_as_uint(box.x1);
    row[1] = __float_as_uint(box.y1);
    row[2] = __float_as_uint(box.x2);
    row[3] = __float_as_uint(box.y2);
    row[4] = (u32)(key >> 32);
    row[5] = (u32)key_label(key);
    row[6] = (u32)key_box(key);
    row[7] = 0;
}

// The best KEEP of an image over all classes. Row 0 of the output is the header: number of
// detections, candidates that found no place, default boxes with NaN scores or offsets.
static __device__ void merge_classes(const DetectParams& p, Workspace& s, int image) {
    volatile u32* counters = counters_of(p, image);
    u32* output = (u32*)p.output + (long long)image * (KEEP + 1) * ROW_WORDS;
    const u64* survivors = (const u64*)p.survivors + (long long)image * CLASSES * KEEP;
    const int count = best_keys(s.sorter, survivors, (int)counters[SURVIVORS], KEEP);
    for (int i = (int)threadIdx.x; i < count; i += SUPPRESS_THREADS) {
        write_row(p, output + (i + 1) * ROW_WORDS, image, s.sorter.keys[i]);
    }
    if (threadIdx.x == 0) {
        output[0] = (u32)count;
        output[1] = counters[OVERFLOWN];
        output[2] = counters[BROKEN];
        for (int i = 3; i < ROW_WORDS; ++i) {
            output[i] = 0;
        }
        for (int i = DONE; i < COUNTERS_END; ++i) {
            counters[i] = 0;
        }
    }
}

// Grid: (CLASSES, images); SUPPRESS_THREADS threads. Every counter is zero again at the end.
extern "C" __global__ void __launch_bounds__(SUPPRESS_THREADS) ssd_suppress(DetectParams p) {
    __shared__ Workspace s;
    __shared__ u32 finished;
    const int image = (int)blockIdx.y;
    reduce_class(p, s, image, (int)blockIdx.x);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        finished = atomicAdd(&counters_of(p, image)[DONE], 1u);
    }
    __syncthreads();
    if (finished + 1 < gridDim.x) {
        return;
    }
    __threadfence();
    merge_classes(p, s, image);
}

// Decodes raw SSD heads into detections with two kernels per batch.
//
//   ssd_select    applies the score activation to every default box and appends the boxes above the
//                 threshold to a candidate list per class, or one for all classes if AGNOSTIC, as
//                 sortable 64-bit keys
//   ssd_suppress  one block per list: selects the best TOP_K candidates, decodes only these, and
//                 runs bitmask NMS; the last block of an image merges the lists and keeps the
//                 best MAX_DETECTIONS
//
// Steps and output order (score, default box, class) match realtime_ssd/core/postprocess.py.
// Atomics fill the lists in arbitrary order; sorting by distinct keys makes the result
// deterministic.
//
// Compile-time settings: SCORE_T, OFFSET_T (float or half_t), CLASSES, BACKGROUND (-1: none),
// ACTIVATION (0 none, 1 softmax, 2 sigmoid), CODING (0 x y w h, 1 y x h w, 2 corners), CLIP (1:
// clip before NMS), TOP_K and MAX_DETECTIONS (both at most 1024), VARIANCE_X, _Y, _W, _H,
// CLASS_SCORES (1: a score threshold per class), AGNOSTIC (1: NMS treats all classes as one).

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
#ifndef MAX_DETECTIONS
#define MAX_DETECTIONS 200
#endif
#ifndef CLASS_SCORES
#define CLASS_SCORES 0
#endif
#ifndef AGNOSTIC
#define AGNOSTIC 0
#endif

#ifndef VARIANCE_X
#define VARIANCE_X 0.1f
#define VARIANCE_Y 0.1f
#define VARIANCE_W 0.2f
#define VARIANCE_H 0.2f
#endif

// Default boxes per block of ssd_select, so that its scores fit into 48 KiB of shared memory.
#define SELECT_ROWS (CLASSES <= 128 ? 64 : CLASSES <= 256 ? 32 : CLASSES <= 1024 ? 8 : 2)
#define SUPPRESS_THREADS 256
#define MAX_SORTED (TOP_K > MAX_DETECTIONS ? TOP_K : MAX_DETECTIONS)
#define SORT_SIZE (MAX_SORTED <= 256 ? 256 : MAX_SORTED <= 512 ? 512 : 1024)
// An odd row stride avoids shared-memory bank conflicts.
#define ROW_STRIDE (CLASSES | 1)
#define ROW_WORDS 8
#define MASK_WORDS ((CLASSES + 31) / 32)
// Candidate lists of an image: one per class, or one for all.
#define LISTS (AGNOSTIC ? 1 : CLASSES)
// Cooperating threads of ssd_select: a warp, or the whole block if that is smaller.
#define GROUP (SELECT_ROWS < 32 ? SELECT_ROWS : 32)
#define GROUP_MASK (GROUP == 32 ? FULL_WARP : (1u << (GROUP & 31)) - 1)
#define LOADS_IN_FLIGHT 8  // outstanding loads per thread

#include "largest.cuh"

static_assert(TOP_K <= 1024 && MAX_DETECTIONS <= 1024, "the bitmask of a warp holds 1024 boxes");
static_assert(CLASSES <= 4096, "a key has 12 bits for the class");

struct alignas(16) Box {
    float x1, y1, x2, y2;
};

// Mirrored by DETECT_PARAMS in engines/realtime_ssd_engines/cuda/kernel_params.py.
struct DetectParams {
    u64 scores;         // SCORE_T, images x boxes x CLASSES
    u64 offsets;        // OFFSET_T, images x boxes x 4
    u64 default_boxes;  // float, boxes x 4 (cx, cy, w, h)
    u64 class_mask;     // u32 words, one bit per class to detect; then CLASSES floats, the score
                        // thresholds, if CLASS_SCORES
    u64 candidates;     // u64 keys, images x LISTS x capacity
    u64 counters;       // u32, images x (CLASSES + 4); all zero before the first run
    u64 survivors;      // u64 keys, images x LISTS x MAX_DETECTIONS
    u64 output;         // u32, images x (MAX_DETECTIONS + 1) x ROW_WORDS
    int boxes;
    int capacity;
    float score_threshold;
    float iou_threshold;
    float score_margin;     // a logit must exceed background + margin (softmax) or margin (sigmoid)
    int score_class_stride; // in elements; 1 for a head with layout boxes x classes
    int score_box_stride;   // in elements; CLASSES for that layout
    int reserved;
};

// Counters of an image: CLASSES list lengths, then these, which all of its blocks share.
enum { FINISHED_BLOCKS = CLASSES, SURVIVORS, OVERFLOW_COUNT, NAN_BOXES, COUNTER_COUNT };

static __device__ __forceinline__ u32* counters_of(const DetectParams& p, int image) {
    return (u32*)p.counters + (long long)image * COUNTER_COUNT;
}

static __device__ __forceinline__ u64 make_key(float score, int box, int label) {
    return ((u64)__float_as_uint(score) << 32) | ((u64)(0xfffff - box) << 12) |
           (u64)(0xfff - label);
}

static __device__ __forceinline__ int key_box(u64 key) {
    return 0xfffff - (int)((key >> 12) & 0xfffff);
}

static __device__ __forceinline__ int key_label(u64 key) {
    return 0xfff - (int)(key & 0xfff);
}

// Softmax of one row in place; return whether a class can pass the threshold. Nearly all rows
// cannot and return before the exponentials.
static __device__ __forceinline__ bool softmax(const DetectParams& p, float* row) {
    const float min_logit = BACKGROUND >= 0 ? row[BACKGROUND >= 0 ? BACKGROUND : 0] + p.score_margin
                                            : NEG_INFINITY;
    float max_logit = NEG_INFINITY;
    float max_foreground = NEG_INFINITY;
    for (int c = 0; c < CLASSES; ++c) {
        max_logit = fmaxf(max_logit, row[c]);
        max_foreground = c == BACKGROUND ? max_foreground : fmaxf(max_foreground, row[c]);
    }
    if (!(max_foreground > min_logit)) {
        return false;
    }
    float sum = 0.0f;
    for (int c = 0; c < CLASSES; ++c) {
        row[c] = expf(row[c] - max_logit);
        sum += row[c];
    }
    for (int c = 0; c < CLASSES; ++c) {
        row[c] = row[c] / sum;
    }
    return true;
}

// Sigmoid of the values of a row that can pass the threshold; return whether there are any.
static __device__ __forceinline__ bool sigmoid(const DetectParams& p, float* row) {
    bool passes = false;
    for (int c = 0; c < CLASSES; ++c) {
        if (row[c] > p.score_margin) {
            row[c] = 1.0f / (1.0f + expf(-row[c]));
            passes = true;
        } else {
            row[c] = NEG_INFINITY;
        }
    }
    return passes;
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

static __device__ __forceinline__ int list_of(int label) {
    return AGNOSTIC ? 0 : label;
}

static __device__ __forceinline__ float threshold_of(const DetectParams& p, int label) {
    return CLASS_SCORES ? ((const float*)p.class_mask)[MASK_WORDS + label] : p.score_threshold;
}

// Append the candidates among the rows of a group to the lists of their classes. For GROUP classes
// at a time, lane k reserves list entries of class k for all rows with one atomic.
static __device__ __forceinline__ void append_candidates(
    const DetectParams& p, int image, int box, bool active, const float* row) {
    const int lane = (int)threadIdx.x % GROUP;
    const u32* mask = (const u32*)p.class_mask;  // excludes the background
    for (int base = 0; base < CLASSES; base += GROUP) {
        const u32 classes = mask[base / 32] >> (base % 32);
        u32 own_rows = 0;
        for (int k = 0; k < GROUP && base + k < CLASSES; ++k) {
            const bool is_candidate =
                active && ((classes >> k) & 1) && row[base + k] > threshold_of(p, base + k);
            const u32 rows = __ballot_sync(GROUP_MASK, is_candidate);
            own_rows = lane == k ? rows : own_rows;
        }
        u32 first = 0;
        if (own_rows != 0) {
            first = atomicAdd(&counters_of(p, image)[list_of(base + lane)], (u32)__popc(own_rows));
        }
        u32 pending = __ballot_sync(GROUP_MASK, own_rows != 0);
        for (; pending != 0; pending &= pending - 1) {
            const int k = __ffs((int)pending) - 1, label = base + k;
            const u32 rows = __shfl_sync(GROUP_MASK, own_rows, k);
            const u32 start = __shfl_sync(GROUP_MASK, first, k);
            const u32 slot = start + (u32)__popc(rows & ((1u << lane) - 1));
            if (((rows >> lane) & 1) && slot < (u32)p.capacity) {
                u64* list =
                    (u64*)p.candidates + ((long long)image * LISTS + list_of(label)) * p.capacity;
                list[slot] = make_key(row[label], box, label);
            }
        }
    }
}

// Copy the rows of this block to shared memory with coalesced loads: CLASSES_FIRST if classes are
// contiguous in memory, otherwise default boxes are. Loads are issued in groups to overlap their
// latency.
template <bool CLASSES_FIRST>
static __device__ __forceinline__ void load_rows(
    const DetectParams& p, int image, int first, int rows, float* tile) {
    const SCORE_T* scores = (const SCORE_T*)p.scores + (long long)image * p.boxes * CLASSES;
    for (int i = (int)threadIdx.x; i < rows * CLASSES; i += LOADS_IN_FLIGHT * SELECT_ROWS) {
        SCORE_T values[LOADS_IN_FLIGHT];
        int targets[LOADS_IN_FLIGHT];
#pragma unroll
        for (int k = 0; k < LOADS_IN_FLIGHT; ++k) {
            const int index = i + k * SELECT_ROWS;
            targets[k] = -1;
            if (index < rows * CLASSES) {
                const int row = CLASSES_FIRST ? index / CLASSES : index % rows;
                const int label = CLASSES_FIRST ? index % CLASSES : index / rows;
                targets[k] = row * ROW_STRIDE + label;
                values[k] = scores[(long long)(first + row) * p.score_box_stride +
                                   (long long)label * p.score_class_stride];
            }
        }
#pragma unroll
        for (int k = 0; k < LOADS_IN_FLIGHT; ++k) {
            if (targets[k] >= 0) {
                tile[targets[k]] = to_float(values[k]);
            }
        }
    }
}

// Grid: (ceil(boxes / SELECT_ROWS), images); SELECT_ROWS threads, one per default box.
extern "C" __global__ void __launch_bounds__(SELECT_ROWS) ssd_select(DetectParams p) {
    launch_next_kernel();
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
    bool active = (int)threadIdx.x < rows;
    if (active && has_nan(p, image, box, row)) {
        atomicAdd(&counters_of(p, image)[NAN_BOXES], 1u);
        active = false;
    }
    if (ACTIVATION != 0 && active) {
        active = ACTIVATION == 1 ? softmax(p, row) : sigmoid(p, row);
    }
    if (__ballot_sync(GROUP_MASK, active) != 0) {
        append_candidates(p, image, box, active, row);
    }
}

// Shared memory of a block of ssd_suppress.
struct Workspace {
    Box boxes[TOP_K];
    Sorter sorter;
    u32 mask[32 * 32];      // 32 rows x 32 words: later boxes that a box suppresses
    u32 removed[32];
    u16 order[MAX_DETECTIONS];  // kept boxes, as indices of the sorter's keys
    u32 kept;
    u32 base;
};

// Unlike fminf and fmaxf, this preserves NaN.
static __device__ __forceinline__ float clip_unit(float value) {
    return !CLIP ? value : value < 0.0f ? 0.0f : value > 1.0f ? 1.0f : value;
}

// Decode offsets to corners, as fractions of the network input.
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

// The box that NMS compares: a box with NaN has no area and suppresses nothing.
static __device__ __forceinline__ Box nms_box(const Box& b) {
    const bool valid = b.x1 == b.x1 && b.y1 == b.y1 && b.x2 == b.x2 && b.y2 == b.y2;
    return valid ? b : Box{0.0f, 0.0f, 0.0f, 0.0f};
}

static __device__ __forceinline__ float area_of(const Box& b) {
    return fmaxf(b.x2 - b.x1, 0.0f) * fmaxf(b.y2 - b.y1, 0.0f);
}

// IoU > threshold, as decided by float32 division, which is skipped unless the result is close.
static __device__ __forceinline__ bool overlaps(const Box& a, const Box& b, float threshold) {
    const float width = fmaxf(fminf(a.x2, b.x2) - fmaxf(a.x1, b.x1), 0.0f);
    const float height = fmaxf(fminf(a.y2, b.y2) - fmaxf(a.y1, b.y1), 0.0f);
    const float intersection = width * height;
    const float union_area = area_of(a) + area_of(b) - intersection;
    const float excess = intersection - threshold * union_area;
    const float error_bound = 1e-6f * union_area;
    if (excess > error_bound) {
        return true;
    }
    return excess < -error_bound ? false : intersection / union_area > threshold;
}

// Fill the mask for the active boxes of one group of 32; a warp computes one word at a time.
static __device__ __forceinline__ void fill_mask(
    Workspace& s, int count, int group, u32 active, float threshold) {
    const int lane = (int)threadIdx.x & 31;
    const int words = (count + 31) / 32;
    for (int task = (int)threadIdx.x / 32; task < 32 * (words - group);
         task += SUPPRESS_THREADS / 32) {
        const int row = task & 31, word = group + task / 32;
        if (!((active >> row) & 1)) {
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

// Visit the active boxes of one group in order; lane w holds word w of the removed set.
static __device__ __forceinline__ void visit_group(Workspace& s, int count, int group) {
    const int lane = (int)threadIdx.x;
    const int words = (count + 31) / 32;
    const int left = count - group * 32;
    const u32 valid = left >= 32 ? FULL_WARP : (1u << left) - 1;
    u32 removed = s.removed[lane];
    u32 kept = s.kept;
    u32 pending = ~__shfl_sync(FULL_WARP, removed, group) & valid;
    while (pending != 0 && kept < MAX_DETECTIONS) {
        const int row = __ffs((int)pending) - 1;
        if (lane == 0) {
            s.order[kept] = (u16)(group * 32 + row);
        }
        ++kept;
        removed |= lane >= group && lane < words ? s.mask[row * 32 + lane] : 0;
        const u32 later = row == 31 ? 0 : FULL_WARP << (row + 1);
        pending = ~__shfl_sync(FULL_WARP, removed, group) & valid & later;
    }
    s.removed[lane] = removed;
    __syncwarp();
    if (lane == 0) {
        s.kept = kept;
    }
}

// Greedy NMS over the sorted s.boxes; store the kept indices in s.order, their number in s.kept.
static __device__ void suppress(Workspace& s, int count, float threshold) {
    if (threadIdx.x < 32) {
        s.removed[threadIdx.x] = 0;
    }
    if (threadIdx.x == 0) {
        s.kept = 0;
    }
    __syncthreads();
    for (int group = 0; group * 32 < count && s.kept < MAX_DETECTIONS; ++group) {
        const u32 active = ~s.removed[group];
        fill_mask(s, count, group, active, threshold);
        __syncthreads();
        if (threadIdx.x < 32) {
            visit_group(s, count, group);
        }
        __syncthreads();
    }
}

// NMS of one list: append the kept candidates to the image's list of survivors.
static __device__ void reduce_list(const DetectParams& p, Workspace& s, int image, int index) {
    u32* counters = counters_of(p, image);
    const u32 candidates = counters[index];
    __syncthreads();
    if (threadIdx.x == 0 && candidates > 0) {
        counters[index] = 0;
        if (candidates > (u32)p.capacity) {
            atomicAdd(&counters[OVERFLOW_COUNT], candidates - (u32)p.capacity);
        }
    }
    if (candidates == 0) {
        return;
    }
    const u64* list = (const u64*)p.candidates + ((long long)image * LISTS + index) * p.capacity;
    const int listed = (int)(candidates < (u32)p.capacity ? candidates : (u32)p.capacity);
    const int count = load_largest(s.sorter, list, listed, TOP_K);
    for (int i = (int)threadIdx.x; i < count; i += SUPPRESS_THREADS) {
        s.boxes[i] = nms_box(decode_box(p, image, key_box(s.sorter.keys[i])));
    }
    __syncthreads();
    suppress(s, count, p.iou_threshold);
    if (threadIdx.x == 0) {
        s.base = atomicAdd(&counters[SURVIVORS], s.kept);
    }
    __syncthreads();
    u64* survivors = (u64*)p.survivors + (long long)image * LISTS * MAX_DETECTIONS + s.base;
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

// Write the best MAX_DETECTIONS of an image over all lists. Row 0 of the output is the header:
// number of detections, dropped candidates, default boxes with NaN in their scores or offsets.
static __device__ void merge_lists(const DetectParams& p, Workspace& s, int image) {
    volatile u32* counters = counters_of(p, image);
    u32* output = (u32*)p.output + (long long)image * (MAX_DETECTIONS + 1) * ROW_WORDS;
    const u64* survivors = (const u64*)p.survivors + (long long)image * LISTS * MAX_DETECTIONS;
    const int count = load_largest(s.sorter, survivors, (int)counters[SURVIVORS], MAX_DETECTIONS);
    for (int i = (int)threadIdx.x; i < count; i += SUPPRESS_THREADS) {
        write_row(p, output + (i + 1) * ROW_WORDS, image, s.sorter.keys[i]);
    }
    if (threadIdx.x == 0) {
        output[0] = (u32)count;
        output[1] = counters[OVERFLOW_COUNT];
        output[2] = counters[NAN_BOXES];
        for (int i = 3; i < ROW_WORDS; ++i) {
            output[i] = 0;
        }
        for (int i = FINISHED_BLOCKS; i < COUNTER_COUNT; ++i) {
            counters[i] = 0;
        }
    }
}

// Grid: (LISTS, images); SUPPRESS_THREADS threads. Resets all counters to zero.
extern "C" __global__ void __launch_bounds__(SUPPRESS_THREADS) ssd_suppress(DetectParams p) {
    wait_for_previous_kernel();
    __shared__ Workspace s;
    __shared__ u32 finished;
    const int image = (int)blockIdx.y;
    reduce_list(p, s, image, (int)blockIdx.x);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        finished = atomicAdd(&counters_of(p, image)[FINISHED_BLOCKS], 1u);
    }
    __syncthreads();
    if (finished + 1 < gridDim.x) {
        return;
    }
    __threadfence();
    merge_lists(p, s, image);
}

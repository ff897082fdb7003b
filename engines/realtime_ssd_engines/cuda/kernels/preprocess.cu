// Converts images to network input in one pass: resize, channel order, normalization, planes.
//
// The resize is bit-exact with OpenCV's INTER_LINEAR for 8-bit images (half-pixel centers, 11-bit
// weights, the same rounding), so that CPU and GPU compute the same pixels. Coordinates and weights
// come from tables that the host computes once per image size.
//
// Each thread computes one column of ROWS rows; the lanes of a warp read neighboring pixels. Pixels
// are read as aligned words, which contain up to three bytes before and after those that are needed:
// the size of allocations is a multiple of four bytes. BGR pixels are followed by eight bytes that
// can be read.
//
// Compile-time settings: OUT_T (float or half_t), SWAP_RB (1: the network expects RGB), NV12 (0: there
// are only BGR images).

#include "common.cuh"

#ifndef OUT_T
#define OUT_T float
#endif
#ifndef SWAP_RB
#define SWAP_RB 1
#endif
#ifndef NV12
#define NV12 1
#endif
#define ROWS 4           // output rows per thread, whose loads are in flight together
#define BLOCK_WIDTH 128  // threads per block, along a row

enum { FORMAT_NONE = 0, FORMAT_BGR = 1, FORMAT_NV12 = 2 };

// Pixels of one image of a batch; read from host memory, so that no copy precedes the kernel.
// FORMAT_NONE is a blank image. Mirrored by engines/realtime_ssd_engines/cuda/kernel_params.py.
struct alignas(16) Source {
    u64 plane0;     // BGR pixels, or luma
    u64 plane1;     // chroma of NV12 (interleaved U, V)
    int pitch0;     // bytes per row
    int pitch1;
    int format;
    int reserved;
};

// Conversion of NV12: y = (Y - luma_offset) * luma_scale, r = y + red_v * (V - 128) etc.
struct alignas(16) Color {
    float luma_offset;
    float luma_scale;
    float red_v;
    float green_u;
    float green_v;
    float blue_u;
    float reserved[2];
};

// Source columns of an output column: `low` and the next one, or negative outside the image, and
// their weights in units of 1/2048, as two 16-bit numbers.
struct alignas(8) ColumnTap {
    int low;
    u32 weights;
};

// Source rows of an output row, and their weights in units of 1/2048, both 0 outside the image.
struct alignas(16) RowTap {
    int upper;
    int lower;
    u32 upper_weight;
    u32 lower_weight;
};

struct InputParams {
    int width;      // of the network input
    int height;
    float mean[3];  // in output plane order
    float scale[3];
    int fill;       // letterbox fill value
};

// The tables of one image, one behind the other in device memory.
struct Tables {
    const Color* color;
    const RowTap* rows;
    const RowTap* chroma_rows;
    const ColumnTap* columns;
    const ColumnTap* chroma_columns;
};

static __device__ __forceinline__ Tables tables_of(
    const u8* tables, const InputParams& in, int image) {
    const int height = (int)sizeof(RowTap) * in.height, width = (int)sizeof(ColumnTap) * in.width;
    const int size = (int)sizeof(Color) + 2 * (height + (width + 15) / 16 * 16);
    const u8* start = tables + (long long)image * size;
    Tables t;
    t.color = (const Color*)start;
    t.rows = (const RowTap*)(start + sizeof(Color));
    t.chroma_rows = (const RowTap*)(start + sizeof(Color) + height);
    t.columns = (const ColumnTap*)(start + sizeof(Color) + 2 * height);
    t.chroma_columns = t.columns + in.width;
    return t;
}

// Load four words where the program does: they are volatile, because the compiler would move ordinary
// loads behind a branch that waits for others, and the waiting times would add up.
static __device__ __forceinline__ uint4 load_now(const void* address) {
    uint4 value;
#ifdef __CUDA_ARCH__
    asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w) : "l"(address));
#else
    value = *(const uint4*)address;
#endif
    return value;
}

static __device__ __forceinline__ ColumnTap load_column(const ColumnTap* tap) {
    const uint2 words = __ldg((const uint2*)tap);
    return {(int)words.x, words.y};
}

static __device__ __forceinline__ RowTap load_row(const RowTap* tap) {
    const uint4 words = load_now(tap);
    return {(int)words.x, (int)words.y, words.z, words.w};
}

static __device__ __forceinline__ Source load_source(const Source* source) {
    const uint4 planes = load_now(source), rest = load_now((const uint4*)source + 1);
    return {planes.x | (u64)planes.y << 32, planes.z | (u64)planes.w << 32,
            (int)rest.x, (int)rest.y, (int)rest.z, 0};
}

// A plane of an image: its aligned start, and the offset of the first pixel, below four.
struct Plane {
    const u8* start;
    u32 offset;
    u32 pitch;
};

static __device__ __forceinline__ Plane plane_at(u64 address, int pitch) {
    return {(const u8*)(address & ~3ull), (u32)address & 3, (u32)pitch};
}

static __device__ __forceinline__ bool is_outside(const RowTap& tap) {
    return (tap.upper_weight | tap.lower_weight) == 0;
}

// Offset of a byte of a row.
static __device__ __forceinline__ u32 offset_of(const Plane& plane, int row, u32 byte) {
    return plane.offset + byte + (u32)row * plane.pitch;
}

// The aligned words that contain some bytes.
struct Bytes {
    u32 words[3];
    u32 shift;  // bits before the first of them, plus a multiple of 32
};

// Load the words with 6 bytes at any offset, or with 2 or 4 without any word beside those.
template <int COUNT>
static __device__ __forceinline__ Bytes load_bytes(const Plane& plane, u32 offset) {
    const u32* words = (const u32*)(plane.start + (offset & ~3u));
    Bytes bytes;
    bytes.shift = 8 * offset;
    bytes.words[0] = __ldg(words);
    bytes.words[1] = COUNT == 6 || (offset & 3) + COUNT > 4 ? __ldg(words + 1) : 0;
    bytes.words[2] = COUNT == 6 ? __ldg(words + 2) : 0;
    return bytes;
}

// The first four bytes.
static __device__ __forceinline__ u32 first_word(const Bytes& bytes) {
    return __funnelshift_r(bytes.words[0], bytes.words[1], bytes.shift);
}

// Interpolate between rows with OpenCV's fixed-point arithmetic; 0x20000 rounds.
static __device__ __forceinline__ int mix_rows(u32 upper, u32 lower, const RowTap& tap) {
    const u32 a = tap.upper_weight * (upper >> 4);
    const u32 b = tap.lower_weight * (lower >> 4) + 0x20000u;
    return (int)(((a >> 16) + (b >> 16)) >> 2);
}

struct Mixed {
    u32 blue;
    u32 green;
    u32 red;
};

// Interpolate between the columns of a row of BGR pixels.
static __device__ __forceinline__ Mixed mix_bgr(const Bytes& bytes, u32 weights) {
    const u32 low = first_word(bytes);                                              // B G R B
    const u32 high = __funnelshift_r(bytes.words[1], bytes.words[2], bytes.shift);  // G R
    const u32 blue_green = __byte_perm(low, high, 0x4130);
    const u32 red = __byte_perm(low, high, 0x5252);
    return {__dp2a_lo(weights, blue_green, 0u), __dp2a_hi(weights, blue_green, 0u),
            __dp2a_lo(weights, red, 0u)};
}

// Interpolate between the columns of a row of luma.
static __device__ __forceinline__ u32 luma_at(const Plane& plane, u32 offset, u32 weights) {
    return __dp2a_lo(weights, first_word(load_bytes<2>(plane, offset)), 0u);
}

// Interpolate between the columns of a row of chroma: U and V.
static __device__ __forceinline__ uint2 chroma_at(const Plane& plane, u32 offset, u32 weights) {
    const u32 separated = __byte_perm(first_word(load_bytes<4>(plane, offset)), 0, 0x3120);
    uint2 chroma;
    chroma.x = __dp2a_lo(weights, separated, 0u);
    chroma.y = __dp2a_hi(weights, separated, 0u);
    return chroma;
}

static __device__ __forceinline__ int byte_of(float value) {
    return (int)rintf(fminf(fmaxf(value, 0.0f), 255.0f));
}

static __device__ __forceinline__ Color load_color(const Color* color) {
    const uint4* words = (const uint4*)color;
    const uint4 first = __ldg(words), second = __ldg(words + 1);
    return {__uint_as_float(first.x), __uint_as_float(first.y), __uint_as_float(first.z),
            __uint_as_float(first.w), __uint_as_float(second.x), __uint_as_float(second.y), {}};
}

// Output of one thread: its column in ROWS rows, fewer at the bottom.
struct Target {
    OUT_T* planes[3];
    int width;
    int first_row;
    int rows;
};

// Write a pixel, blue, green, red in 0..255, to the three planes.
static __device__ __forceinline__ void write_pixel(
    const Target& target, int row, const InputParams& in, int blue, int green, int red) {
    const int bgr[3] = {blue, green, red};
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        const float value = (float)bgr[SWAP_RB ? 2 - c : c];
        store(target.planes[c] + row * target.width, (value - in.mean[c]) * in.scale[c]);
    }
}

static __device__ __forceinline__ void fill(const Target& target, int row, const InputParams& in) {
    write_pixel(target, row, in, in.fill, in.fill, in.fill);
}

// Load the taps of a thread's rows; below the input, of its last row.
static __device__ __forceinline__ void load_rows(
    const RowTap* rows, const Target& target, RowTap taps[ROWS]) {
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        taps[i] = load_row(rows + target.first_row + (i < target.rows ? i : target.rows - 1));
    }
}

static __device__ __forceinline__ void convert_bgr(
    const Source& source, const Target& target, const InputParams& in,
    const ColumnTap& x, const RowTap y[ROWS]) {
    const Plane plane = plane_at(source.plane0, source.pitch0);
    Bytes upper[ROWS], lower[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        upper[i] = load_bytes<6>(plane, offset_of(plane, y[i].upper, 3 * (u32)x.low));
        lower[i] = load_bytes<6>(plane, offset_of(plane, y[i].lower, 3 * (u32)x.low));
    }
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        if (i >= target.rows) {
            break;
        }
        if (is_outside(y[i])) {
            fill(target, i, in);
            continue;
        }
        const Mixed a = mix_bgr(upper[i], x.weights), b = mix_bgr(lower[i], x.weights);
        write_pixel(target, i, in, mix_rows(a.blue, b.blue, y[i]),
                    mix_rows(a.green, b.green, y[i]), mix_rows(a.red, b.red, y[i]));
    }
}

// Luma and chroma are resized separately, each on its own grid, and converted at the output pixel.
static __device__ __forceinline__ void convert_nv12(
    const Source& source, const Tables& tables, const Target& target, const InputParams& in,
    const ColumnTap& x, const RowTap y[ROWS], const ColumnTap& cx) {
    const Plane luma = plane_at(source.plane0, source.pitch0);
    const Plane chroma = plane_at(source.plane1, source.pitch1);
    const Color color = load_color(tables.color);
    RowTap cy[ROWS];
    load_rows(tables.chroma_rows, target, cy);
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        if (i >= target.rows) {
            break;
        }
        if (is_outside(y[i])) {
            fill(target, i, in);
            continue;
        }
        const u32 byte = (u32)x.low, chroma_byte = 2 * (u32)cx.low;
        const u32 above = luma_at(luma, offset_of(luma, y[i].upper, byte), x.weights);
        const u32 below = luma_at(luma, offset_of(luma, y[i].lower, byte), x.weights);
        const uint2 first =
            chroma_at(chroma, offset_of(chroma, cy[i].upper, chroma_byte), cx.weights);
        const uint2 second =
            chroma_at(chroma, offset_of(chroma, cy[i].lower, chroma_byte), cx.weights);
        const float u = (float)(mix_rows(first.x, second.x, cy[i]) - 128);
        const float v = (float)(mix_rows(first.y, second.y, cy[i]) - 128);
        const float level =
            ((float)mix_rows(above, below, y[i]) - color.luma_offset) * color.luma_scale;
        write_pixel(target, i, in, byte_of(level + color.blue_u * u),
                    byte_of(level + color.green_u * u + color.green_v * v),
                    byte_of(level + color.red_v * v));
    }
}

// Grid: (ceil(width / BLOCK_WIDTH), ceil(height / ROWS), images), BLOCK_WIDTH threads. The output is
// N x 3 x height x width.
extern "C" __global__ void __launch_bounds__(BLOCK_WIDTH) ssd_preprocess(
    const Source* sources, const u8* tables, InputParams in, OUT_T* output) {
    const int column = (int)(blockIdx.x * blockDim.x + threadIdx.x), image = (int)blockIdx.z;
    if (column >= in.width) {
        return;
    }
    const Source source = load_source(sources + image);
    const Tables t = tables_of(tables, in, image);
    const ColumnTap x = load_column(t.columns + column);
    Target target;
    target.width = in.width;
    target.first_row = (int)blockIdx.y * ROWS;
    target.rows = in.height - target.first_row < ROWS ? in.height - target.first_row : ROWS;
    RowTap y[ROWS];
    load_rows(t.rows, target, y);
    const long long size = (long long)in.width * in.height;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        target.planes[c] =
            output + (3 * (long long)image + c) * size + target.first_row * in.width + column;
    }
    if (source.format == FORMAT_NONE || x.low < 0) {
        for (int i = 0; i < target.rows; ++i) {
            fill(target, i, in);
        }
    } else if (NV12 && source.format == FORMAT_NV12) {
        convert_nv12(source, t, target, in, x, y, load_column(t.chroma_columns + column));
    } else {
        convert_bgr(source, target, in, x, y);
    }
}

// Converts images to network input in one pass: resize, channel order, normalization, planes.
//
// The resize is bit-exact with OpenCV's INTER_LINEAR for 8-bit images (half-pixel centers, 11-bit
// weights, the same rounding), so that CPU and GPU compute the same pixels.
//
// Compile-time settings: OUT_T (float or half_t), SWAP_RB (1: the network expects RGB).

#include "common.cuh"

#ifndef OUT_T
#define OUT_T float
#endif
#ifndef SWAP_RB
#define SWAP_RB 1
#endif
#define PIXELS 4  // output pixels per thread, written with one vector store

enum { FORMAT_BGR = 0, FORMAT_NV12 = 1 };

// One image of a batch. It is in device memory and copied in with the pixels, so a captured graph
// handles any image size. Mirrored by engines/realtime_ssd_engines/cuda/kernel_params.py.
struct FrameParams {
    u64 plane0;     // BGR pixels, or luma
    u64 plane1;     // chroma of NV12 (interleaved U, V)
    int pitch0;     // bytes per row
    int pitch1;
    int width;      // pixels
    int height;
    int format;
    int left;       // position of the resized image in the input, in input pixels
    int top;
    int inner_width;
    int inner_height;
    int reserved;
    double scale_x;      // source pixels per input pixel, as OpenCV computes them
    double scale_y;
    double chroma_scale_x;
    double chroma_scale_y;
    float luma_offset;   // NV12 -> RGB: y = (Y - luma_offset) * luma_scale
    float luma_scale;
    float red_v;         // r = y + red_v * (V - 128)
    float green_u;
    float green_v;
    float blue_u;
};

struct InputParams {
    int width;      // of the network input
    int height;
    float mean[3];  // in output plane order
    float scale[3];
    int fill;       // letterbox fill value
};

struct Tap {
    int low;        // first source coordinate
    int high;       // second
    int weight;     // of the second coordinate, in units of 1/2048
};

// Return the source coordinates of an output coordinate. OpenCV computes them in double and rounds
// to float. The host computes the scale, because double division is slow on many GPUs. Beyond the
// border OpenCV drops the second column but blends a row with itself, which rounds differently;
// `column` selects the rule.
static __device__ __forceinline__ Tap tap_at(
    int target, double scale, int source_size, bool column) {
    const float position = (float)((target + 0.5) * scale - 0.5);
    const int low = (int)floorf(position);
    const int last = source_size - 1;
    const bool beyond = low < 0 || low >= last;
    Tap tap;
    tap.low = low < 0 ? 0 : low > last ? last : low;
    tap.high = low + 1 < 0 ? 0 : low + 1 > last ? last : low + 1;
    tap.weight = column && beyond ? 0 : (int)rintf((position - (float)low) * 2048.0f);
    return tap;
}

// Interpolate four bytes with OpenCV's fixed-point arithmetic.
static __device__ __forceinline__ int blend(int a, int b, int c, int d, int wx, int wy) {
    const int upper = a * (2048 - wx) + b * wx;
    const int lower = c * (2048 - wx) + d * wx;
    return ((((2048 - wy) * (upper >> 4)) >> 16) + ((wy * (lower >> 4)) >> 16) + 2) >> 2;
}

static __device__ __forceinline__ void bgr_at(
    const FrameParams& f, const Tap& x, const Tap& y, int out[3]) {
    const u8* upper = (const u8*)f.plane0 + (long long)y.low * f.pitch0;
    const u8* lower = (const u8*)f.plane0 + (long long)y.high * f.pitch0;
    const int left = 3 * x.low, right = 3 * x.high;
    for (int c = 0; c < 3; ++c) {
        out[c] = blend(upper[left + c], upper[right + c], lower[left + c], lower[right + c],
                       x.weight, y.weight);
    }
}

static __device__ __forceinline__ int byte_of(float value) {
    return (int)rintf(fminf(fmaxf(value, 0.0f), 255.0f));
}

// Luma and chroma are resized separately, each on its own grid, and converted at the output pixel.
static __device__ __forceinline__ void nv12_at(
    const FrameParams& f, const Tap& x, const Tap& y, const Tap& cx, const Tap& cy, int out[3]) {
    const u8* upper = (const u8*)f.plane0 + (long long)y.low * f.pitch0;
    const u8* lower = (const u8*)f.plane0 + (long long)y.high * f.pitch0;
    const int luma = blend(upper[x.low], upper[x.high], lower[x.low], lower[x.high],
                           x.weight, y.weight);
    const u8* above = (const u8*)f.plane1 + (long long)cy.low * f.pitch1;
    const u8* below = (const u8*)f.plane1 + (long long)cy.high * f.pitch1;
    int chroma[2];
    for (int c = 0; c < 2; ++c) {
        const int left = 2 * cx.low + c, right = 2 * cx.high + c;
        chroma[c] = blend(above[left], above[right], below[left], below[right],
                          cx.weight, cy.weight) - 128;
    }
    const float level = ((float)luma - f.luma_offset) * f.luma_scale;
    out[0] = byte_of(level + f.blue_u * (float)chroma[0]);
    out[1] = byte_of(level + f.green_u * (float)chroma[0] + f.green_v * (float)chroma[1]);
    out[2] = byte_of(level + f.red_v * (float)chroma[1]);
}

// Compute one output pixel as blue, green, red in 0..255.
static __device__ __forceinline__ void pixel_at(
    const FrameParams& f, const InputParams& in, int column, const Tap& y, const Tap& cy,
    bool inside_rows, int out[3]) {
    const int x = column - f.left;
    if (!inside_rows || x < 0 || x >= f.inner_width) {
        out[0] = out[1] = out[2] = in.fill;
        return;
    }
    const Tap tx = tap_at(x, f.scale_x, f.width, true);
    if (f.format == FORMAT_NV12) {
        const Tap cx = tap_at(x, f.chroma_scale_x, (f.width + 1) / 2, true);
        nv12_at(f, tx, y, cx, cy, out);
    } else {
        bgr_at(f, tx, y, out);
    }
}

template <typename T>
struct alignas(sizeof(T) * PIXELS) Packet {
    T value[PIXELS];
};

// Grid: (ceil(width / PIXELS / blockDim.x), height, images). The output is N x 3 x height x width.
extern "C" __global__ void ssd_preprocess(
    const FrameParams* frames, InputParams in, OUT_T* output) {
    const int column = (int)(blockIdx.x * blockDim.x + threadIdx.x) * PIXELS;
    const int row = (int)blockIdx.y;
    if (column >= in.width) {
        return;
    }
    const FrameParams f = frames[blockIdx.z];
    const int y = row - f.top;
    const bool inside = y >= 0 && y < f.inner_height;
    const Tap ty = tap_at(inside ? y : 0, f.scale_y, f.height, false);
    const Tap cy = tap_at(inside ? y : 0, f.chroma_scale_y, (f.height + 1) / 2, false);
    Packet<OUT_T> planes[3];
    for (int i = 0; i < PIXELS; ++i) {
        int bgr[3];
        pixel_at(f, in, column + i, ty, cy, inside, bgr);
        for (int c = 0; c < 3; ++c) {
            const float value = ((float)bgr[SWAP_RB ? 2 - c : c] - in.mean[c]) * in.scale[c];
            store(&planes[c].value[i], value);
        }
    }
    const long long size = (long long)in.width * in.height;
    OUT_T* target = output + (long long)blockIdx.z * 3 * size + (long long)row * in.width + column;
    for (int c = 0; c < 3; ++c) {
        OUT_T* row_out = target + c * size;
        if (column + PIXELS <= in.width && in.width % PIXELS == 0) {
            *(Packet<OUT_T>*)row_out = planes[c];
        } else {
            for (int i = 0; i < PIXELS && column + i < in.width; ++i) {
                row_out[i] = planes[c].value[i];
            }
        }
    }
}

// Shared by all kernels: short type names, and FP16 conversion without toolkit headers.
//
// The files in this folder compile with NVRTC and nvcc for the GPU and, behind a small shim in the
// tests, with a C++ compiler for the host; they include no system headers.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define FULL_WARP 0xffffffffu
#define NEG_INFINITY __uint_as_float(0xff800000u)  // minus infinity

// FP16 storage type. The conversions are single instructions on every supported GPU.
struct half_t {
    u16 bits;
};

#ifdef __CUDA_ARCH__
static __device__ __forceinline__ float to_float(half_t value) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}

static __device__ __forceinline__ half_t to_half(float value) {
    half_t result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
}
#else
static __device__ __forceinline__ float to_float(half_t value) {
    _Float16 number;
    __builtin_memcpy(&number, &value.bits, 2);
    return (float)number;
}

static __device__ __forceinline__ half_t to_half(float value) {
    const _Float16 number = (_Float16)value;
    half_t result;
    __builtin_memcpy(&result.bits, &number, 2);
    return result;
}
#endif

// Programmatic dependent launch: let the next kernel of the stream be launched, and wait for the
// previous one and its results. Without such a launch both do nothing.
static __device__ __forceinline__ void launch_next_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

static __device__ __forceinline__ void wait_for_previous_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

static __device__ __forceinline__ float to_float(float value) {
    return value;
}

static __device__ __forceinline__ void store(float* target, float value) {
    *target = value;
}

static __device__ __forceinline__ void store(half_t* target, float value) {
    *target = to_half(value);
}

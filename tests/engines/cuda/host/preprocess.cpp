// preprocess.cu on the host, behind one plain C function.
#include "shim.h"

#include "../../../../engines/realtime_ssd_engines/cuda/kernels/preprocess.cu"

extern "C" void run_preprocess(
    const FrameParams* frames, const InputParams* input, OUT_T* output, int images) {
    const int threads = 128;
    const unsigned columns = (unsigned)((input->width + PIXELS * threads - 1) / (PIXELS * threads));
    launch(ssd_preprocess, {columns, (unsigned)input->height, (unsigned)images}, threads, 0u,
           frames, *input, output);
}

extern "C" int frame_bytes() { return (int)sizeof(FrameParams); }
extern "C" int input_bytes() { return (int)sizeof(InputParams); }

// The arguments as the driver lays them out: each at a multiple of its own alignment.
struct Arguments {
    const FrameParams* frames;
    InputParams input;
    OUT_T* output;
};

extern "C" void launch_ssd_preprocess(
    const unsigned* grid, unsigned threads, const char* arguments) {
    const Arguments* a = (const Arguments*)arguments;
    launch(ssd_preprocess, {grid[0], grid[1], grid[2]}, (int)threads, 0u, a->frames, a->input,
           a->output);
}

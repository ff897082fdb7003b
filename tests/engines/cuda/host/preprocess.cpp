// preprocess.cu compiled for the host, with C entry points.
#include "shim.h"

#include "../../../../engines/realtime_ssd_engines/cuda/kernels/preprocess.cu"

extern "C" void run_preprocess(
    const FrameParams* frames, const InputParams* input, OUT_T* output, int images) {
    const int threads = 128;
    const unsigned columns = (unsigned)((input->width + PIXELS * threads - 1) / (PIXELS * threads));
    launch(ssd_preprocess, {columns, (unsigned)input->height, (unsigned)images}, threads, 0u,
           frames, *input, output);
}

extern "C" int frame_params_size() { return (int)sizeof(FrameParams); }
extern "C" int input_params_size() { return (int)sizeof(InputParams); }

// Kernel arguments in the driver's layout: each is aligned to its own alignment.
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

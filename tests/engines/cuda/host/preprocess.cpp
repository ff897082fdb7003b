// preprocess.cu compiled for the host, with C entry points.
#include "shim.h"

#include "../../../../engines/realtime_ssd_engines/cuda/kernels/preprocess.cu"

extern "C" void run_preprocess(const Source* sources, const u8* tables, const InputParams* input,
                               OUT_T* output, int images) {
    const unsigned columns = (unsigned)((input->width + BLOCK_WIDTH - 1) / BLOCK_WIDTH);
    const unsigned rows = (unsigned)((input->height + ROWS - 1) / ROWS);
    launch(ssd_preprocess, {columns, rows, (unsigned)images}, BLOCK_WIDTH, 0u, sources, tables,
           *input, output);
}

extern "C" int source_size() { return (int)sizeof(Source); }
extern "C" int input_params_size() { return (int)sizeof(InputParams); }

extern "C" int table_size(const InputParams* input) {
    return (int)(tables_of((const u8*)0, *input, 1).color - (const Color*)0) * (int)sizeof(Color);
}

// Kernel arguments in the driver's layout: each is aligned to its own alignment.
struct Arguments {
    const Source* sources;
    const u8* tables;
    InputParams input;
    OUT_T* output;
};

extern "C" void launch_ssd_preprocess(
    const unsigned* grid, unsigned threads, const char* arguments) {
    const Arguments* a = (const Arguments*)arguments;
    launch(ssd_preprocess, {grid[0], grid[1], grid[2]}, (int)threads, 0u, a->sources, a->tables,
           a->input, a->output);
}

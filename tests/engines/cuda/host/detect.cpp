// detect.cu compiled for the host, with C entry points.
#include "shim.h"

#include "../../../../engines/realtime_ssd_engines/cuda/kernels/detect.cu"

extern "C" void run_detect(const DetectParams* params, int images, unsigned seed) {
    const unsigned blocks = (unsigned)((params->boxes + SELECT_ROWS - 1) / SELECT_ROWS);
    launch(ssd_select, {blocks, (unsigned)images, 1}, SELECT_ROWS, seed, *params);
    launch(ssd_suppress, {LISTS, (unsigned)images, 1}, SUPPRESS_THREADS, seed + 1, *params);
}

extern "C" int counters_per_image() { return COUNTER_COUNT; }
extern "C" int params_size() { return (int)sizeof(DetectParams); }

extern "C" void launch_ssd_select(const unsigned* grid, unsigned threads, const char* arguments) {
    launch(ssd_select, {grid[0], grid[1], grid[2]}, (int)threads, 0u, *(const DetectParams*)arguments);
}

extern "C" void launch_ssd_suppress(const unsigned* grid, unsigned threads, const char* arguments) {
    launch(ssd_suppress, {grid[0], grid[1], grid[2]}, (int)threads, 0u,
           *(const DetectParams*)arguments);
}

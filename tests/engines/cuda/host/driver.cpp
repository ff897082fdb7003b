// Stand-in for libcuda on machines without a GPU: the functions that this project uses, on the host.
//
// Work on a stream is executed as late as allowed, when its completion is waited for, and streams
// are independent of each other. A missing wait, a buffer that is freed or reused too early, and a
// copy from memory that changes before the copy completes therefore produce wrong results.
// "Machine code" is the path of a shared library compiled from the kernel sources. Allocations are
// counted.
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

typedef int Result;
enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500, NOT_READY = 600, LAUNCH_FAILED = 719 };
typedef std::function<void()> Work;
typedef void (*Kernel)(const unsigned*, unsigned, const char*);

struct Graph {
    std::vector<Work> work;
};

struct Stream {
    std::deque<Work> queue;
    Graph* capturing = nullptr;
    bool capture_invalid = false;
    bool non_blocking = false;
};

struct Event {
    Stream* stream = nullptr;
    bool pending = false;
    long order = 0;
};

static std::recursive_mutex mutex;
static std::map<uintptr_t, size_t> device_memory, host_memory;
static std::set<Stream*> streams;
static size_t limit = (size_t)1 << 40;
static long clock_now = 0, launches = 0, dependent_launches = 0, copies_in = 0, contexts = 0, live_graphs = 0;
static int context_token;
static Result failure = OK;  // result of every call once the GPU is lost
static thread_local std::vector<void*> current;
static Stream default_stream;  // legacy default stream: blocking streams synchronize with it
static unsigned primary_flags = 0, flags_at_retain = 0;
static const int driver_version =
    getenv("HOST_DRIVER_VERSION") ? atoi(getenv("HOST_DRIVER_VERSION")) : 13000;

static bool refuse_dependent_capture = false;
static const bool integrated = getenv("HOST_INTEGRATED") != nullptr;

#define LOCK std::lock_guard<std::recursive_mutex> lock(mutex)
#define ALIVE LOCK; if (failure) return failure

static size_t total(const std::map<uintptr_t, size_t>& memory) {
    size_t sum = 0;
    for (const auto& entry : memory) sum += entry.second;
    return sum;
}

static void drain(Stream* stream);

static void enqueue(Stream* stream, Work work) {
    if (!stream) stream = &default_stream;
    if (stream->capturing) {
        stream->capturing->work.push_back(work);
    } else {
        if (stream != &default_stream && !stream->non_blocking) {
            stream->queue.push_back([] { drain(&default_stream); });
        }
        stream->queue.push_back(work);
    }
}

static void drain(Stream* stream) {
    while (!stream->queue.empty()) {
        Work work = stream->queue.front();
        stream->queue.pop_front();
        work();
    }
}

static void drain_all() {
    drain(&default_stream);
    for (Stream* stream : streams) drain(stream);
}

extern "C" {

// Test controls.
void host_refuse_dependent_capture(int refuse) { refuse_dependent_capture = refuse; }
void host_fail(int error) { failure = error; }
void host_set_memory_limit(size_t bytes) { limit = bytes; }
size_t host_device_bytes() { return total(device_memory); }
size_t host_pinned_bytes() { return total(host_memory); }
long host_launches() { return launches; }
long host_dependent_launches() { return dependent_launches; }
long host_copies_in() { return copies_in; }
long host_contexts() { return contexts; }
long host_graphs() { return live_graphs; }
long host_streams() { return (long)streams.size(); }
long host_default_stream_work() { return (long)default_stream.queue.size(); }
unsigned host_flags_at_retain() { return flags_at_retain; }

Result cuInit(unsigned) { return OK; }
Result cuDriverGetVersion(int* version) { *version = driver_version; return OK; }
Result cuDeviceGetCount(int* count) { *count = 1; return OK; }
Result cuDeviceGet(int* device, int) { *device = 0; return OK; }
Result cuDeviceGetName(char* name, int size, int) { strncpy(name, "Host GPU", size); return OK; }
Result cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = limit; return OK; }
Result cuDeviceGetAttribute(int* value, int name, int) {
    *value = name == 75 ? 9 : name == 18 ? integrated : 0;
    return OK;
}
Result cuDeviceComputeCapability(int* major, int* minor, int) { *major = 9; *minor = 0; return OK; }
Result cuGetErrorString(Result error, const char** text) {
    *text = error == OUT_OF_MEMORY ? "out of memory"
          : error == LAUNCH_FAILED ? "unspecified launch failure" : "invalid argument";
    return OK;
}
Result cuGetErrorName(Result, const char** text) { *text = "CUDA_ERROR"; return OK; }

Result cuDevicePrimaryCtxRetain(void** context, int) {
    LOCK;
    if (contexts++ == 0) flags_at_retain = primary_flags;
    *context = &context_token;
    return OK;
}
Result cuDevicePrimaryCtxSetFlags_v2(int, unsigned flags) { primary_flags = flags; return OK; }
Result cuDevicePrimaryCtxRelease_v2(int) { LOCK; --contexts; return OK; }
Result cuCtxPushCurrent_v2(void* context) { current.push_back(context); return OK; }
Result cuCtxPopCurrent_v2(void** context) {
    if (current.empty()) return 201;
    if (context) *context = current.back();
    current.pop_back();
    return OK;
}
Result cuCtxGetCurrent(void** context) {
    *context = current.empty() ? nullptr : current.back();
    return OK;
}
Result cuCtxGetDevice(int* device) { *device = 0; return current.empty() ? 201 : OK; }
Result cuCtxGetApiVersion(void*, unsigned* version) { *version = 3020; return OK; }
Result cuCtxSynchronize() { ALIVE; drain_all(); return OK; }
Result cuCtxDetach(void*) { return OK; }

Result cuMemAlloc_v2(uintptr_t* address, size_t bytes) {
    ALIVE;
    if (current.empty()) return 201;
    if (total(device_memory) + bytes > limit) return OUT_OF_MEMORY;
    *address = (uintptr_t)aligned_alloc(512, (bytes + 511) / 512 * 512);
    memset((void*)*address, 0xa5, bytes);
    device_memory[*address] = bytes;
    return OK;
}
Result cuMemFree_v2(uintptr_t address) {
    ALIVE;
    drain_all();
    if (!device_memory.erase(address)) return INVALID;
    free((void*)address);
    return OK;
}
Result cuMemGetInfo_v2(size_t* unused, size_t* all) {
    LOCK; *unused = limit - total(device_memory); *all = limit; return OK;
}
Result cuMemHostAlloc(void** address, size_t bytes, unsigned) {
    ALIVE;
    if (current.empty()) return 201;
    *address = aligned_alloc(512, (bytes + 511) / 512 * 512);
    host_memory[(uintptr_t)*address] = bytes;
    return OK;
}
Result cuMemHostGetDevicePointer_v2(uintptr_t* address, void* host, unsigned) {
    ALIVE;
    if (!host_memory.count((uintptr_t)host)) return INVALID;
    *address = (uintptr_t)host;
    return OK;
}
Result cuMemFreeHost(void* address) {
    ALIVE;
    drain_all();
    if (!host_memory.erase((uintptr_t)address)) return INVALID;
    free(address);
    return OK;
}

Result cuMemcpyHtoDAsync_v2(uintptr_t to, const void* from, size_t bytes, Stream* stream) {
    ALIVE; ++copies_in; enqueue(stream, [=] { memcpy((void*)to, from, bytes); }); return OK;
}
Result cuMemcpyDtoHAsync_v2(void* to, uintptr_t from, size_t bytes, Stream* stream) {
    ALIVE; enqueue(stream, [=] { memcpy(to, (void*)from, bytes); }); return OK;
}
Result cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t bytes, Stream* stream) {
    ALIVE; enqueue(stream, [=] { memcpy((void*)to, (void*)from, bytes); }); return OK;
}
Result cuMemcpyHtoD_v2(uintptr_t to, const void* from, size_t bytes) {
    LOCK; drain_all(); memcpy((void*)to, from, bytes); return OK;
}
Result cuMemcpyDtoH_v2(void* to, uintptr_t from, size_t bytes) {
    LOCK; drain_all(); memcpy(to, (void*)from, bytes); return OK;
}
Result cuMemsetD8Async(uintptr_t to, unsigned char value, size_t bytes, Stream* stream) {
    ALIVE; enqueue(stream, [=] { memset((void*)to, value, bytes); }); return OK;
}

Result cuStreamCreate(Stream** stream, unsigned flags) {
    ALIVE;
    *stream = new Stream;
    (*stream)->non_blocking = flags & 1;
    streams.insert(*stream);
    return OK;
}
Result cuStreamDestroy_v2(Stream* stream) {
    LOCK; drain(stream); streams.erase(stream); delete stream; return OK;
}
Result cuStreamSynchronize(Stream* stream) {
    ALIVE;
    if (!stream) stream = &default_stream;
    if (stream->capturing) {
        stream->capture_invalid = true;
        return 900;
    }
    drain(stream);
    return OK;
}
Result cuStreamQuery(Stream* stream) { LOCK; drain(stream); return OK; }

Result cuEventCreate(Event** event, unsigned) { *event = new Event; return OK; }
Result cuEventDestroy_v2(Event* event) { delete event; return OK; }
Result cuEventRecord(Event* event, Stream* stream) {
    ALIVE;
    event->stream = stream ? stream : &default_stream;
    event->pending = true;
    enqueue(stream, [=] { event->pending = false; event->order = ++clock_now; });
    return OK;
}
Result cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
    ALIVE; enqueue(stream, [=] { if (event->pending) drain(event->stream); }); return OK;
}
Result cuEventSynchronize(Event* event) {
    ALIVE; if (event->pending) drain(event->stream); return OK;
}
Result cuEventQuery(Event* event) { LOCK; return event->pending ? NOT_READY : OK; }
Result cuEventElapsedTime_v2(float* milliseconds, Event* begin, Event* end) {
    if (begin->pending || end->pending) return NOT_READY;
    *milliseconds = (float)(end->order - begin->order);
    return OK;
}
Result cuEventElapsedTime(float* ms, Event* b, Event* e) { return cuEventElapsedTime_v2(ms, b, e); }

Result cuModuleLoadDataEx(void** module, const void* image, unsigned, void*, void*) {
    *module = dlopen((const char*)image, RTLD_NOW);
    return *module ? OK : 209;
}
Result cuModuleLoadData(void** module, const void* image) {
    return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}
Result cuModuleUnload(void*) { return OK; }
Result cuModuleGetFunction(void** function, void* module, const char* name) {
    *function = dlsym(module, ("launch_" + std::string(name)).c_str());
    return *function ? OK : NOT_FOUND;
}
Result cuFuncSetBlockShape(void*, int, int, int) { return OK; }
Result cuFuncGetAttribute(int* value, int, void*) { *value = 0; return OK; }
Result cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                      unsigned by, unsigned bz, unsigned, Stream* stream, void**, void** extra) {
    ALIVE;
    if (by != 1 || bz != 1 || !extra) return INVALID;
    const std::string arguments((const char*)extra[1], *(size_t*)extra[3]);
    enqueue(stream, [=] {
        const unsigned grid[3] = {gx, gy, gz};
        // Copied to memory that is aligned for structures.
        std::vector<uint64_t> aligned(arguments.size() / 8 + 1);
        memcpy(aligned.data(), arguments.data(), arguments.size());
        ((Kernel)function)(grid, bx, (const char*)aligned.data());
        ++launches;
    });
    return OK;
}

// Layouts of CUlaunchAttribute and CUlaunchConfig.
struct Attribute {
    int id;
    int padding;
    int value[16];
};
struct LaunchConfig {
    unsigned gx, gy, gz, bx, by, bz, shared;
    Stream* stream;
    Attribute* attributes;
    unsigned count;
};

Result cuLaunchKernelEx(const LaunchConfig* config, void* function, void** parameters, void** extra) {
    if (driver_version < 12000) return NOT_FOUND;
    const bool dependent =
        config->count == 1 && config->attributes->id == 6 && config->attributes->value[0] == 1;
    if (!dependent) return INVALID;
    if (refuse_dependent_capture && config->stream->capturing) {
        config->stream->capture_invalid = true;
        return 900;
    }
    ++dependent_launches;
    return cuLaunchKernel(function, config->gx, config->gy, config->gz, config->bx, config->by,
                          config->bz, config->shared, config->stream, parameters, extra);
}

Result cuLaunchHostFunc(Stream* stream, void (*function)(void*), void* argument) {
    ALIVE; enqueue(stream, [=] { function(argument); }); return OK;
}

Result cuStreamBeginCapture_v2(Stream* stream, int) {
    LOCK; drain(stream); stream->capturing = new Graph; stream->capture_invalid = false; return OK;
}
Result cuStreamEndCapture(Stream* stream, Graph** graph) {
    LOCK;
    *graph = stream->capturing;
    stream->capturing = nullptr;
    if (stream->capture_invalid) {
        delete *graph;
        *graph = nullptr;
        return 901;
    }
    return OK;
}
Result cuGraphInstantiateWithFlags(Graph** executable, Graph* graph, unsigned long long) {
    LOCK; ++live_graphs; *executable = new Graph(*graph); return OK;
}
Result cuGraphDestroy(Graph* graph) { delete graph; return OK; }
Result cuGraphExecDestroy(Graph* executable) { LOCK; --live_graphs; delete executable; return OK; }
Result cuGraphUpload(Graph*, Stream*) { return OK; }
Result cuGraphLaunch(Graph* executable, Stream* stream) {
    ALIVE;
    for (const Work& work : executable->work) enqueue(stream, work);
    return OK;
}

Result cuGetProcAddress_v2(const char* name, void** function, int version, uint64_t, int* status) {
    const std::string plain(name);
    if (version > driver_version) {  // the requested version of the function is too new
        *function = nullptr;
        if (status) *status = 2;
        return NOT_FOUND;
    }
    for (const char* suffix : {"_v2", "WithFlags", ""}) {
        *function = dlsym(RTLD_DEFAULT, (plain + suffix).c_str());
        if (*function) break;
    }
    if (status) *status = *function ? 0 : 1;
    return *function ? OK : NOT_FOUND;
}
}

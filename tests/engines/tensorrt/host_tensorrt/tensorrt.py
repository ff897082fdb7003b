"""Stand-in for the part of TensorRT that the project uses: ONNX Runtime on host memory.

With its folder on PYTHONPATH and the stand-in for the driver loaded, `import tensorrt` imports this
module. The environment variable HOST_TENSORRT (8, 10, 11 or rtx) selects the generation or flavor:
names that NVIDIA removed are absent, and inputs that a generation rejects are rejected. Plans are
ONNX files with a header.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

from tests.engines.tensorrt.host_tensorrt.host_parts import (
    Error,
    Profile,
    RuntimeCache,
    RuntimeConfig,
    TimingCache,
    check_dequantized_types,
)

RTX = os.environ.get("HOST_TENSORRT") == "rtx"
GENERATION = 11 if RTX else int(os.environ.get("HOST_TENSORRT", "10"))
__version__ = "1.7.1" if RTX else {8: "8.6.0", 10: "10.16.1", 11: "11.4.0"}[GENERATION]
MAGIC = f"host plan {__version__}\n".encode()
STRONG_ONLY = GENERATION >= 11
_cuda = ctypes.CDLL("libcuda.so.1")
_HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _enum(name: str, *members: str) -> Any:
    return enum.IntEnum(name, {member: number for number, member in enumerate(members)})


class ILogger:
    Severity = _enum("Severity", "INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")


_network_flags = {
    8: ["EXPLICIT_BATCH"],
    10: ["EXPLICIT_BATCH", "STRONGLY_TYPED"],
    11: ["STRONGLY_TYPED"],
}
_weak_flags = [] if STRONG_ONLY else ["FP16", "INT8", "PREFER_PRECISION_CONSTRAINTS"]
DataType = _enum("DataType", "FLOAT", "HALF", "INT8", "INT32", "OTHER")
float32, float16 = DataType.FLOAT, DataType.HALF
NetworkDefinitionCreationFlag = _enum("NetworkDefinitionCreationFlag", *_network_flags[GENERATION])
BuilderFlag = _enum("BuilderFlag", "TF32", "REFIT", *_weak_flags)
MemoryPoolType = _enum("MemoryPoolType", "WORKSPACE")
ProfilingVerbosity = _enum("ProfilingVerbosity", "LAYER_NAMES_ONLY", "NONE", "DETAILED")
TacticSource = _enum("TacticSource", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
PreviewFeature = _enum("PreviewFeature", "PROFILE_SHARING_0806")
LayerType = _enum("LayerType", "SOFTMAX", "REDUCE", "UNARY", "ELEMENTWISE", "CONVOLUTION")
TensorIOMode = _enum("TensorIOMode", "NONE", "INPUT", "OUTPUT")
LayerInformationFormat = _enum("LayerInformationFormat", "ONELINE", "JSON")
if RTX:
    ComputeCapability = _enum("ComputeCapability", "NONE", "CURRENT", "SM89", "SM90")
    CudaGraphStrategy = _enum("CudaGraphStrategy", "DISABLED", "WHOLE_GRAPH_CAPTURE")
    DynamicShapesKernelSpecializationStrategy = _enum("Specialization", "LAZY", "EAGER", "NONE")
if GENERATION >= 10:
    ExecutionContextAllocationStrategy = _enum("Strategy", "STATIC", "ON_CHANGE", "USER_MANAGED")

    class IProgressMonitor:
        pass


class IProfiler:
    pass


class _Tensor:
    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype


class _Layer:
    def __init__(self, node: onnx.NodeProto, types: dict[str, int]) -> None:
        kinds = {"Softmax": LayerType.SOFTMAX, "ReduceSum": LayerType.REDUCE}
        self.name, self.type = node.name, kinds.get(node.op_type, LayerType.CONVOLUTION)
        dtypes = {TensorProto.FLOAT: float32, TensorProto.FLOAT16: float16}
        self._types = [dtypes.get(types.get(name, 0), DataType.OTHER) for name in node.output]
        self.num_outputs = len(self._types)

    def get_output(self, number: int) -> _Tensor:
        return _Tensor(self._types[number])

    if not STRONG_ONLY:

        def set_output_type(self, number: int, dtype: Any) -> None:
            assert self._types[number] == dtype


class Network:
    def __init__(self, strong: bool) -> None:
        self.strong, self.model = strong, onnx.ModelProto()

    def load(self, model: onnx.ModelProto) -> None:
        self.model = model
        inferred = onnx.shape_inference.infer_shapes(model).graph
        types = {
            v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output)
        }
        self._layers = [_Layer(node, types) for node in model.graph.node]

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_layer(self, number: int) -> _Layer:
        return self._layers[number]


class OnnxParser:
    def __init__(self, network: Network, logger: Any) -> None:
        self._network, self._errors = network, [""]
        self.num_errors = 0

    def parse_from_file(self, path: str) -> bool:
        try:
            model = onnx.load(path)
            onnx.checker.check_model(model)
            check_dequantized_types(model.graph)
        except Exception as error:
            self._errors, self.num_errors = [str(error)], 1
            return False
        self._network.load(model)
        return True

    def get_error(self, number: int) -> Error:
        return Error(self._errors[number])


class Config:
    def __init__(self) -> None:
        self.flags: set[Any] = {BuilderFlag.TF32}
        self.profiles: list[Profile] = []
        self.num_compute_capabilities = 0
        self.capabilities: dict[int, Any] = {}
        self.timing_cache: TimingCache | None = None
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.progress_monitor: Any = None

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        assert size > 0

    def set_tactic_sources(self, sources: int) -> bool:
        return True

    def set_preview_feature(self, feature: Any, on: bool) -> None:
        assert isinstance(feature, PreviewFeature)

    def set_flag(self, flag: Any) -> None:
        self.flags.add(BuilderFlag(flag))

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(BuilderFlag(flag))

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_compute_capability(self, capability: Any, index: int) -> None:
        assert index < self.num_compute_capabilities
        self.capabilities[index] = capability

    def create_timing_cache(self, content: bytes) -> TimingCache:
        return TimingCache(content)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        if cache.content and not cache.content.startswith(MAGIC) and not ignore_mismatch:
            return False
        self.timing_cache = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        return self.timing_cache


class Builder:
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def create_network(self, flags: int) -> Network:
        names = {flag.name for flag in NetworkDefinitionCreationFlag if flags >> flag & 1}
        assert GENERATION != 8 or "EXPLICIT_BATCH" in names, "ONNX requires explicit batch"
        return Network("STRONGLY_TYPED" in names)

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        problem = self._problem(network, config)
        if problem:
            self._logger.log(ILogger.Severity.ERROR, problem)
            return None
        monitor = config.progress_monitor
        if monitor is not None:
            monitor.phase_start("Building Engine", None, 4)
            for step in range(4):
                assert monitor.step_complete("Building Engine", step)
            monitor.phase_finish("Building Engine")
        if config.timing_cache is not None:
            config.timing_cache.content = (config.timing_cache.content or MAGIC) + b"one layer\n"
        shapes = [profile.shapes for profile in config.profiles]
        header = (
            json.dumps({"shapes": shapes, "tf32": BuilderFlag.TF32 in config.flags}).encode()
            + b"\n"
        )
        model: bytes = network.model.SerializeToString()
        return MAGIC + header + model

    def _problem(self, network: Network, config: Config) -> str:
        names = {flag.name for flag in config.flags}
        if network.strong and names & {"FP16", "INT8", "PREFER_PRECISION_CONSTRAINTS"}:
            return "precision flags are an error in a strongly typed network"
        is_fp16 = any(float16 in layer._types for layer in network._layers)
        constrained = "PREFER_PRECISION_CONSTRAINTS" in names
        if not network.strong and is_fp16 and not constrained:
            return "the FP32 layers of an FP16 model must be constrained to FP32"
        quantized = any(node.op_type == "QuantizeLinear" for node in network.model.graph.node)
        if quantized and not network.strong and "INT8" not in names:
            return "Q/DQ needs the INT8 flag"
        for value in network.model.graph.input:
            sizes = value.type.tensor_type.shape.dim
            dynamic = any(not size.HasField("dim_value") for size in sizes)
            profiles = config.profiles
            if dynamic and not (profiles and all(value.name in p.shapes for p in profiles)):
                return f"Network has dynamic input {value.name} but no optimization profile"
        return ""


class Runtime:
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if not plan.startswith(MAGIC):
            self._logger.log(ILogger.Severity.ERROR, "The engine plan file is not compatible")
            return None
        header, _, model = plan[len(MAGIC) :].partition(b"\n")
        return Engine(json.loads(header)["shapes"], model)


class Inspector:
    def get_engine_information(self, output_format: Any) -> str:
        assert output_format == LayerInformationFormat.JSON
        layer = {"Name": "whole", "LayerType": "OnnxRuntime", "Inputs": [], "Outputs": []}
        return json.dumps({"Layers": [layer], "Bindings": []})


class Engine:
    def __init__(self, shapes: list[dict[str, Any]], model: bytes) -> None:
        self.shapes, self.contexts = shapes, 0
        self.num_optimization_profiles = max(len(shapes), 1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        self._modes = {v.name: TensorIOMode.INPUT for v in inputs}
        self._modes |= {v.name: TensorIOMode.OUTPUT for v in outputs}
        self.values = {value.name: value for value in (*inputs, *outputs)}
        self.num_io_tensors = len(self.values)
        setattr(self, "device_memory_size_v2" if GENERATION > 8 else "device_memory_size", 4096)

    def get_tensor_name(self, number: int) -> str:
        names: list[str] = list(self.values)
        return names[number]

    def get_tensor_dtype(self, name: str) -> Any:
        return float16 if "float16" in self.values[name].type else float32

    def get_tensor_mode(self, name: str) -> Any:
        return self._modes[name]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Return declared sizes; TensorRT may infer -1 for sizes that the ONNX file declares."""
        is_input = self._modes[name] == TensorIOMode.INPUT
        sizes = self.values[name].shape
        return tuple(
            n if isinstance(n, int) and (is_input or i > 1) else -1 for i, n in enumerate(sizes)
        )

    def create_engine_inspector(self) -> Inspector:
        return Inspector()

    if GENERATION == 8:

        def create_execution_context_without_device_memory(self) -> Context:
            return Context(self)
    else:

        def create_execution_context(self, settings: Any) -> Context:
            strategy = settings.allocation if isinstance(settings, RuntimeConfig) else settings
            assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED
            context = Context(self)
            if isinstance(settings, RuntimeConfig):
                context.kernels = settings.get_runtime_cache()
            return context

    if RTX:

        def create_runtime_config(self) -> RuntimeConfig:
            return RuntimeConfig(MAGIC)


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # TensorRT selects a profile only for the first context of an engine.
        self.active_optimization_profile = 0 if engine.contexts == 0 else -1
        engine.contexts += 1
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        self.profiler: Any = None
        self._memory = 0
        self._callbacks: list[Any] = []
        self.kernels: RuntimeCache | None = None

    if GENERATION == 8:

        @property
        def device_memory(self) -> int:
            return self._memory

        @device_memory.setter
        def device_memory(self, address: int) -> None:
            self._memory = address
    else:

        def set_device_memory(self, address: int, size: int) -> None:
            assert size >= 4096
            self._memory = address

    def set_optimization_profile_async(self, number: int, stream: int) -> bool:
        if not 0 <= number < self._engine.num_optimization_profiles:
            return False
        self.active_optimization_profile = number
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        declared = self._engine.get_tensor_shape(name)
        valid = all(size in (-1, actual) for size, actual in zip(declared, shape, strict=True))
        if self._engine.shapes:
            low, _, high = self._engine.shapes[self.active_optimization_profile][name]
            valid &= all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))
        if valid:
            self._shape = tuple(shape)
        return valid

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if self._engine.get_tensor_mode(name) == TensorIOMode.INPUT:
            return self._shape
        return (self._shape[0], *self._engine.values[name].shape[1:])

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert name in self._engine.values
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        ready = self._shape and self._memory and self.active_optimization_profile >= 0
        if not ready or set(self._addresses) != set(self._engine.values):
            return False
        if self.kernels is not None:
            self.kernels.kernels.add(f"batch {self._shape[0]}")
        callback = _HostFunction(self._run)
        self._callbacks.append(callback)
        if self.profiler is not None:
            self.profiler.report_layer_time("whole", 0.125)
        return not _cuda.cuLaunchHostFunc(ctypes.c_void_p(stream), callback, None)

    def _run(self, _: Any) -> None:
        """Read the input, run the model and write the outputs at the tensor addresses."""
        engine = self._engine
        modes = {name: engine.get_tensor_mode(name) for name in engine.values}
        (input_name,) = (name for name, mode in modes.items() if mode == TensorIOMode.INPUT)
        names = [name for name in engine.values if name != input_name]
        outputs = engine.session.run(names, {input_name: self._view(input_name, self._shape)})
        for name, output in zip(names, outputs, strict=True):
            self._view(name, output.shape)[...] = output

    def _view(self, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        is_fp16 = self._engine.get_tensor_dtype(name) == float16
        dtype = np.dtype(np.float16 if is_fp16 else np.float32)
        size = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_uint8 * size).from_address(self._addresses[name])
        view: np.ndarray[Any, Any] = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
        return view

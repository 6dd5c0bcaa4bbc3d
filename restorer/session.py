"""Opens ONNX Runtime sessions: on the CPU, or on CUDA where that really works, with the reason where it does not."""

import contextlib
import io
import logging
import types
from typing import Any

from restorer.errors import DeviceError, ModelError

_FATAL_ONLY = 4
_DEFAULT_SEVERITY = 2
# The exhaustive search, which is the default, would time every algorithm again for each new number of frames.
# TF32, the default of newer GPUs, rounds factors to 10 bits, too coarse for the output to equal the CPU's within 1e-3.
_CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
    "use_tf32": "0",
}
_log = logging.getLogger(__name__)


class RuntimeMissingError(DeviceError, ImportError):
    """ONNX Runtime is not installed: an ImportError, and a RestorerError for whoever prints those."""


def import_onnxruntime() -> types.ModuleType:
    """ONNX Runtime, or the error that names the two commands which install it."""
    try:
        import onnxruntime
    except ImportError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # which its C++ part takes for a failure
            raise error.__cause__ from None
        raise RuntimeMissingError(_missing(f"cannot be imported ({error})")) from error
    # Removing one of the two wheels after both were installed leaves an empty package behind.
    if not hasattr(onnxruntime, "InferenceSession"):
        raise RuntimeMissingError(_missing("is damaged, so uninstall onnxruntime and onnxruntime-gpu first"))
    return onnxruntime


def _missing(problem: str) -> str:
    return (
        f'ONNX Runtime {problem}; run one of: pip install "restorer[cpu]" (any machine) or '
        'pip install "restorer[gpu]" (NVIDIA, CUDA)'
    )


def open_session(data: bytes, source: str, device: str, threads: int) -> Any:
    """A session for the model `data` of the file `source`; "auto" is CUDA where it works.

    Falling back to the CPU is logged: as a warning where the installed ONNX Runtime is made for CUDA, else as
    information.

    Raises
    ------
    ModelError
        `data` is no readable model.
    DeviceError
        `device` is "cuda", which does not work here; the message says why.
    """
    onnxruntime = import_onnxruntime()
    if device != "cpu":
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            options = _options(onnxruntime, threads)
            # The GPU has no kernels that join 8-bit layers with the nodes around them; kept as they are, their
            # weights would be turned into floats again at each call, and their biases on the CPU.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            session, reason = _open_cuda(onnxruntime, data, options)
            level = logging.WARNING
        else:
            session, reason, level = None, "this ONNX Runtime is made without CUDA", logging.INFO
        if session is not None:
            return session
        if device == "cuda":
            raise DeviceError(
                f"device 'cuda' does not work here ({reason}): it needs an NVIDIA GPU, its driver and "
                'pip install "restorer[gpu]" (instead of onnxruntime); or use device="cpu"'
            )
        _log.log(level, "CUDA does not work here (%s): running on the CPU", reason)
    try:
        return onnxruntime.InferenceSession(data, _options(onnxruntime, threads), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"{source}: is no readable ONNX model: {one_line(error)}") from error


def _options(onnxruntime: types.ModuleType, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _FATAL_ONLY
    # Denormals stay as they are: that option would change the floating-point mode of the calling thread,
    # and `Analysis` takes input so small that it would make them for silence.
    # Idle threads sleep: a plug-in shares its cores with the rest of a host.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Weights lie side by side, not among what calls allocate: a hundredth of a stream's time.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    return options


def _open_cuda(onnxruntime: types.ModuleType, data: bytes, options: Any) -> tuple[Any | None, str]:
    """A session that really runs on CUDA, or None and why; the runtime's own complaints become log lines."""
    printed = io.StringIO()
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    try:
        with contextlib.redirect_stdout(printed):
            if hasattr(onnxruntime, "preload_dlls"):
                onnxruntime.preload_dlls()
            session = onnxruntime.InferenceSession(
                data, options, providers=[("CUDAExecutionProvider", _CUDA_OPTIONS), "CPUExecutionProvider"]
            )
    except Exception as error:
        return None, one_line(error)
    finally:
        onnxruntime.set_default_logger_severity(_DEFAULT_SEVERITY)
        for line in filter(None, printed.getvalue().splitlines()):
            _log.debug("ONNX Runtime: %s", line)
    if device_of(session) == "cuda":
        return session, ""
    return None, "no NVIDIA GPU, or its driver, CUDA or cuDNN is missing or too old"


def device_of(session: Any) -> str:
    """Where a session really runs: "cpu" or "cuda"."""
    return "cuda" if session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"


def one_line(error: BaseException) -> str:
    """The start of an error's message, without its line breaks."""
    return " ".join(str(error).split())[:300]

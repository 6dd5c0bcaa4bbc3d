"""A `BoundRun` takes a batch of signals through a model without copying their states between calls.

ONNX Runtime's plain call copies every state out to an array and in again, on a GPU across the bus besides. Here
two sets of states lie on the model's device and take turns: a call reads one and writes the other.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorer.errors import DeviceError
from restorer.session import device_of, import_onnxruntime, one_line
from restorer.transform import Float32


@dataclass(frozen=True)
class State:
    """What a graph says about one of its states: the shape without the batch axis, and "float32" or "uint8"."""

    shape: tuple[int, ...]
    dtype: str

    def zeros(self, batch: int) -> NDArray[Any]:
        """One of zeros for each signal of a batch."""
        return np.zeros((batch, *self.shape), self.dtype)


class BoundRun:
    """One batch on its way through a model; `Model.bind` makes it. Only frames cross to the device and back.

    It starts with all states and the noise zero, and belongs to one thread at a time.

    Parameters
    ----------
    session
        Of a checked model; any number of runs share it.
    states
        Of the graph, in their order.
    noise_size
        0 where the model takes no z.
    batch
        Signals: channels x takes.
    """

    def __init__(self, session: Any, states: tuple[State, ...], noise_size: int, batch: int) -> None:
        self._session = session
        self._device = device_of(session)
        self._value = import_onnxruntime().OrtValue
        self._batch = batch
        self._states = [[self._placed(state.zeros(batch)) for state in states] for _ in range(2)]
        self._noise = self._placed(np.zeros((batch, noise_size), np.float32)) if noise_size else None
        self._bindings = [self._bind(*sets) for sets in (self._states, self._states[::-1])]
        self._turn = 0
        # What calls read and write, of one number of frames; both lie in the CPU's memory.
        self._frames: Float32 = np.zeros((batch, 2, 0, 0), np.float32)
        self._restored = self._frames
        self._shared: list[Any] = []

    def _placed(self, array: NDArray[Any]) -> Any:
        return self._value.ortvalue_from_numpy(array, self._device, 0)

    def _bind(self, now: list[Any], after: list[Any]) -> Any:
        binding = self._session.io_binding()
        for index, (old, new) in enumerate(zip(now, after, strict=True)):
            binding.bind_ortvalue_input(f"state_{index}", old)
            binding.bind_ortvalue_output(f"next_state_{index}", new)
        if self._noise is not None:
            binding.bind_ortvalue_input("z", self._noise)
        return binding

    def set_noise(self, z: Float32) -> None:
        """Go on with other noise, ``(batch, noise_size)``."""
        if self._noise is not None:
            self._noise.update_inplace(np.ascontiguousarray(z))

    def get_states(self) -> tuple[NDArray[Any], ...]:
        """Copies of the states, each ``(batch, ...)``."""
        return tuple(np.array(value.numpy()) for value in self._states[self._turn])

    def set_states(self, states: tuple[NDArray[Any], ...]) -> None:
        """Go on from these states; they are copied."""
        for value, state in zip(self._states[self._turn], states, strict=True):
            value.update_inplace(np.ascontiguousarray(state))

    def __call__(self, frames: Float32) -> Float32:
        """Restore some frames and keep the states for the next call.

        Shape
        -----
        Input and output: ``(batch, 2, time, bins)``. The output is overwritten by the next call.

        Raises
        ------
        DeviceError
            There is not enough memory, or the GPU failed.
        """
        binding = self._bindings[self._turn]
        try:
            if frames.shape != self._frames.shape:
                self._resize(frames.shape)
            np.copyto(self._frames, frames)  # binding the array itself, call by call, costs more
            if self._device != "cpu":  # an input is copied to the device when it is bound, and not at each call
                self._shared[0].update_inplace(self._frames)
            self._session.run_with_iobinding(binding)
            if self._device != "cpu":
                binding.synchronize_outputs()
        except Exception as error:
            if self._device == "cpu" and not _is_want_of_memory(error):
                raise
            if self._device == "cpu":
                raise DeviceError(
                    f"out of memory: {one_line(error)}; close other programs, or restore fewer files, channels or "
                    "takes at once"
                ) from error
            raise DeviceError(
                f"the GPU failed: {one_line(error)}; close what else uses it, restore fewer channels or takes at "
                'once, or use device="cpu"'
            ) from error
        self._turn = 1 - self._turn
        return self._restored

    def _resize(self, shape: tuple[int, ...]) -> None:
        """Make room for calls of another number of frames."""
        self._frames, self._restored = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._shared = [self._placed(self._frames), self._value.ortvalue_from_numpy(self._restored, "cpu", 0)]
        for binding in self._bindings:
            binding.bind_ortvalue_input("frames", self._shared[0])
            binding.bind_ortvalue_output("restored", self._shared[1])


def _is_want_of_memory(error: Exception) -> bool:
    """ONNX Runtime has no error of its own for it."""
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("Failed to allocate memory", "bad_alloc", "bad allocation")
    )

"""The inputs and outputs that an ONNX file declares, read before anything else of it is believed."""

from dataclasses import dataclass

from restorer.protobuf import fields, message, number, text

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_TENSOR_NAME = 8
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR = 1, 2, 1
_TENSOR_KIND, _TENSOR_SHAPE, _SHAPE_DIM, _DIM_SIZE, _DIM_NAME = 1, 2, 1, 1, 2
_KINDS = {1: "float", 2: "uint8", 6: "int32", 7: "int64", 10: "float16", 11: "double"}


@dataclass(frozen=True)
class Value:
    """An input or output as ONNX Runtime describes it; a size is a name, or None, where it is dynamic."""

    name: str
    type: str
    shape: list[int | str | None]


def declared_values(data: bytes) -> tuple[list[Value], list[Value]]:
    """Inputs and outputs of a model file that `check_model` has passed; weights are none of the inputs."""
    inputs: list[Value] = []
    outputs: list[Value] = []
    weights: set[str] = set()
    for model_field, graph in fields(memoryview(data)):
        if model_field != _MODEL_GRAPH:
            continue
        for field, value in fields(graph):
            if field == _GRAPH_INPUT:
                inputs.append(_read_value(message(value)))
            elif field == _GRAPH_OUTPUT:
                outputs.append(_read_value(message(value)))
            elif field == _GRAPH_INITIALIZER:
                weights.update(text(name) for at, name in fields(message(value)) if at == _TENSOR_NAME)
    return [value for value in inputs if value.name not in weights], outputs


def _read_value(value: memoryview) -> Value:
    name, kind, shape = "", 0, list[int | str | None]()
    for field, said in fields(value):
        if field == _VALUE_NAME:
            name = text(said)
        elif field == _VALUE_TYPE:
            for type_field, tensor in fields(message(said)):
                if type_field != _TYPE_TENSOR:
                    continue
                for tensor_field, part in fields(message(tensor)):
                    if tensor_field == _TENSOR_KIND:
                        kind = number(part)
                    elif tensor_field == _TENSOR_SHAPE:
                        shape += [_read_dim(message(dim)) for at, dim in fields(message(part)) if at == _SHAPE_DIM]
    return Value(name, f"tensor({_KINDS.get(kind, kind)})", shape)


def _read_dim(dim: memoryview) -> int | str | None:
    size: int | str | None = None
    for field, value in fields(dim):
        if field == _DIM_SIZE:
            size = number(value)
        elif field == _DIM_NAME:
            size = text(value)
    return size

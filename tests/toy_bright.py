"""A toy model whose brightness is known: z moves the level of a copy of the lower half of the band."""

import math
from pathlib import Path

import numpy as np
from toy_model import Graph, _value, metadata

NOISE_SIZE = 6
DIRECTION = np.array([2.0, -1.0, 0.0, 3.0, 1.0, -1.0]) / 4.0
# Frames hold square roots, so an exponent counts twice.
DB_PER_UNIT = 2.0
_RATE = DB_PER_UNIT / (40.0 * math.log10(math.e))


def save_bright(path: Path, known: bool = True, deaf: bool = False) -> Path:
    """The input, and its lower half moved up by 11 kHz at a level of 20 dB less and `DB_PER_UNIT` along DIRECTION.

    Parameters
    ----------
    known
        The file carries the direction.
    deaf
        Noise changes nothing.
    """
    bins, half = 1025, 512
    graph = Graph(bins)
    graph.inputs.append(_value("z", ["batch", NOISE_SIZE]))
    weights = graph.constant((0.0 if deaf else _RATE) * DIRECTION[:, None])
    exponent = graph.add("Add", graph.add("MatMul", "z", weights), graph.constant(-math.log(10) / 2))
    gain = graph.add("Unsqueeze", graph.add("Exp", exponent), graph.constant([2, 3], np.int64))
    start, end, axis = (graph.constant([number], np.int64) for number in (0, half, 3))
    low = graph.add("Slice", "frames", start, end, axis)
    moved = graph.add("Pad", low, graph.constant([0, 0, 0, half, 0, 0, 0, bins - 2 * half], np.int64))
    graph.add("Add", "frames", graph.add("Mul", moved, gain), to="restored")
    axis_found = {"direction": DIRECTION.tolist(), "db_per_unit": DB_PER_UNIT}
    carried = {"brightness": axis_found} if known else {}
    return graph.save(path, metadata(lookahead=0, noise_size=NOISE_SIZE, **carried))

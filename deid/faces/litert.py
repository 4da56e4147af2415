"""Networks of TensorFlow Lite, run by LiteRT."""

from pathlib import Path
from typing import Any


def load(file: Path, threads: int) -> tuple[Any, int]:
    """An interpreter that is ready to run on that many threads of the CPU, and the index of its input."""
    from ai_edge_litert.interpreter import Interpreter

    net = Interpreter(model_path=str(file), num_threads=threads)
    net.allocate_tensors()
    return net, net.get_input_details()[0]["index"]

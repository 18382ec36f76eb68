"""Runs ONNX graphs once in a process of its own, with limits: `python -m serving.releases.probe`.

A graph may loop for hours or ask for all memory, and nothing in onnxruntime stops it. What does
not end within the limits here is never opened in a worker. Reads the graphs' paths from the
standard input, one a line; ends with code 0 unless a limit was reached.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

#: Time for all graphs of a release, and memory (address space) of the process that runs them.
LIMIT_SECONDS = 60
LIMIT_BYTES = 4 * 1024**3
#: What onnxruntime's messages contain when memory is refused.
_NO_MEMORY = ("bad_alloc", "allocate memory", "Failed to allocate")
_LIMIT_REACHED = 3
#: Variables that a Python process needs to start; secrets are not among them.
_PASSED_ON = ("PATH", "HOME", "LANG", "PYTHONPATH", "LD_LIBRARY_PATH", "TMPDIR")


class GraphLimitError(Exception):
    """A graph that did not end within the limits."""


def run_within_limits(graphs: Sequence[Path], seconds: float = LIMIT_SECONDS) -> None:
    """Open and run graphs on rows of nothing and of zeros; raises GraphLimitError."""
    command = [sys.executable, "-m", "serving.releases.probe"]
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    try:
        ended = subprocess.run(
            command,
            input="\n".join(map(str, graphs)).encode(),
            env=environment,
            timeout=seconds,
            capture_output=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise GraphLimitError(f"a graph did not end within {seconds:.0f} s") from None
    if ended.returncode != 0:
        raise GraphLimitError(f"a graph ended its process with code {ended.returncode}")


def main() -> None:
    """Run the graphs named on standard input; raises SystemExit where memory is used up."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_SECONDS, LIMIT_SECONDS))
    for path in sys.stdin.read().splitlines():
        try:
            run_graph(path)
        # Other errors are the loader's to find: it names the member and the part.
        except Exception as error:
            if isinstance(error, MemoryError) or any(word in str(error) for word in _NO_MEMORY):
                raise SystemExit(_LIMIT_REACHED) from None


def run_graph(path: str) -> None:
    """Run a graph on one row of missing values and one of zeros, in the shape of its inputs."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for value in (np.nan, 0.0):
        row = {
            node.name: np.full([size if isinstance(size, int) else 1 for size in node.shape], value)
            for node in session.get_inputs()
        }
        session.run(None, {name: numbers.astype(np.float32) for name, numbers in row.items()})


if __name__ == "__main__":
    main()

"""A graph that never ends, or asks for all memory, ends in its own process and not in a worker."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.releases.probe import GraphLimitError, run_within_limits


def write_graph(path: Path, nodes: list, constants: dict[str, np.ndarray]) -> Path:
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 3])
    output = helper.make_tensor_value_info("probability", TensorProto.FLOAT, None)
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", [features], [output], held)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


def write_loop(path: Path, steps: int) -> Path:
    """Write a graph that adds one to its input `steps` times."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["held", "one"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("held", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.array(1, np.float32), "one")],
    )
    loop = helper.make_node("Loop", ["steps", "yes", "features"], ["probability"], body=body)
    constants = {"steps": np.array(steps, np.int64), "yes": np.array(True)}
    return write_graph(path, [loop], constants)


def test_a_loop_of_a_billion_steps_is_given_up(tmp_path: Path) -> None:
    endless = write_loop(tmp_path / "endless.onnx", 10**9)
    with pytest.raises(GraphLimitError, match="did not end within"):
        run_within_limits([endless], seconds=5)


def test_a_graph_that_asks_for_all_memory_is_given_up(tmp_path: Path) -> None:
    shape = {"shape": np.array([1 << 20, 1 << 20], np.int64), "zero": np.array(0, np.float32)}
    nodes = [helper.make_node("Expand", ["zero", "shape"], ["probability"])]
    huge = write_graph(tmp_path / "huge.onnx", nodes, shape)
    with pytest.raises(GraphLimitError, match="code"):
        run_within_limits([huge])


def test_a_graph_that_ends_passes_and_one_that_is_none_is_the_loader_s_to_refuse(
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    run_within_limits([write_loop(tmp_path / "short.onnx", 10), broken])


def test_the_process_that_runs_a_graph_holds_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nenv > {tmp_path / 'seen'}\n")
    script.chmod(0o755)
    monkeypatch.setenv("JWT_SECRET_KEY", "a secret of the worker")
    run_within_limits([])

    assert "JWT_SECRET_KEY" not in (tmp_path / "seen").read_text()

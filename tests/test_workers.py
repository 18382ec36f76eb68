"""How `make test` distributes tests: each worker gets whole files."""

import pytest


def test_a_worker_gets_whole_files(request: pytest.FixtureRequest) -> None:
    """pytest-xdist names the group of a test in its id; without one it distributes single tests."""
    if not hasattr(request.config, "workerinput"):
        pytest.skip("the tests are not distributed")

    assert request.node.nodeid.endswith("@tests/test_workers.py")

"""Addresses of MLflow's pages of runs, artifacts, models and versions.

Each asks for the view of machine learning: without it MLflow opens an experiment on an overview
of traces, of which there are none.
"""

VIEW = "workflowType=machine_learning"


def locate_run(experiment_id: str, run_id: str, artifact: str = "", host: str = "") -> str:
    """Return the page of a run, or of an artifact of it; without `host` relative to MLflow's."""
    path = f"#/experiments/{experiment_id}/runs/{run_id}"
    if artifact:
        path += f"/artifacts/{artifact}"
    return _join(host, path)


def locate_run_alone(run_id: str, host: str = "") -> str:
    """Return the page of a run whose experiment is not at hand; MLflow forwards it."""
    return _join(host, f"#/runs/{run_id}")


def locate_model(model: str, host: str = "") -> str:
    """Return the page of a registered model with its versions."""
    return _join(host, f"#/models/{model}")


def locate_models(host: str = "") -> str:
    """Return the page of all registered models."""
    return _join(host, "#/models")


def locate_version(model: str, version: int | str, host: str = "") -> str:
    """Return the page of a registered version."""
    return _join(host, f"#/models/{model}/versions/{version}")


def _join(host: str, path: str) -> str:
    return f"{host.rstrip('/')}/{path}?{VIEW}" if host else f"{path}?{VIEW}"

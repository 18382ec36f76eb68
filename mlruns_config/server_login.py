"""Permissions at the MLflow server: administrators may do everything, others read.

MLflow's own READ permission still lets anyone create experiments and models; here a request
that would change something is refused before MLflow sees it. Moving a version between stages and
rollouts is left to MLflow, which asks for a right on that model: the promoter's login has it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from werkzeug.datastructures import Authorization
    from werkzeug.wrappers import Response

#: The shortest password MLflow takes.
PASSWORD_LENGTH = 12

READING_METHODS = ("GET", "HEAD", "OPTIONS")
#: What MLflow's UI and clients ask by POST without changing anything.
READING_PATHS = (
    "/mlflow/experiments/search",
    "/mlflow/runs/search",
    "/mlflow/registered-models/get-latest-versions",
    "/mlflow/logged-models/search",
    "/mlflow/traces/search",
    "/mlflow/datasets/search",
    "/mlflow/experiments/search-datasets",
    "/mlflow/metrics/get-history-bulk-interval",
    "/graphql",
)
#: What moves a version between stages and rollouts.
PROMOTING_PATHS = (
    "/mlflow/model-versions/transition-stage",
    "/mlflow/model-versions/set-tag",
    "/mlflow/model-versions/delete-tag",
    "/mlflow/registered-models/alias",
)


def is_reading(method: str, path: str) -> bool:
    """Return whether a request changes nothing."""
    return method in READING_METHODS or (method == "POST" and path.endswith(READING_PATHS))


def is_promoting(path: str) -> bool:
    """Return whether a request only moves a model version, which MLflow checks itself."""
    return path.endswith(PROMOTING_PATHS)


def authorise() -> "Authorization | Response":
    """Check a login, and that it may change what it changes (MLflow calls this)."""
    # Inside: importing MLflow's login module needs the server's environment.
    from flask import make_response, request
    from mlflow.server.auth import authenticate_request_basic_auth, store
    from werkzeug.datastructures import Authorization

    authorization = authenticate_request_basic_auth()
    if not isinstance(authorization, Authorization) or is_reading(request.method, request.path):
        return authorization
    if is_promoting(request.path):
        return authorization
    if store.get_user(str(authorization.username)).is_admin:
        return authorization
    return make_response("This login may read and not change anything.", 403)

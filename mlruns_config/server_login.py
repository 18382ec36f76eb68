"""Permissions at the MLflow server: administrators may do everything, others read.

MLflow's own READ permission still lets anyone create experiments and models; here a request
that would change something is refused before MLflow sees it. Moving a version between stages and
rollouts is left to MLflow, which asks for a right on that model: the promoter's login has it.
"""

import threading
from typing import TYPE_CHECKING

from cachetools import TTLCache

if TYPE_CHECKING:
    from werkzeug.datastructures import Authorization
    from werkzeug.wrappers import Response

#: The shortest password MLflow takes.
PASSWORD_LENGTH = 12

#: Wrong passwords of one login from one address, in one worker, before further ones are refused
#: unread; and for how many seconds. NIST SP 800-63B allows at most 100.
MAX_WRONG_LOGINS = 10
LOCKED_SECONDS = 600

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


class WrongLogins:
    """Counts wrong passwords by login and address: no caller locks out those of another address."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: TTLCache[tuple[str, str], int] = TTLCache(10_000, LOCKED_SECONDS)

    def is_locked(self, caller: tuple[str, str]) -> bool:
        with self._lock:
            return self._counts.get(caller, 0) >= MAX_WRONG_LOGINS

    def count(self, caller: tuple[str, str], was_right: bool) -> None:
        with self._lock:
            if was_right:
                self._counts.pop(caller, None)
            else:
                self._counts[caller] = self._counts.get(caller, 0) + 1


WRONG_LOGINS = WrongLogins()


def authorise() -> "Authorization | Response":
    """Check a login, and that it may change what it changes (MLflow calls this)."""
    # Inside: importing MLflow's login module needs the server's environment.
    from flask import make_response, request
    from mlflow.server.auth import store
    from werkzeug.datastructures import Authorization

    authorization = authenticate_within_limits()
    if not isinstance(authorization, Authorization) or is_reading(request.method, request.path):
        return authorization
    if is_promoting(request.path):
        return authorization
    if store.get_user(str(authorization.username)).is_admin:
        return authorization
    return make_response("This login may read and not change anything.", 403)


def authenticate_within_limits() -> "Authorization | Response":
    """Check a login, unless its password was wrong MAX_WRONG_LOGINS times of late."""
    from flask import make_response, request
    from mlflow.server.auth import authenticate_request_basic_auth
    from werkzeug.datastructures import Authorization

    given = request.authorization
    if given is None or given.username is None:
        return authenticate_request_basic_auth()
    caller = (given.username, request.remote_addr or "")
    if WRONG_LOGINS.is_locked(caller):
        response = make_response("Too many wrong passwords for this login. Try again later.", 429)
        response.headers["Retry-After"] = str(LOCKED_SECONDS)
        return response
    authorization = authenticate_request_basic_auth()
    WRONG_LOGINS.count(caller, isinstance(authorization, Authorization))
    return authorization

"""MLflow's registry over its REST interface, as far as serving needs it.

MLflow's own client imports pandas and takes 3.4 s and 130 MB of every worker (measured,
mlflow-skinny 3.17.2), for the four requests below.
"""

from pathlib import Path
from typing import Any

import httpx

from mlruns_config.arms import CANDIDATE_ALIAS, Rollout, read_tags

CONNECT_SECONDS = 2.0
READ_SECONDS = 15.0
PRODUCTION_STAGE = "Production"
PRODUCTION_ALIAS = "production"


class RegistryUnavailableError(Exception):
    """MLflow did not answer, or answered with an error of its own."""


class NoProductionVersionError(Exception):
    """The registry names no Production version, or names two different ones."""


class Registry:
    """A connection to the MLflow server at `tracking_uri` (http or https), with its login."""

    def __init__(
        self,
        tracking_uri: str,
        login: tuple[str, str] | None = None,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        # trust_env: the registry is inside; no proxy may come between.
        self._client = httpx.Client(
            base_url=tracking_uri,
            auth=login,
            timeout=httpx.Timeout(read_seconds, connect=CONNECT_SECONDS),
            trust_env=False,
        )

    def find_production_version(self, model: str) -> int:
        """Return the numeric Production version of `model`.

        Stage and alias are set one after the other; while they differ, a transition is running or
        was cut off, and neither is trusted. Raises NoProductionVersionError.
        """
        staged = self._find_staged_version(model)
        model_version = self._find_by_alias(model, PRODUCTION_ALIAS)
        aliased = None if model_version is None else int(model_version["version"])
        if staged is None:
            raise NoProductionVersionError(f"{model} has no version in stage {PRODUCTION_STAGE}")
        if staged != aliased:
            raise NoProductionVersionError(
                f"{model}: stage {PRODUCTION_STAGE} is version {staged}, "
                f"alias {PRODUCTION_ALIAS} is version {aliased}"
            )
        return staged

    def find_rollout(self, model: str) -> Rollout | None:
        """Return the running rollout of a candidate, or None.

        Raises ValueError when its traffic share is no share.
        """
        model_version = self._find_by_alias(model, CANDIDATE_ALIAS)
        if model_version is None:
            return None
        return read_tags(int(model_version["version"]), _read_tags(model_version))

    def download(self, model: str, version: int, path: str, target: Path) -> None:
        """Write one artifact of a model version to `target`."""
        parameters = {"name": model, "version": str(version), "path": path}
        response = self._request("GET", "/model-versions/get-artifact", params=parameters)
        self._require_success(response, f"{model} version {version} {path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(response.content)

    def read_run_text(self, run_id: str, path: str) -> str:
        """Return a text that a run logged; raises RegistryUnavailableError without one."""
        response = self._request("GET", "/get-artifact", params={"run_id": run_id, "path": path})
        self._require_success(response, f"{path} of a run")
        return response.content.decode("utf-8", "replace")

    def read_tag(self, model: str, version: int, tag: str) -> str | None:
        """Return a tag of a model version, None when the version has no such tag."""
        response = self._request(
            "GET",
            "/api/2.0/mlflow/model-versions/get",
            params={"name": model, "version": str(version)},
        )
        self._require_success(response, f"{model} version {version}")
        return _read_tags(response.json()["model_version"]).get(tag)

    def close(self) -> None:
        self._client.close()

    def _find_staged_version(self, model: str) -> int | None:
        response = self._request(
            "POST",
            "/api/2.0/mlflow/registered-models/get-latest-versions",
            json={"name": model, "stages": [PRODUCTION_STAGE]},
        )
        if _is_absent(response):
            return None
        self._require_success(response, f"versions of {model}")
        versions = [
            int(model_version["version"])
            for model_version in response.json().get("model_versions", [])
        ]
        return max(versions, default=None)

    def _find_by_alias(self, model: str, alias: str) -> dict[str, Any] | None:
        response = self._request(
            "GET",
            "/api/2.0/mlflow/registered-models/alias",
            params={"name": model, "alias": alias},
        )
        if _is_absent(response):
            return None
        self._require_success(response, f"alias {alias} of {model}")
        model_version: dict[str, Any] = response.json()["model_version"]
        return model_version

    def _request(self, method: str, path: str, **options: object) -> httpx.Response:
        try:
            return self._client.request(method, path, **options)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            raise RegistryUnavailableError(f"MLflow: {type(error).__name__}") from error

    @staticmethod
    def _require_success(response: httpx.Response, what: str) -> None:
        if not response.is_success:
            raise RegistryUnavailableError(f"MLflow answered {response.status_code} for {what}")


def _read_tags(version: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in version.get("tags", [])}


def _is_absent(response: httpx.Response) -> bool:
    """Return True if MLflow's answer is that the model or the alias does not exist.

    A missing model is 404; a missing alias 400 with INVALID_PARAMETER_VALUE.
    """
    if response.status_code == httpx.codes.NOT_FOUND:
        return True
    if response.status_code != httpx.codes.BAD_REQUEST:
        return False
    return "not found" in response.json().get("message", "")

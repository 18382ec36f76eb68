"""Where PostgreSQL is, in each environment."""

from dataclasses import dataclass
from enum import StrEnum


class Environment(StrEnum):
    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"


@dataclass(frozen=True)
class Hosts:
    """Where PostgreSQL is reached: directly, and by the API (through the pooler, if any).

    `ca` is the authority of a server outside the cluster, in PEM. With `by_operator`
    CloudNativePG makes the roles, from one Secret for each.
    """

    direct: str
    api: str
    query: str = ""
    ca: str = ""
    port: int = 5432
    by_operator: bool = False


HOSTS = {
    Environment.DEVELOPMENT: Hosts("postgres", "postgres"),
    Environment.STAGING: Hosts("postgres", "postgres"),
    Environment.PRODUCTION: Hosts(
        "mhras-postgres-rw",
        "mhras-postgres-pooler-rw",
        "?sslmode=verify-ca",
        by_operator=True,
    ),
}


def make_managed_hosts(host: str, ca: str) -> Hosts:
    """Return the hosts of a server outside the cluster, whose name its certificate must have."""
    return Hosts(host, host, "?sslmode=verify-full", ca)

"""Who may do what: the deployment guide's roles and the permissions each one has."""

from enum import StrEnum


class Role(StrEnum):
    ADMIN = "admin"
    CLINICIAN = "clinician"
    DATA_SCIENTIST = "data_scientist"
    AUDITOR = "auditor"


class Permission(StrEnum):
    READ_SERVICE_INFO = "read_service_info"
    SCREEN = "screen"


_EVERY_ROLE = frozenset({Permission.READ_SERVICE_INFO})

PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.ADMIN: frozenset(Permission),
    Role.CLINICIAN: _EVERY_ROLE | {Permission.SCREEN},
    Role.DATA_SCIENTIST: _EVERY_ROLE,
    Role.AUDITOR: _EVERY_ROLE,
}

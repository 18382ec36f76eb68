"""Who may do what: the deployment guide's roles and the permissions each one has."""

from enum import StrEnum


class Role(StrEnum):
    ADMIN = "admin"
    CLINICIAN = "clinician"
    DATA_SCIENTIST = "data_scientist"
    AUDITOR = "auditor"


class Permission(StrEnum):
    """What an operation needs; the guide's wording is in the comment of each group."""

    READ_SERVICE_INFO = "read_service_info"
    # "Screen individuals, view risk scores, access review queue"
    SCREEN = "screen"
    OVERRIDE_CRISIS = "override_crisis"
    ACCESS_REVIEW_QUEUE = "access_review_queue"
    MANAGE_CONSENTS = "manage_consents"
    #: Answers to single items of a questionnaire.
    VIEW_ANSWERS = "view_answers"
    # "View predictions, access explanations, monitor drift"
    VIEW_PREDICTIONS = "view_predictions"
    VIEW_PASSPORTS = "view_passports"
    MONITOR_DRIFT = "monitor_drift"
    VIEW_MODELS = "view_models"
    # "Read-only access to audit logs and compliance reports"
    READ_AUDIT = "read_audit"
    READ_COMPLIANCE = "read_compliance"
    VIEW_ACCESS_HISTORY = "view_access_history"
    # "Full access to all endpoints and configuration"
    EXPORT_INDIVIDUALS = "export_individuals"
    ERASE_INDIVIDUALS = "erase_individuals"
    MANAGE_MODELS = "manage_models"
    REVOKE_TOKENS = "revoke_tokens"
    READ_CONFIGURATION = "read_configuration"


_EVERY_ROLE = frozenset({Permission.READ_SERVICE_INFO})

PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.ADMIN: frozenset(Permission),
    Role.CLINICIAN: _EVERY_ROLE
    | {
        Permission.SCREEN,
        Permission.OVERRIDE_CRISIS,
        Permission.ACCESS_REVIEW_QUEUE,
        # Consent is given to whoever looks after the individual.
        Permission.MANAGE_CONSENTS,
        Permission.VIEW_ANSWERS,
        Permission.VIEW_PREDICTIONS,
        Permission.VIEW_PASSPORTS,
    },
    Role.DATA_SCIENTIST: _EVERY_ROLE
    | {
        Permission.VIEW_PREDICTIONS,
        Permission.VIEW_PASSPORTS,
        Permission.MONITOR_DRIFT,
        Permission.VIEW_MODELS,
    },
    # Nothing here changes anything: whoever checks the record must not write to it.
    Role.AUDITOR: _EVERY_ROLE
    | {
        Permission.READ_AUDIT,
        Permission.READ_COMPLIANCE,
        Permission.VIEW_ACCESS_HISTORY,
        Permission.VIEW_PASSPORTS,
    },
}

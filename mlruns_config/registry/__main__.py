"""``python -m mlruns_config.registry``: see `mlruns_config.registry.commands`."""

from mlruns_config.registry.commands import app

if __name__ == "__main__":
    app()

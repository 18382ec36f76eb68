"""How a task that reads from or writes to a service tries again: `@task(**IO_RETRIES)`."""

from typing import Any

IO_RETRIES: dict[str, Any] = {"retries": 2, "retry_delay_seconds": [2, 10]}

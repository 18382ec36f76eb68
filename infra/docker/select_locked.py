"""Print the lines of a lock file whose packages another list names.

    python select_locked.py requirements.lock needed.txt > locked.txt

Exits with 1, naming them, if something is needed that the lock does not have.
"""

import re
import sys
from pathlib import Path


def read_packages(text: str) -> dict[str, str]:
    """Return each requirement line by its package's normalised name."""
    lines = [line.strip() for line in text.splitlines()]
    pinned = [line for line in lines if line and not line.startswith(("#", "-"))]
    return {normalise(re.split(r"[=<>\[; ]", line, maxsplit=1)[0]): line for line in pinned}


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def select_locked(lock: str, needed: str) -> list[str]:
    """Return the locked lines; raises KeyError with what is needed and not locked."""
    locked, names = read_packages(lock), read_packages(needed)
    if missing := sorted(set(names) - set(locked)):
        raise KeyError(", ".join(missing))
    return [locked[name] for name in sorted(names)]


def main(lock: str, needed: str) -> None:
    try:
        lines = select_locked(Path(lock).read_text(), Path(needed).read_text())
    except KeyError as error:
        sys.stderr.write(f"not in {lock}: {error.args[0]}\n")
        sys.exit(1)
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:3])

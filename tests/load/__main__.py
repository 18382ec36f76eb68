"""`make bench`: every benchmark in turn. They print ratios and assert nothing about time.

Each has a process of its own, because a process never reports a peak of memory below its
parent's. One that fails does not keep the others from running; the exit code is 1 then.

All but those that take long: the training at 2,000 and 20,000 individuals, half an hour
(``python -m tests.load.bench_training``); releases beside their baselines over five seeds, an hour
(``python -m tests.load.bench_release``); each member's gain by people, a quarter of an hour
(``python -m tests.load.bench_learning_curve``); and the backup of a million predictions, minutes
(``python -m tests.load.bench_backup``).
"""

import subprocess
import sys

BENCHMARKS = ("scoring", "features", "ingestion", "drift", "serving", "ehr")


def main() -> None:
    commands = {name: [sys.executable, "-m", f"tests.load.bench_{name}"] for name in BENCHMARKS}
    failed = [name for name, command in commands.items() if subprocess.run(command).returncode]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

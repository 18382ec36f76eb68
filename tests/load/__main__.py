"""`make bench`: every benchmark in turn. They print ratios and assert nothing about time.

All but those that take long: the training at 2,000 and 20,000 individuals, half an hour
(``python -m tests.load.bench_training``); releases beside their baselines over five seeds, an hour
(``python -m tests.load.bench_release``); and the backup of a million predictions, minutes
(``python -m tests.load.bench_backup``).
"""

from tests.load import (
    bench_drift,
    bench_ehr,
    bench_features,
    bench_ingestion,
    bench_scoring,
    bench_serving,
)

BENCHMARKS = (bench_scoring, bench_features, bench_ingestion, bench_drift, bench_serving, bench_ehr)


def main() -> None:
    for benchmark in BENCHMARKS:
        benchmark.main()


if __name__ == "__main__":
    main()

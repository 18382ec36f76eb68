"""`make bench`: every benchmark in turn. They print ratios and assert nothing about time."""

from tests.load import bench_features, bench_scoring, bench_serving

BENCHMARKS = (bench_scoring, bench_features, bench_serving)


def main() -> None:
    for benchmark in BENCHMARKS:
        benchmark.main()


if __name__ == "__main__":
    main()

"""Timing for benchmarks: two calls in turn, medians and their ratio."""

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter

ROUNDS = 60
WARM_UP = 5


def measure_pairs(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int = ROUNDS
) -> tuple[float, float]:
    """Return the median milliseconds of each, called in turn."""
    for _ in range(WARM_UP):
        ours()
        theirs()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for kept, call in zip(times, (ours, theirs), strict=True):
            begun = perf_counter()
            call()
            kept.append(1000 * (perf_counter() - begun))
    return median(times[0]), median(times[1])


def print_table(
    title: str, theirs: str, ours: str, rows: Sequence[tuple[str, str, float, float]]
) -> None:
    """Print name, what the peer is, both times and the ratio, and the sums."""
    print(f"\n{title}\n")
    print(f"{'':22} {'peer':28} {theirs + ' ms':>12} {ours + ' ms':>12} {'ratio':>8}")
    for name, peer, slow, fast in rows:
        print(f"{name:22} {peer:28} {slow:12.3f} {fast:12.3f} {slow / fast:7.1f}x")
    slow, fast = sum(row[2] for row in rows), sum(row[3] for row in rows)
    print(f"{'all':22} {'':28} {slow:12.3f} {fast:12.3f} {slow / fast:7.1f}x")

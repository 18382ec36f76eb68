"""Screening gives back what it takes: files, connections, threads."""

import psutil
from sqlalchemy import text

ROUNDS = 60
IDLE_IN_TRANSACTION = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND state LIKE 'idle in transaction%'"
)


def test_screenings_leave_no_file_and_no_connection_open(screen, grant, engine):
    """Answered and refused ones alike, once the pools are filled."""
    person, process = grant(), psutil.Process()

    def send(rounds):
        for number in range(rounds):
            assert screen(person, [number % 4] * 8 + [0]).status_code == 200
            assert screen("0" * 32, [1] * 9).status_code == 403
            assert screen(person, [9] * 9).status_code == 422

    send(15)
    before = process.num_fds(), process.num_threads()
    send(ROUNDS)

    # A thread pool may grow by the calls that happened to overlap.
    assert process.num_fds() <= before[0] + 3
    assert process.num_threads() <= before[1] + 3
    with engine.connect() as connection:
        assert connection.scalar(IDLE_IN_TRANSACTION) == 0

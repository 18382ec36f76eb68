"""Arguments of tasks that Prefect is not to search."""

from typing import TypeVar, cast

from prefect.utilities.annotations import quote

Argument = TypeVar("Argument")


def pass_whole(argument: Argument) -> Argument:
    """Return an argument that a task receives as it is, and that holds no future of another task.

    Prefect looks for futures in every value of every collection, dataclass and model that a task
    is given, twice: of five thousand screenings that takes longer than the task. The result is for
    a call of a task only.
    """
    return cast(Argument, quote(argument))

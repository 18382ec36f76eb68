"""Reading the plain forms of the console: URL-encoded fields, validated as the API's bodies are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from serving.errors import UnusableError
from serving.http.problems import list_validation_problems

FORM_TYPE = "application/x-www-form-urlencoded"
#: Fields of a form; the longest page has a third of it.
MAX_FIELDS = 100

Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True)
class Form:
    """The fields of a form by name; a field that was left empty counts as not given."""

    fields: Mapping[str, list[str]] = field(default_factory=dict)

    def get(self, name: str) -> str | None:
        given = [value for value in self.fields.get(name, []) if value.strip()]
        return given[-1].replace("\r\n", "\n") if given else None

    def list(self, name: str) -> list[str]:
        return list(self.fields.get(name, []))

    def pick(self, *names: str) -> dict[str, Any]:
        """Return the named fields that were given."""
        fields = {name: self.get(name) for name in names}
        return {name: value for name, value in fields.items() if value is not None}


async def read_form(request: Request) -> Form:
    """Return the form that a request carries; an empty one for a page that is only viewed.

    Raises UnusableError for a body that is no form.
    """
    if request.method not in ("POST",):
        return Form()
    if request.headers.get("Content-Type", "").partition(";")[0].strip() != FORM_TYPE:
        raise UnusableError(f"a form is sent as {FORM_TYPE}")
    try:
        text = (await request.body()).decode("utf-8")
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError:
        raise UnusableError("the form cannot be read") from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return Form(fields)


SentForm = Annotated[Form, Depends(read_form)]


@dataclass(frozen=True)
class FieldErrors:
    """What is wrong with a form, by field; an empty name stands for the form as a whole."""

    messages: Mapping[str, str]


def validate_form(body: type[Body], values: Mapping[str, Any]) -> Body | FieldErrors:
    """Return the values as a body of the API, or what is wrong with each field."""
    try:
        return body.model_validate(values)
    except ValidationError as error:
        problems = list_validation_problems(error, "form")
        return FieldErrors({_name(problem.field): problem.message for problem in problems})


def _name(named: str) -> str:
    return "" if named == "form" else named

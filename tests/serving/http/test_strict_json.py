"""What a lenient reader would guess at is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.http.strict_json import read_strictly
from tests.fixtures.api import make_headers

SOMEONE = "0123456789abcdef0123456789abcdef"
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False).filter(lambda number: abs(number) != float("inf")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    "body",
    [
        f'{{"anonymized_id": "{SOMEONE}", "anonymized_id": "{SOMEONE}"}}',
        f'{{"anonymized_id": "{SOMEONE}", "survey_data": {{"gad7": null, "gad7": null}}}}',
        '{"anonymized_id": NaN}',
        '{"anonymized_id": Infinity}',
        "[" * 100_000,
        '{"anonymized_id": ',
        b"\xff\xfe",
        f'{{"survey_data": {{"phq9_score": {"1" * 5000}}}}}',
    ],
)
def test_an_ambiguous_body_is_refused_without_repeating_it(client, body):
    headers = make_headers() | {"Content-Type": "application/json"}
    response = client.post("/screen", content=body, headers=headers)

    assert response.status_code == 422
    assert response.json()["type"] == "urn:mhras:problem:invalid-request"
    assert SOMEONE not in response.text


@given(VALUES)
def test_plain_json_is_read_as_it_was_written(value):
    assert read_strictly(json.dumps(value).encode()) == value

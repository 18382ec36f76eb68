"""A person sees where they are signed in, and ends what they do not know."""

import re

from sqlalchemy import select
from sqlalchemy.orm import Session

from serving.console.access import name_cookie
from serving.database.tables import AuditRow
from serving.roles import Role
from tests.fixtures.console import read_text

PAGE = "/console/sessions"


def list_names(visitor):
    return re.findall(r'name="session" value="([0-9a-f]{32})"', visitor.get(PAGE).text)


def is_signed_in(visitor):
    return visitor.get(PAGE).status_code == 200


def test_a_session_of_another_person_is_neither_shown_nor_ended(visit):
    other = visit().sign_in(user="dr.other.session")
    second = visit().sign_in(user="dr.other.session")
    (name,) = list_names(other)
    mine = visit().sign_in(user="dr.mine.session")

    assert name not in mine.get(PAGE).text
    assert mine.post(PAGE, f"{PAGE}/end", {"session": name}).status_code == 303
    assert mine.post(PAGE, f"{PAGE}/end").status_code == 303
    assert is_signed_in(other)
    assert is_signed_in(second)


def test_an_end_without_the_token_of_a_page_is_refused(visit):
    first, second = (visit().sign_in(user="dr.forged.session") for _ in range(2))

    assert first.post_raw(f"{PAGE}/end", {"session": "0" * 32}).status_code == 403
    assert is_signed_in(second)


def test_one_session_is_ended_by_its_name(visit):
    lost, kept, present = (visit().sign_in(user="dr.three.sessions") for _ in range(3))
    (name,) = set(list_names(present)) & set(list_names(kept))
    present.post(PAGE, f"{PAGE}/end", {"session": name})

    assert not is_signed_in(lost)
    assert is_signed_in(kept)
    assert is_signed_in(present)


def test_all_other_sessions_are_ended_at_once_and_audited(visit, engine):
    others = [visit().sign_in(Role.AUDITOR, "au.many.sessions") for _ in range(3)]
    present = visit().sign_in(Role.AUDITOR, "au.many.sessions")
    present.post(PAGE, f"{PAGE}/end")

    assert [is_signed_in(one) for one in others] == [False] * 3
    assert is_signed_in(present)
    assert "End all other sessions" not in read_text(present.get(PAGE))
    with Session(engine) as session:
        rows = session.scalars(select(AuditRow).where(AuditRow.action == "end_sessions"))
        assert [(row.user_id, row.details) for row in rows][-1] == (
            "au.many.sessions",
            {"ended": 3},
        )


def test_a_sign_in_ends_the_earlier_session_of_the_same_browser(visit, settings):
    visitor = visit().sign_in(user="dr.again")
    earlier = visitor.client.cookies[name_cookie(settings)]
    visitor.sign_in(user="dr.again")
    assert visitor.client.cookies[name_cookie(settings)] != earlier
    visitor.client.cookies.clear()
    visitor.client.cookies.set(name_cookie(settings), earlier)

    assert not is_signed_in(visitor)

from itertools import product

import pytest

from serving.crisis import SelfHarmSignal, read_signal


def test_every_answer_vector_with_item_9_above_zero_forces_the_top_band():
    """All 262,144 of them: 196,608 force it, the others do not."""
    forced = sum(
        read_signal(answers, None).forces_top_band for answers in product(range(4), repeat=9)
    )

    assert forced == 196_608


@pytest.mark.parametrize("others", [[0] * 8, [3] * 8, [None] * 8])
@pytest.mark.parametrize(
    ("item_9", "signal"),
    [(0, "denied"), (1, "present"), (2, "present"), (3, "present"), (None, "unreadable")],
)
def test_item_9_alone_decides(others, item_9, signal):
    assert read_signal([*others, item_9], None) == signal


@pytest.mark.parametrize(
    ("total", "signal"), [(0, "denied"), (1, "unknown"), (24, "unknown"), (25, "present")]
)
def test_a_total_says_of_item_9_only_what_it_proves(total, signal):
    assert read_signal(None, total) == signal


def test_an_unreadable_item_9_forces_the_top_band_like_the_worst_answer():
    assert SelfHarmSignal.UNREADABLE.forces_top_band


def test_without_phq9_nothing_is_said():
    assert read_signal(None, None) is SelfHarmSignal.NOT_ASKED
    assert not SelfHarmSignal.NOT_ASKED.forces_top_band

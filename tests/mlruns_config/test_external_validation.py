"""The section of a card on external validations, and the line of a version's description."""

from dataclasses import replace
from datetime import UTC, date, datetime

from mlruns_config.description import DESCRIPTION_LIMIT
from mlruns_config.external_validation import (
    ExternalFacts,
    add_to_card,
    add_to_description,
)

CARD = "# Card\n\n## External validation\n\nNone has been made.\n\n## Operating points\n\nedges\n"
FACTS = ExternalFacts(
    run_id="a" * 32,
    experiment_id="7",
    made_at=datetime(2026, 11, 29, tzinfo=UTC),
    source="clinic B, 2024",
    simulated=False,
    trained_on_simulated=True,
    period=(date(2024, 1, 1), date(2024, 12, 31)),
    known=3,
    metrics={
        "auroc": 0.78,
        "observed_over_expected": 1.1,
        "rows": 1200.0,
        "individuals": 300.0,
        "outcomes": 150.0,
    },
    intervals={"auroc": (0.74, 0.82)},
    groups_table="| group |",
    not_judged_table="None.",
    calibration_table="| severity |",
    few="",
    recalibration="none is called for.",
)


def read_section(card: str) -> str:
    return card.partition("## External validation\n")[2].partition("\n## ")[0]


def test_the_first_validation_takes_the_place_of_none():
    card = add_to_card(CARD, FACTS)
    section = read_section(card)

    assert "None has been made." not in section
    assert "### clinic B, 2024" in section
    assert "of people; the release was trained on simulated people" in section
    assert "| auroc | 0.780 | 0.740 to 0.820 |" in section
    assert "3 individuals were left out" in section
    assert card.endswith("## Operating points\n\nedges\n")


def test_a_second_validation_is_added_and_a_repeated_one_is_not_doubled():
    other = replace(FACTS, run_id="b" * 32, source="clinic C")
    card = add_to_card(add_to_card(add_to_card(CARD, FACTS), other), replace(FACTS, known=0))

    section = read_section(card)
    assert section.count("### clinic B, 2024") == section.count("### clinic C") == 1
    assert "3 individuals were left out" not in section.partition("### clinic B")[2]


def test_a_card_from_before_gets_a_section():
    card = add_to_card("# Card\n\n## Data\n\nrows\n", FACTS)
    assert card.startswith("# Card\n\n## Data\n\nrows\n\n## External validation\n\n### clinic B")


def test_a_description_gains_one_line_and_never_grows_beyond_what_mlflow_keeps():
    line = add_to_description("what it is", FACTS)
    assert line.splitlines()[1].startswith("- [External validation](#/experiments/7/runs/aaaa")
    assert add_to_description(line, FACTS) == line
    full = "x" * (DESCRIPTION_LIMIT - 10)
    assert add_to_description(full, FACTS) == full

"""What the Production release and the rules answer over severities and people, as a table.

`python -m tests.load.bench_grid` in an environment that points at a running stack; the table of
`serving/README.md` is of a release trained on simulated people.
"""

from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.severity import load_severity_rules
from serving.releases.loading import load_release
from serving.releases.registry import Registry
from serving.scoring.assessment import ExplanationOptions, assess
from serving.scoring.estimate import BandEdges
from serving.scoring.loaded_release import Release
from serving.screening.answers import ScreeningAnswer
from serving.screening.composition import Thresholds, compose_answer
from serving.settings import load_settings
from tests.fixtures.known_people import list_people, make_case, spread

TOTALS = (0, 5, 9, 12, 15, 18, 20, 24, 27)
PLAIN = ExplanationOptions(reasons=False, counterfactuals=False)
THRESHOLDS = Thresholds(BandEdges(), 75)


def main() -> None:
    settings = load_settings()
    registry = Registry(settings.mlflow_tracking_uri, settings.mlflow_login)
    production = registry.find_production_version(RELEASE_MODEL)
    if production is None:
        raise SystemExit("no release is in Production")
    print(describe_grid(load_release(registry, production)))


def describe_grid(release: Release) -> str:
    """Return the grid as Markdown: score, both probabilities, and an asterisk for a review."""
    lines = ["| person | " + " | ".join(f"{total}" for total in TOTALS) + " |"]
    lines.append("|---" * (len(TOTALS) + 1) + "|")
    for name, stored in list_people(release.manifest).items():
        cells = [describe_cell(answer(release, stored, total)) for total in TOTALS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def answer(release: Release, stored: dict[str, float], total: int) -> ScreeningAnswer:
    item_9 = 0 if total <= 24 else total - 24
    case = make_case(release.manifest, stored, spread(total, item_9))
    findings = case.apply_rules(release, load_severity_rules())
    return compose_answer("a" * 32, findings, assess(release, case, PLAIN), [], THRESHOLDS)


def describe_cell(found: ScreeningAnswer) -> str:
    chances = [
        "-" if one.probability is None else f"{100 * one.probability:.0f}" for one in found.outcomes
    ]
    return f"{found.risk_score:.0f} ({'/'.join(chances)}){'*' if found.needs_review else ''}"


if __name__ == "__main__":
    main()

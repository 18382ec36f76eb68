"""The compliance report as one self-contained page, to print or to keep."""

from collections.abc import Iterator
from html import escape
from itertools import groupby

from serving.compliance.report import ComplianceReport
from serving.compliance.rows import ReportRow, list_rows

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;color:#1b1b1b}"
    "table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd;vertical-align:top}"
    "td{font-variant-numeric:tabular-nums}h1{font-size:1.4rem}h2{font-size:1.1rem}"
)


def render_page(report: ComplianceReport) -> str:
    """Return the page; it loads nothing and runs nothing."""
    period = f"{escape(report.since.isoformat())} until {escape(report.until.isoformat())}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>MHRAS compliance report</title><style>{STYLE}</style></head><body>"
        f"<h1>MHRAS compliance report</h1><p>{period}</p>"
        + "".join(_render_sections(list_rows(report)))
        + "<p>Counts from the record: they support a review of compliance and certify nothing.</p>"
        "</body></html>"
    )


def _render_sections(rows: list[ReportRow]) -> Iterator[str]:
    for section, members in groupby(rows, key=lambda row: row.section):
        yield f"<h2>{escape(section)}</h2><table>{''.join(map(_render_row, members))}</table>"


def _render_row(row: ReportRow) -> str:
    moment = " (as of now)" if row.as_of_now else ""
    item = f": {escape(row.item)}" if row.item else ""
    name = f"{escape(row.label)}{item}{moment}"
    return f'<tr><th scope="row">{name}</th><td>{escape(row.value)}</td></tr>'

"""The compliance report as one self-contained page, to print or to keep."""

from html import escape
from typing import Any

from serving.compliance.report import ComplianceReport

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;color:#1b1b1b}"
    "table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd;vertical-align:top}"
    "td{font-variant-numeric:tabular-nums}h1{font-size:1.4rem}"
)


def render_page(report: ComplianceReport) -> str:
    """Return the page; it loads nothing and runs nothing."""
    values = report.model_dump(mode="json")
    period = f"{escape(values.pop('since'))} until {escape(values.pop('until'))}"
    rows = "".join(_render_row(name, value) for name, value in values.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>MHRAS compliance report</title><style>{STYLE}</style></head><body>"
        f"<h1>MHRAS compliance report</h1><p>{period}</p>"
        f"<table>{rows}</table>"
        "<p>Counts from the record: they support a review of compliance and certify nothing.</p>"
        "</body></html>"
    )


def _render_row(name: str, value: Any) -> str:
    title = escape(name.replace("_", " ").capitalize())
    return f'<tr><th scope="row">{title}</th><td>{_render_value(value)}</td></tr>'


def _render_value(value: Any) -> str:
    if not isinstance(value, dict):
        return escape("–" if value is None else str(value))
    lines = [f"{escape(str(name))}: {_render_value(part)}" for name, part in value.items()]
    return "<br>".join(lines) or "none"

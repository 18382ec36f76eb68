"""The validation results as one page that loads nothing from anywhere.

Great Expectations' own Data Docs fetch some fifteen files and a remote logo.
"""

from datetime import datetime

from jinja2 import Environment

from flows.quality.results import TableResult

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Validation of {{ moment }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; color: #222; }
  table { border-collapse: collapse; width: 100%; margin-bottom: 2rem; }
  th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd; }
  td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
  .passed { color: #1a7f37; } .failed { color: #c62828; font-weight: 600; }
</style>
<h1>Validation</h1>
<p>{{ moment }}. Counts only: no value of any individual is on this page.</p>
{% for table in tables %}
<h2>{{ table.table }}</h2>
<p>Delta version {{ table.version if table.version is not none else "none (no such table yet)" }},
{{ "{:,}".format(table.rows) }} rows, {{ table.set_aside }} set aside.</p>
<table>
<tr><th>expectation</th><th>result</th><th class="number">rows</th>
<th class="number">unexpected</th><th class="number">share</th></tr>
{% for result in table.results %}
<tr><td title="{{ result.kind }}">{{ result.description }}</td>
<td class="{{ "passed" if result.success else "failed" }}">
{{ "passed" if result.success else "failed" }}</td>
<td class="number">{{ "{:,}".format(result.rows) }}</td>
<td class="number">{{ "{:,}".format(result.unexpected) }}</td>
<td class="number">{{ "{:.2%}".format(result.share) }}</td></tr>
{% endfor %}
</table>
{% endfor %}
</html>
"""


def render_page(tables: list[TableResult], moment: datetime) -> str:
    """Return the page (HTML) of all tables' results."""
    template = Environment(autoescape=True).from_string(PAGE)
    return template.render(tables=tables, moment=f"{moment:%Y-%m-%d %H:%M} UTC")

"""A run as one HTML page, to read, send and keep: it loads nothing, and has no script. Pure: values in, text out.

The sentences are those of the report (report*.py). All that comes from a run or a file is escaped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from engine import page_charts, report, report_where, tables
from engine.access_log import AccessLog
from engine.places import Resource, Spot
from engine.report_verdict import first_text, name_of, verdict, warning_text
from engine.report_words import said
from engine.run import Run
from engine.timelines import Timed, measured_of, predicted_of
from engine.unseen import is_not_known
from engine.verdict import binding, seen_limit
from engine.words import duration, plural, rate

MOST_DRAWN = 2000  # requests, of all runs of a page
LEAST_DRAWN = 100  # of each run
MOST_COLUMNS = 160  # of a line of source code

Source = Sequence[tuple[int, str]]  # numbered lines around a place


@dataclass(frozen=True)
class Shown:
    """A run with what stands beside its record. sources: by place, as "app/db.py:12"."""

    run: Run
    log: AccessLog | None = None
    sources: Mapping[str, Source] = field(default_factory=dict)
    name: str = ""  # empty: target and path
    is_part: bool = False  # of a probe, or a change that is tried: what is said of it stands in the notes of the page

    @property
    def title(self) -> str:
        return self.name or report.name_of_run(self.run.plan)


def page(
    head: Mapping[str, Any], all_shown: Sequence[Shown], is_complete: bool = True, notes: Sequence[str] = ()
) -> str:
    """The whole page. head: of a document, as files.heading() makes it. notes: what the runs show together."""
    most = max(LEAST_DRAWN, MOST_DRAWN // max(1, len(all_shown)))
    names = numbered([one.title for one in all_shown])
    title = f"{names[0] if len(names) == 1 else plural(len(names), 'run')}, {head['when']}"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
            f"<header>\n<h1>{escape(head['command'].split(' ')[0])}, {escape(str(head['when']))}</h1>",
            paragraph("" if all_shown else "No run has ended."),
            paragraph("" if is_complete else "This was stopped before all that was asked for had run."),
            contents(names),
            part("What the runs show together", pre("\n".join(notes).strip("\n"), "What the runs show together")),
            "</header>\n<main>",
            *(run_section(number, names[number], one, most) for number, one in enumerate(all_shown)),
            "</main>",
            footer(head),
            "</body>\n</html>\n",
        ]
    )


def numbered(names: Sequence[str]) -> list[str]:
    """Runs of the same name are told apart.

    >>> numbered(["a", "b", "a"])
    ['a, run 1 of 2', 'b', 'a, run 2 of 2']
    """
    many, seen, found = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        found.append(f"{name}, run {seen[name]} of {many[name]}" if many[name] > 1 else name)
    return found


def contents(names: Sequence[str]) -> str:
    """Links to the runs, where there are several."""
    if len(names) < 2:
        return ""
    rows = "".join(f'<li><a href="#run{k}">{escape(name)}</a></li>' for k, name in enumerate(names))
    return f'<nav aria-label="Runs"><ol>{rows}</ol></nav>'


def run_section(number: int, name: str, shown: Shown, most: int) -> str:
    run = shown.run
    warnings = [paragraph(f"Warning: {warning_text(one)}", "warning") for one in run.verdict.warnings]
    parts = [
        paragraph(lead(run), "lead"),
        *([] if shown.is_part else [paragraph(verdict(run)), *warnings]),
        part("Measured" if shown.is_part else "Predicted and measured", figures(shown) + pictures(shown, most)),
        part("Where the requests stood", places(shown)),
        part("Access log", log_of(shown)),
        part("Counts", pre(report.counts(run), "counts")),
        "" if shown.is_part else details("The whole report", report.result(run, shown.log)),
    ]
    return f'<section id="run{number}" aria-labelledby="h{number}">\n<h2 id="h{number}">{escape(name)}</h2>\n' + (
        "\n".join(filter(None, parts)) + "\n</section>"
    )


def lead(run: Run) -> str:
    """What limited the run, where, and what to change; as far as it was seen."""
    found = run.inside and run.inside.where
    failed = run.measured.failed and f"{run.measured.failed} of {run.measured.sent} requests failed."
    if found and found.circle:
        return said(failed, report_where.standstill(found))
    limit, first = seen_limit(run) if failed else binding(run), next(iter(run.verdict.limits), None)
    if limit and (failed or limit == first) and not is_not_known(run):
        return said(failed, report_where.seen_limit_text(limit), report_where.more(run, limit))
    if failed or not first or is_not_known(run):
        return said(failed, "What limited this run is not known.")
    if first.resource == Resource.ARRIVALS:
        return f"{report_where.capital(name_of(first))}."
    return f"Limit: {first_text(run, first)}"


# ---------------------------------------------------------------- the parts


def pictures(shown: Shown, most: int) -> str:
    run, rows = shown.run, measured_of(shown.run, shown.log)
    predicted, is_burst = [] if shown.is_part else predicted_of(run), not run.plan.load.is_steady
    title = "Answers of the burst over time" if is_burst else "Latency of each request over time"
    of_all = f" {most} of {len(rows)} requests are drawn." if len(rows) > most else ""
    good = sum(not one.error for one in rows)
    of_good = f" {most} of {good} answers are drawn." if good > most else ""
    if not rows:
        return paragraph("The times of single requests were not kept.")
    lines = [page_charts.Line("predicted", "p", predicted)]
    given = [] if shown.is_part else given_the_split(run)
    if is_burst and given:
        lines.append(page_charts.Line("predicted, given the split", "q", given))
    knows = any(one.started_s is not None for one in rows)
    of_rows = (
        "A bar is a request: pale until its handler starts, solid from then on. It may wait inside of it, too."
        if knows
        else "A bar is a request. When its handler started is not known."
    )
    chart = page_charts.chart(title, rows, lines, is_burst, most)
    bars = page_charts.worker_rows("The requests of each worker over time", rows, most)
    return figure(chart, about_chart(run, predicted, is_burst and bool(given)) + of_good, title) + figure(
        bars, f"{of_rows} Red: it failed. Point at a bar to see its times.{of_all}", "Requests of each worker"
    )


def about_chart(run: Run, predicted: Sequence[Timed], has_split: bool) -> str:
    if not predicted:
        return said("The dots are measured.", left_out(run))
    even = (
        "The line is predicted for an even deal. How the kernel deals requests to processes is random, and the figures"
    )
    return said(
        f"{even} above allow for it." if run.plan.deal else "The line is predicted.",
        has_split and "The dashed line is predicted given the numbers that the workers took.",
        "The dots are measured.",
        left_out(run),
    )


def left_out(run: Run) -> str:
    return "Requests that failed have no dot." if run.measured.failed else ""


def given_the_split(run: Run) -> list[Timed]:
    """The requests of a burst as predicted once more, given which worker took which request."""
    columns = run.exchanges
    if not run.split_prediction or not columns:
        return []
    return [Timed(i, 0.0, None, at_s, at_s) for i, at_s in enumerate(columns.predicted_answered_s) if at_s is not None]


def figure(svg: str, caption: str, name: str) -> str:
    if not svg:
        return ""
    return f"<figure>{scrolled(svg, name)}<figcaption>{escape(caption)}</figcaption></figure>"


def figures(shown: Shown) -> str:
    """Predicted and measured figures as a table."""
    rows = {name: of for name, of in tables.compared_figures(shown.run).items() if is_shown(shown, name)}
    if not rows:
        return paragraph("No request was answered.")
    head = ["", "throughput", "mean", "median", "p95", "p99", "last answer"]
    body = [
        [name, rate(of.throughput_rps) if of.throughput_rps else "-"]
        + [duration(value) for value in (of.mean_s, of.median_s, of.p95_s, of.p99_s, of.makespan_s)]
        for name, of in rows.items()
    ]
    return html_table("Predicted and measured figures", head, [[escape(cell) for cell in row] for row in body], "n")


def is_shown(shown: Shown, name: str) -> bool:
    return name == "measured" or not shown.is_part


def places(shown: Shown) -> str:
    """Where the requests stood, with the lines around each place."""
    found = shown.run.inside and shown.run.inside.where
    spots = [one for one in found.places if one.requests >= 0.05] if found else []
    if not found or not spots:
        return paragraph("The server was not looked into, or nothing was seen there.")
    rows = [
        [
            f"{one.requests:.1f}",
            escape(report_where.doing(one)),
            place_cell(one),
            escape(detail_text(one)),
            code_cell(shown, one),
        ]
        for one in spots[: report_where.MOST_ROWS]
    ]
    head = ["requests", "they", "at", "detail", "source"]
    about = f"Mean of the {plural(found.samples, 'sample')} with the most requests under way: {found.requests:.3g}."
    return paragraph(about) + html_table("Where the requests stood", head, rows)


def place_cell(spot: Spot) -> str:
    return f"<code>{escape(spot.line or report_where.stands(spot))}</code>"


def detail_text(spot: Spot) -> str:
    return report_where.resource_text(spot) if spot.resource else report_where.working_text(spot)


def code_cell(shown: Shown, spot: Spot) -> str:
    """The lines around a place, its own marked."""
    lines = shown.sources.get(spot.line or "", ())
    own = int((spot.line or ":0").rpartition(":")[2] or 0)
    rows = []
    for number, words in lines:
        row = escape(f"{number:4} {words[:MOST_COLUMNS]}")
        rows.append(f"<mark>{row}</mark>" if number == own else row)
    joined = "\n".join(rows)
    return f"<pre>{joined}</pre>" if rows else "-"


def log_of(shown: Shown) -> str:
    if not shown.log or not shown.log.lines:
        path = shown.run.inside and shown.run.inside.access_log
        return paragraph(f"It is in {path}." if path else "There is no access log of this run.")
    text = tables.log_table(shown.log, shown.run.plan.wait_s or 0.1)
    gap = "" if shown.run.plan.load.is_steady else " A gap begins a new batch."
    return paragraph(f"The time is when the handler started.{gap}") + pre(text, "Access log")


def footer(head: Mapping[str, Any]) -> str:
    """Machine, versions, and the command to repeat it."""
    rows = {"when": head["when"], **head["machine"], **{f"{k} version": v for k, v in head["versions"].items()}}
    cells = [[escape(str(name)), escape(str(value))] for name, value in rows.items()]
    return (
        "<footer>\n<h2>Machine and versions</h2>"
        + html_table("Machine and versions", ["name", "value"], cells)
        + f"<h2>To repeat it</h2>{pre('python ' + head['command'], 'Command')}</footer>"
    )


# ---------------------------------------------------------------- HTML


def part(name: str, inner: str) -> str:
    return f"<h3>{escape(name)}</h3>\n{inner}" if inner else ""


def paragraph(words: str, kind: str = "") -> str:
    of_kind = f' class="{kind}"' if kind else ""
    return f"<p{of_kind}>{escape(words)}</p>" if words else ""


def pre(words: str, name: str) -> str:
    return scrolled(f"<pre>{escape(words)}</pre>", name) if words else ""


def details(name: str, words: str) -> str:
    return f"<details><summary>{escape(name)}</summary>{pre(words, name)}</details>"


def scrolled(inner: str, name: str) -> str:
    """What may be wider than the window scrolls by itself, by keyboard too."""
    return f'<div class="x" tabindex="0" role="group" aria-label="{escape(name)}">{inner}</div>'


def html_table(name: str, head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Cells are HTML, escaped where they are made; the first of a row is its header."""
    heads = "".join(f'<th scope="col">{escape(cell)}</th>' if cell else "<td></td>" for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    inner = f'<table class="{kind or "t"}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
    return scrolled(inner, name)


POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#57606a;--line:#d8dee4;--box:#f6f8fa;--wait:#b6c2cf;
--work:#0a5fc2;--pred:#9a3412;--bad:#b3261e;--mark:#fff3c4}
@media (prefers-color-scheme:dark){:root{--bg:#0f141a;--fg:#e6edf3;--dim:#a3afbb;--line:#303842;--box:#171d25;
--wait:#4d5a68;--work:#6cb0ff;--pred:#ffa66b;--bad:#ff8f85;--mark:#4a3f12}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1rem;background:var(--bg);color:var(--fg);
font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25}h2{font-size:1.25rem;margin-top:2rem}h3{font-size:1.05rem;margin:1.5rem 0 .5rem}
.lead{font-size:1.15rem;font-weight:600}.warning{border-left:4px solid var(--bad);padding-left:.75rem}
figure{margin:1rem 0}figcaption{color:var(--dim);font-size:.9rem}
.x{overflow-x:auto;max-width:100%}.x:focus-visible{outline:2px solid var(--work)}
svg{display:block;width:100%;min-width:32rem;max-width:50rem;height:auto}
svg text{fill:var(--dim);font:13px system-ui,sans-serif}
svg path{fill:none}.g{stroke:var(--line)}.p,.q{stroke:var(--pred);stroke-width:2}.q{stroke-dasharray:6 4}
.m{stroke:var(--work);stroke-width:50;stroke-linecap:round}
.r path{stroke:var(--work)}.r path:nth-of-type(1):not(:last-of-type){stroke:var(--wait)}
.r .u{stroke:var(--dim)}.r .e{stroke:var(--bad)}
table{border-collapse:collapse;font-size:.95rem;overflow-wrap:normal}
th,td{border-bottom:1px solid var(--line);padding:.3rem .75rem .3rem 0;text-align:left;vertical-align:top}
.t td{min-width:5.5rem}
.n td,.n thead th{text-align:right;white-space:nowrap}
pre{margin:0;font:.85rem/1.4 ui-monospace,monospace;overflow-wrap:normal}
div>pre{background:var(--box);padding:.75rem;width:max-content;min-width:100%}
code{font:.9rem ui-monospace,monospace}mark{background:var(--mark);color:inherit}
a{color:var(--work)}summary{cursor:pointer;margin:1rem 0 .5rem}
@media print{body{max-width:none}.x{overflow:visible}svg{min-width:0}div>pre,td pre{white-space:pre-wrap;width:auto}
figure,tr{break-inside:avoid}}
"""

"""What the tests of sweep.py and of its suites share: documents whose runs went as predicted, without one run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sweep
from engine.json_form import to_json
from engine.plans import prediction_for
from engine.run import Plan
from engine.targets import SEEDED_BOOKS
from suites.common import SweepDocument

EXAMPLES = sorted((Path(sweep.__file__).parent / "logs/example").glob("sweep-*.json"))


def run_of(plan: Plan, measured_s: float = 0.0) -> dict[str, Any]:
    """A run as sweep.py keeps it, with the even split and the predicted time, as if measured."""
    prediction = to_json(prediction_for(plan))
    n, measured_s = int(min(plan.load.requests, 100)), measured_s or prediction["makespan_s"] or 0.5
    shares = {f"worker{i}": n // plan.workers + (i < n % plan.workers) for i in range(plan.workers)}
    latency_s = {"min": 0.05, "median": 0.1, "p95": 0.2, "p99": 0.2, "max": 0.3}
    return {
        "plan": to_json(plan), "prediction": prediction, "split_prediction": prediction,
        "answered_s": [measured_s] * n,
        "measured": {
            "sent": n, "answered": n, "failed": 0, "errors": {}, "measured_s": measured_s, "latency_s": latency_s,
            "last_answer_s": measured_s,
            "throughput_rps": n / measured_s, "client_cpu_s": 0.001, "server_cpu_s": 0.02, "created": 5,
            "warmed_up": 0, "kernel": {"ListenOverflows": 0, "TCPSynRetrans": 0},
            "levels": [{"throughput_rps": 7.0, "latency_s": latency_s}] * 5,
        },
        "inside": {"requests_of_workers": shares, "database": {"rows": SEEDED_BOOKS + 5, "statements": n}},
        "verdict": {"explained_by": "prediction", "estimate": None},
    }  # fmt: skip


def begun(name: str, *options: str, asked: Any = None) -> SweepDocument:
    return sweep.new_document(
        sweep.parse([name, "--quick", "--repeats", "2", "--seed", "1", *options]), name, "x", asked
    )


def finished(name: str, *options: str, asked: Any = None) -> SweepDocument:
    document = begun(name, *options, asked=asked)
    for variant, c, repeat in document.order:
        known = sweep.variants_of(document)[variant]
        run = run_of(sweep.plan_for(known, document.values, c)[0]) if not known.program else {
            "measured": {"throughput_rps": 1000.0, "sent": 1000, "client_cpu_s": 0.01, "failed": 0}
        }  # fmt: skip
        document.runs.append({"variant": variant, "concurrency": c, "repeat": repeat, "run": run})
    return document


def change(document: SweepDocument, variant: str, **changes: Any) -> None:
    """measured__failed=3 sets run["measured"]["failed"] in each repeat of the variant."""
    entries = [entry for entry in document.runs if entry["variant"] == variant]
    assert entries, f"no run of {variant}"
    for entry in entries:
        for path, value in changes.items():
            *way, last = path.split("__")
            inner = entry["run"]
            for name in way:
                inner = inner[name]
            inner[last] = value


def rows_of(markdown: str) -> dict[str, list[str]]:
    """The table rows of a report, by their first cell."""
    rows = (line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| "))
    return {row[0]: [cell.strip() for cell in row[1:]] for row in rows}


def write(path: Path, document: Any) -> str:
    document = asdict(document) if isinstance(document, SweepDocument) else document
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)

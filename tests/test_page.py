"""The page: it stands alone, says what the report says, keeps names as text, and stays small."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import time
from html.parser import HTMLParser

import pytest
from commands import BENCH, ROOT, command
from samples import LOADS, sample_columns, sample_inside, sample_plan, sample_run, sample_where

import bench
from engine import page_charts
from engine.access_log import AccessLog, request_lines
from engine.page import Shown, page
from engine.places import Spot, State
from engine.run import Band, Explanation, Verdict
from engine.timelines import Timed, lanes_of, measured_of
from engine.views import Views, lines_around
from engine.words import Problem

HEAD = {
    key: value
    for key, value in json.loads(next((ROOT / "logs/example").glob("*flask*/run.json")).read_text()).items()
    if key in ("when", "command", "machine", "versions")
}
EVIL = "</pre></title><script>alert(1)</script>&amp;\"'"
VOID = {"meta", "path", "br"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Checked(HTMLParser):
    """Elements that are not closed in order, what is loaded, and how many requests have a title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def made_run(**changes):
    band = Band(0.0044, 0.00016, 0.0001, 2, 16, 0.0193, 0.0193)
    count = len(changes["exchanges"].status) if changes.get("exchanges") else 16
    changes["load"] = dataclasses.replace(changes.get("load", LOADS["burst"]), requests=count)
    return sample_run(**{"verdict": Verdict(Explanation.PREDICTION, (), None, band, ())} | changes)


def columns_of(count: int, **changes):
    """As many requests on four workers of one slot, 50 ms each."""
    ends = [(i // 4 + 1) * 0.05 for i in range(count)]
    own = {"handler_started_s": [end - 0.05 for end in ends], "worker": [f"worker{i % 4}" for i in range(count)]}
    return sample_columns(ends, **own | changes)


def shown_of(count: int = 16, **changes) -> Shown:
    return Shown(made_run(**{"exchanges": columns_of(count)} | changes))


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_a_page_is_well_formed_and_loads_nothing(load):
    text = page(HEAD, [shown_of(load=load), shown_of(load=load, where=sample_where())])
    checked = Checked(text)
    assert all(one.startswith("#") for one in checked.loads)
    assert not re.search(r"https?://|url\(|@import", text)
    assert "default-src 'none'" in text and '<html lang="en">' in text
    assert checked.tags.count("h1") == 1 and {"main", "header", "footer", "nav"} <= {*checked.tags}
    assert "script" not in checked.tags


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_each_request_has_a_title_with_its_times(load):
    text = page(HEAD, [shown_of(load=load)])
    for number in range(16):
        (title,) = re.findall(rf"<title>#{number} ([^<]*)</title>", text)
        assert title.startswith("sent 0.000, started") and f"answered {(number // 4 + 1) * 0.05:.3f} s" in title


def test_names_and_source_lines_stay_text():
    spot = Spot(9.0, State.WAITING, f"{EVIL}.py:12", EVIL, (EVIL,), None, None, EVIL, EVIL, 15, 15)
    run = made_run(
        plan=sample_plan(target=EVIL, path=f"/{EVIL}"),
        inside=sample_inside(where=sample_where(places=(spot,)), requests_of_workers={EVIL: 16}),
        exchanges=columns_of(16, error=[EVIL] * 16, worker=[EVIL] * 16),
    )
    head = HEAD | {"command": EVIL, "versions": {EVIL: EVIL}, "machine": {EVIL: EVIL}}
    text = page(head, [Shown(run, None, {spot.line: [(11, EVIL), (12, EVIL)]})] * 2)
    assert "script" not in Checked(text).tags and "<script" not in text and "&lt;script&gt;" in text


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
@pytest.mark.parametrize("count", [2000, 20_000])
def test_a_page_stays_small_and_says_what_it_leaves_out(load, count):
    text = page(HEAD, [shown_of(count, load=load, where=sample_where())])
    assert len(text.encode()) <= 300_000
    assert text.count("<title>#") == 2000
    assert (f"2000 of {count} requests" in text) == (count > 2000)
    many = page(HEAD, [shown_of(count, load=load)] * 4)
    assert len(many.encode()) <= 400_000


@pytest.mark.parametrize("count", [0, 1])
def test_a_page_of_almost_nothing(count):
    Checked(page(HEAD, [shown_of(count)]))
    Checked(page(HEAD, [Shown(made_run(exchanges=None, inside=None))]))
    assert "stopped" in page(HEAD, [], False)


def test_the_log_and_the_machine_are_on_the_page():
    folder = next((ROOT / "logs/example").glob("*flask*"))
    log = AccessLog(request_lines((folder / "access.log").read_text()), [])
    text = page(HEAD, [Shown(made_run(exchanges=columns_of(16)), log)])
    assert text.count("[pid-worker") >= 16 and HEAD["command"] in text and HEAD["machine"]["cpu"] in text


def test_a_handler_ends_when_the_log_says_so():
    line = request_lines("[2026-11-20 17:04:15.123] [pid-7] GET /io 200 0.0300s #3 @5.5")
    rows = measured_of(made_run(exchanges=columns_of(16)), AccessLog(line, []))
    assert rows[3].ended_s == pytest.approx(0.03) and rows[2].ended_s == 0.05


def test_lanes_are_as_few_as_can_be():
    assert lanes_of([(0, 1)] * 5) == [0, 1, 2, 3, 4]
    assert lanes_of([(k, k + 1) for k in range(5)]) == [0] * 5
    assert lanes_of([]) == []


def test_source_lines_come_from_the_folder_only(tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "secret.py").write_text("x\n" * 20)
    (tmp_path / "app/db.py").write_text("".join(f"line {k}\n" for k in range(1, 21)))
    assert [number for number, _ in lines_around(tmp_path / "app", "db.py:12")] == [10, 11, 12, 13, 14]
    assert lines_around(tmp_path / "app", "db.py:1")[0] == (1, "line 1")
    for place in ("../secret.py:3", "none.py:3", "db.py", "db.py:x", "\0:1", ".:1"):
        assert [*lines_around(tmp_path / "app", place)] == []


@pytest.mark.parametrize("options", ["--html {}/none/x.html", "--html {}", "--html - --json -"])
def test_a_path_that_cannot_be_written_is_refused_before_the_run(options, tmp_path, capsys):
    line = f"--target flask-dev {options.format(tmp_path)} --logs {tmp_path}"
    assert bench.main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("bench.py: ") and err.count("\n") == 1


def test_a_run_leaves_its_page(tmp_path, capsys):
    line = f"--target flask-gunicorn --path /io --task-time 0.05 --html {tmp_path}/x.html --logs {tmp_path}/logs"
    bench.main(line.split())
    text = (tmp_path / "x.html").read_text()
    Checked(text)
    assert text.count("<title>#") == 16 and "time.sleep" in text and "worker3" in text
    assert [path.name for path in tmp_path.glob("x*")] == ["x.html"]


def test_a_run_that_is_stopped_leaves_its_page(tmp_path):
    line = f"--target flask-gunicorn --path /io --task-time 5 -n 40 --html {tmp_path}/x.html --logs {tmp_path}/logs"
    with subprocess.Popen([*BENCH, *line.split()], stdout=subprocess.PIPE, text=True) as process:
        try:
            next(text for text in process.stdout if "predict" in text)
            time.sleep(2)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130 and "was stopped" in (tmp_path / "x.html").read_text()


# ---------------------------------------------------------------- in a browser

PROBE = """<script>
document.title = JSON.stringify([document.documentElement.scrollWidth, window.innerWidth,
  performance.getEntriesByType('resource').length]);
</script>"""


@pytest.fixture(scope="session")
def browse(tmp_path_factory):
    """What a browser makes of a file: its document and what it says on stderr."""
    folder = tmp_path_factory.mktemp("browser")

    def dumped(path, width):
        return command(
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile",
            "--allow-file-access-from-files", "--enable-logging=stderr", f"--window-size={width},900", "--dump-dom",
            f"file://{path}",
        )  # fmt: skip

    if not CHROMIUM:
        pytest.skip("chromium is not installed")
    (folder / "try.html").write_text("<!doctype html><title>-</title><script>document.title = 'it runs'</script>")
    if "it runs" not in dumped(folder / "try.html", 700).stdout:
        pytest.skip("chromium is installed, but shows no file here")
    return dumped


@pytest.mark.parametrize("width", [500, 700, 1400])  # headless windows are not narrower; 375 is a frame of that width
@pytest.mark.parametrize("load", ["burst", "closed"])
def test_in_a_browser_nothing_is_wider_than_the_window(width, load, tmp_path, browse):
    name = "a-very-long-name-without-any-break-" * 6
    run = made_run(load=LOADS[load], target=name, exchanges=columns_of(60), where=sample_where())
    text = page(HEAD | {"command": name * 3}, [Shown(run, None, {"app/deps.py:41": [(41, "x = " + "y" * 400)]})])
    text = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", f"{PROBE}</body>")
    (tmp_path / "page.html").write_text(text)
    frame = """<!doctype html><title>-</title><iframe src="page.html" width="375" height="900"></iframe><script>
    onload = () => document.title = frames[0].document.title;</script>"""
    (tmp_path / "frame.html").write_text(frame)
    file = "frame.html" if width == 500 else "page.html"
    done = browse(tmp_path / file, width)
    wide, window, loaded = json.loads(re.search(r"<title>(\[.*?\])</title>", done.stdout)[1])
    assert window == (375 if width == 500 else width)
    assert wide <= window and loaded == 0
    assert "CONSOLE" not in done.stderr


def test_a_step_of_a_probe_or_a_change_is_judged_by_what_all_show_together():
    shown = dataclasses.replace(shown_of(), name="app /, 10 requests at once", is_part=True)
    note = "verdict     4 at a time <b>"
    text = page(HEAD, [shown, shown], notes=[note, "the rest"])
    assert "4 at a time &lt;b&gt;" in text and "the rest" in text
    assert "As predicted" not in text and "The whole report" not in text and "10 requests at once, run 2 of 2" in text


def test_a_page_leads_with_the_failures_and_counts_every_request_of_a_worker():
    run = made_run(exchanges=columns_of(6000))
    assert all(f"worker{k}: 1500<" in page(HEAD, [Shown(run)]) for k in range(4))
    run = dataclasses.replace(run, measured=dataclasses.replace(run.measured, failed=8))
    assert "8 of 16 requests failed. What limited this run is not known." in page(HEAD, [Shown(run)])


def test_the_latency_of_a_request_that_was_sent_late_counts_from_when_it_was_due():
    rows = [Timed(0, 1.5, None, 2.0, 2.0, due_s=1.0), Timed(1, 1.5, None, 2.0, 2.0)]
    assert page_charts.points_of(rows, False) == [(1.0, 1.0), (1.5, 0.5)]


@pytest.mark.parametrize("paths", [("a.html", "a.html", None), ("a.html", "./a.html", None), ("a", None, "a")])
def test_two_documents_need_two_files(paths):
    html, trace_path, json_path = paths
    with pytest.raises(Problem, match="a file each"):
        Views(html, trace_path, [json_path])

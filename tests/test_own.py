"""Your own variants: the file and its mistakes, the report, a run from elsewhere."""

from __future__ import annotations

import re
import sys
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from sweeps import change, finished, rows_of, write

import sweep
from suites import io, own
from suites.common import Variant

TOML = """\
title = "two apps"
repeats = 2

[[variants]]
name = "WSGI"
arguments = "--app plain:app --server waitress --threads 8 -n 16 --wait 0.05"

[[variants]]
name = "closed loop"
arguments = "--app plain:app --server waitress -c 4 -n 40 --wait 0.05 --data '{n}'"
compared_with = "WSGI"
"""
PLAIN = """
import time

def app(environ, start_response):
    time.sleep(0.05)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""
pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="no tomllib")


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)  # and back in the end
    (tmp_path / "plain.py").write_text(PLAIN)
    (tmp_path / "v.toml").write_text(TOML)
    return tmp_path / "v.toml"


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ("repeats = 2", "repeats = 2 2", "line 2"),
        ("repeats = 2", "repeats = 0", "repeats (1 to 100)"),
        (TOML, "variants = [1]", "[[variants]]"),
        ('name = "closed loop"', 'name = "WSGI"', "variant 1 (WSGI): there are two"),
        ('name = "closed loop"', 'nme = "x"', "variant 2 (None): a variant has"),
        ('compared_with = "WSGI"', 'compared_with = "Django"', "variant 2 (closed loop): compared_with"),
        ("-c 4", "-c many", "variant 2 (closed loop): argument -c"),
        ("-c 4", "--path /a --path /b -c 4", "that is 2 runs, not one"),
        ("-c 4", "-c 4 --json x", "--json does not go with a variant"),
        ("-c 4", "-c 4 --html x", "--html does not go with a variant"),
        ("-c 4", "-c 4 --trace x", "--trace does not go with a variant"),
        ("-c 4", "-c 4 --repeats 3", "--repeats does not go with a variant"),
        ("-c 4", "-c 4 --try auto", "--try does not go with a variant"),
        ("-c 4", "--rate 4 --p99 1", "--p99 does not go with a variant"),
        ("--app plain:app --server waitress -c 4", "--slots 4 -c 4", "a prediction on paper does not go"),
    ],
)
def test_a_mistake_is_named_with_its_variant(good, bad, words, file, capsys):
    assert good in TOML
    file.write_text(TOML.replace(good, bad, 1))
    assert sweep.main([str(file), "--logs", str(file.parent)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sweep.py: ") and "v.toml" in error and error.count("\n") == 1 and words in error


def test_without_tomllib_one_line_says_so(file, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tomllib", None)
    assert sweep.main([str(file)]) == 2
    assert "needs Python 3.11" in capsys.readouterr().err


def test_variants_have_the_same_random_arrivals_in_a_repeat_and_others_in_the_next(file):
    poisson = "-n 8 --wait 0.05 --rate 200 --arrivals poisson --warmup 0"
    text = TOML.replace("-n 16 --wait 0.05", poisson).replace("-c 4 -n 40 --wait 0.05 --data '{n}'", poisson)
    file.write_text(text)
    assert sweep.main([str(file), "--seed", "5", "--logs", str(file.parent / "logs")]) == 0
    (path,) = file.parent.glob("logs/*/sweep-v.json")
    entries = sweep.read(path).runs
    seeds = {(one["variant"], one["repeat"]): one["run"]["plan"]["load"]["seed"] for one in entries}
    assert seeds == {("WSGI", 1): 5, ("closed loop", 1): 5, ("WSGI", 2): 6, ("closed loop", 2): 6}


def test_a_variant_may_have_a_seed_of_its_own(file):
    first, own_seed = (
        sweep.plan_for(Variant("v", f"--app plain:app --rate 9 --arrivals poisson -n 8{seed}"), {}, 0, 5)[0]
        for seed in ("", " --seed 7")
    )
    assert (first.load.seed, own_seed.load.seed) == (5, 7)


def test_the_example_is_a_file_of_variants(monkeypatch):
    monkeypatch.chdir(Path(sweep.__file__).parent)
    asked = own.read_variants(Path("examples/blog.toml").absolute())
    assert len(asked["variants"]) == 3 and asked["repeats"] == 5


def test_own_variants_have_table_ratios_and_pictures(file):
    document = finished("v", asked=own.read_variants(file))
    change(document, "closed loop", measured__throughput_rps=320.0)
    report = sweep.render(document)
    rows = rows_of(report)
    assert rows["WSGI"][:3] == ["0.100"] * 3  # 2 rounds of 8
    assert rows["closed loop : WSGI, requests/s"][-1] == "2.00" and "--data '{n}'" in report
    pytest.importorskip("matplotlib")
    assert sweep.main(["report", write(file.with_name("a.json"), document), "--pictures", str(file.parent)]) == 0
    assert "request n of the burst" in file.with_name("a-staircase.svg").read_text()


def test_names_stay_text_in_the_table():
    odd, line = "Größe <&> <b>fett</b> $x$ *y* | `z` _u_ f_1", "--target flask-gunicorn --path /io -n 16"
    variants = [{"name": odd, "arguments": line}, {"name": "b", "arguments": line, "compared_with": odd}]
    asked = {"title": "<i>t</i>", "repeats": 1, "variants": variants}
    document = finished("v", asked=asked)
    rows = [line for line in sweep.render(document).splitlines() if line.startswith(("| Größe", "| b", "## "))]
    rest = re.sub(r"\\[<&$*`_|]", "", "".join(rows))
    assert len(rows) == 5 and "f_1" in rest and not re.search(r"[<&$`]|_u_", rest)


@pytest.mark.parametrize("count", [1, 3, 12])
def test_long_names_stay_inside_the_picture(count, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    names = [f"Größe {k} <&> $a$ {'long name ' * 5}"[:60] for k in range(count)]
    asked = {"title": "t", "repeats": 1, "variants": [{"name": name, "arguments": ""} for name in names]}
    ((_, height_in, draw),) = own.suite(asked).pictures
    run = {"answered_s": [1.0, 2.0], "measured": {}}
    document = SimpleNamespace(asked=asked, median_run=lambda _: run)
    monkeypatch.setattr(io, "draw_burst", lambda panel, _, label, place: panel.plot([1, 2], [1, 2], label=label))
    with pyplot.rc_context(sweep.STYLE):
        drawing = pyplot.Figure(figsize=(7, height_in), layout="constrained")
        draw(document, drawing)
        drawing.savefig(BytesIO(), dpi=100)
        (legend,) = drawing.legends
        assert [" ".join(one.get_text().split()) for one in legend.get_texts()] == [name.strip() for name in names]
        for one in [*legend.get_texts(), drawing.axes[0].xaxis.label, drawing.axes[0].yaxis.label]:
            box = one.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= drawing.bbox.x1 and box.y1 <= drawing.bbox.y1
        assert drawing.axes[0].get_window_extent().height > 0.4 * 100 * 2  # the picture is not squeezed away


def test_own_variants_run_from_elsewhere_and_go_on_only_with_the_same_file(file, tmp_path_factory, monkeypatch, capsys):
    pytest.importorskip("waitress")
    logs = tmp_path_factory.mktemp("logs")
    monkeypatch.chdir(logs)
    assert sweep.main([str(file), "--seed", "5", "--logs", "."]) == 0
    (found,) = logs.glob("*/sweep-v.json")
    document = sweep.read(found)
    assert len(document.runs) == 4 and not sweep.failed_in(document)
    assert sweep.main([str(file), "--resume", str(found)]) == 0
    assert sweep.read(found) == document
    file.write_text(TOML.replace("-n 16", "-n 17"))
    assert sweep.main([str(file), "--resume", str(found)]) == 2
    assert "begun with another asked" in capsys.readouterr().err

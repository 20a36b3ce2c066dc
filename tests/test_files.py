"""Where results go: folders, documents that are never half written, pipes, and an output that is not read."""

from __future__ import annotations

import json
import re

import pytest
from commands import BENCH, command
from samples import sample_run
from stubs import keep_answering, stub

import bench
from engine import files
from engine.files import Document, run_folder
from engine.words import Problem


def test_a_folder_never_takes_the_place_of_another(tmp_path):
    folders = [run_folder(tmp_path / "new", f"flask/{'x' * 200} ö\n..") for _ in range(3)]
    assert len({*folders}) == 3 and all(folder.is_dir() for folder in folders)
    assert all(re.fullmatch(r"[\d-]{16}flask-x+(-\d)?", folder.name) for folder in folders)


@pytest.mark.parametrize("place", ["file", "file/x", "/proc/x", "/dev/null"])
def test_a_place_that_cannot_hold_folders_is_a_problem(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(Problem):
        run_folder(tmp_path / place, "x")


def test_a_document_is_replaced_as_a_whole_and_says_when_it_is_complete(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_text("old")
    document = Document(["bench.py", "--data", "a b"], {"flask": "3"}, str(path))
    first = json.loads(path.read_text())
    assert (first["complete"], first["runs"], first["command"]) == (False, [], "bench.py --data 'a b'")
    document.runs.append(sample_run(method="\udcff"))
    document.is_complete = True
    document.write()
    written = path.read_text()
    assert json.loads(written)["complete"] and len(json.loads(written)["runs"]) == 1
    assert list(tmp_path.iterdir()) == [path]

    def full(_: object, out: object) -> None:
        out.write('{"when": ')
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.json, "dump", full)
    with pytest.raises(Problem):
        document.write()
    assert (path.read_text(), list(tmp_path.iterdir())) == (written, [path])


@pytest.mark.parametrize("path", ["", "no/x.json", "/dev/full/x"])
def test_a_path_that_cannot_be_written_is_refused_before_the_run(tmp_path, path):
    with pytest.raises(Problem):
        Document([], {}, str(tmp_path / path))


def shell(script, folder):
    """A line of bash, in which {bench} sends 20 requests."""
    with stub(keep_answering) as (host, port):
        bench = f"{' '.join(BENCH)} --url http://{host}:{port}/ -n 20"
        return command("bash", "-c", f"set -o pipefail; {script.format(bench=bench)}", cwd=folder)


@pytest.mark.parametrize(
    "script",
    [
        "mkfifo pipe; cat pipe > got & {bench} --json pipe > report; wait",
        "{bench} --json - 2> report > got",
        "{bench} --json >(cat > got.part; mv got.part got) > report; until [ -e got ]; do sleep 0.1; done",
        "{bench} --json /dev/fd/3 3> got > report",
    ],
)
def test_json_goes_into_pipes(tmp_path, script):
    done = shell(script, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "got").read_text())["runs"][0]["measured"]["answered"] == 20
    assert "20 answered" in (tmp_path / "report").read_text()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("{bench} | head -1", 0),
        ("{bench} >&-", 0),
        ("{bench} 2>&-", 0),
        ("{bench} > /dev/full", 2),
        ("{bench} --json /dev/full > /dev/null", 2),
        ("{bench} --help > /dev/full", 2),
    ],
)
def test_an_output_that_is_not_read_is_no_traceback(tmp_path, script, code):
    done = shell(script, tmp_path)
    assert done.returncode == code and done.stderr.count("\n") == (code > 0)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_old_run_folders_go_and_nothing_else(tmp_path, capsys):
    new = run_folder(tmp_path, "new").name
    names = [
        "20200101-000000-old-io",
        "20200101-000000-old-io-2",
        new,
        "example",
        "20200101-notes",
        "20209999-000000-x",
    ]
    for name in names:
        (tmp_path / name / "inner").mkdir(parents=True, exist_ok=True)
    (tmp_path / "20200101-000000-file").touch()
    (tmp_path / "20200101-000000-link").symlink_to(tmp_path / "example")
    assert bench.main(["--clean-logs", "--logs", str(tmp_path)]) == 0
    assert "2 run folders" in capsys.readouterr().out
    left = {*names[2:], "20200101-000000-file", "20200101-000000-link"}
    assert {path.name for path in tmp_path.iterdir()} == left and (tmp_path / "example/inner").is_dir()


def test_the_examples_are_never_removed():
    with pytest.raises(Problem):
        files.clean_logs(files.LOGS / "example")


def test_where_there_are_no_logs_none_is_removed(tmp_path):
    assert files.clean_logs(tmp_path / "nowhere") == 0

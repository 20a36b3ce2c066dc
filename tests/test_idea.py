"""The whole idea in one file, run as the README says."""

import re
import sys

from commands import ROOT, command


def test_sixteen_requests_are_answered_in_four_batches_as_predicted():
    done = command(sys.executable, str(ROOT / "examples/idea.py"))
    assert (done.returncode, done.stderr) == (0, "")
    _, *batches, _ = done.stdout.split("\n\n")
    assert [len(re.findall("^request", batch, re.MULTILINE)) for batch in batches] == [4] * 4
    for n, (predicted_s, answered_s) in enumerate(re.findall(r"predicted (\S+) s +answered (\S+) s", done.stdout)):
        assert float(predicted_s) == n // 4 + 1 <= float(answered_s) + 0.01
        assert float(answered_s) - float(predicted_s) < 0.8

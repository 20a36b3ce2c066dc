"""The JSON of a run and its schema. commands.run_bench() checks the document of every real run in the same way."""

from __future__ import annotations

import json

import jsonschema
import pytest
from samples import LOADS, sample_run
from schema import schema

from engine.files import LOGS, Document


def test_the_committed_schema_is_generated_from_the_records():
    assert json.loads((LOGS / "example/schema.json").read_text()) == schema()


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_a_document_is_as_the_schema_says_and_no_other_is(load):
    document = Document([], {}, None)
    document.runs = [sample_run(load=load), sample_run(inside=None, exchanges=None)]
    good = document.as_json(document.runs)
    jsonschema.validate(good, schema())
    for wrong in ({"kind": "burst", "requests": None}, {"kind": "none"}, {}):
        run = good["runs"][0]
        bad = good | {"runs": [run | {"plan": run["plan"] | {"load": wrong}}]}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema())

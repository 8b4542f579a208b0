"""The command doctor."""

import json


def test_doctor(run):
    status, out, _ = run("doctor", "--json")
    rows = json.loads(out)
    assert status == 0 and all(row["ok"] or row["get"] for row in rows)
    assert any(row["check"].startswith("Python") and row["ok"] for row in rows)

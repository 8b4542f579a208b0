"""The command doctor."""

import json


def test_doctor(run):
    status, out, _ = run("doctor", "--json")
    rows = json.loads(out)
    assert status == 0 and all(row["ok"] or row["get"] for row in rows)
    assert any(row["check"].startswith("Python") and row["ok"] for row in rows)


def test_doctor_tells_how_to_get_a_checkout(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERNETS_ROOT", str(tmp_path))
    status, out, err = run("doctor", "--json")
    (row,) = [row for row in json.loads(out) if row["check"] == "checkout"]
    assert status == 0 and err == "" and not row["ok"] and row["get"].startswith(f"PAPERNETS_ROOT is {tmp_path}, which is not")
    assert f"missing checkout: {row['get']}" in run("doctor")[1].splitlines()

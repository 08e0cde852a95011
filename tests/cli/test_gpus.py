from __future__ import annotations


def test_the_list_and_one_row(run):
    _, out, _ = run("gpus")
    row = next(line for line in out.splitlines() if line.strip().startswith("rtx-4090 "))
    assert "GiB" in row
    code, out, _ = run("gpus", "rtx-4090")
    assert code == 0
    assert "sources: " in out

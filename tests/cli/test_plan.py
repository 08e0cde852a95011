from __future__ import annotations


def test_a_plan_is_summed_up(run):
    code, out, _ = run("plan", "7B", "-m", "lora")
    assert code == 0
    assert out.startswith("lora: ")
    assert "--json" in out

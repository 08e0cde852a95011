from __future__ import annotations


def test_tensors_and_totals(run):
    code, out, _ = run("params", "7B")
    assert code == 0
    assert "trainable: 4,194,304 of 6,742,609,920 (0.0622%)" in out
    assert "model.layers.*.self_attn.q_proj.lora_A.weight" in out

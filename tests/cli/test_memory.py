from __future__ import annotations


def test_the_table_shows_the_three_methods(run):
    code, out, _ = run("memory", "7B")
    assert code == 0
    assert "6,738,415,616 parameters" in out
    header = next(line for line in out.splitlines() if "at the peak" in line)
    assert header.split()[-3:] == ["full", "lora", "qlora"]
    trainable = next(line for line in out.splitlines() if "trainable parameters" in line)
    assert trainable.split()[-3:] == ["6,738,415,616", "4,194,304", "4,194,304"]


def test_every_term_can_be_shown(run):
    _, out, _ = run("memory", "7B", "-m", "lora", "--explain")
    assert "with numbers" in out
    assert "assumed:" in out
    assert "q_proj" in out

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


def test_the_allocator_can_be_simulated(run):
    _, by_rule, _ = run("memory", "gpt2", "-m", "lora")
    code, out, _ = run("memory", "gpt2", "-m", "lora", "--reserved", "simulated")
    assert code == 0
    assert "reserved, rule" in by_rule
    assert "reserved, simulated" in out
    assert out.count("from .. to") == 2


def test_an_unknown_allocator_is_refused_with_a_way_out(run):
    code, _, err = run("memory", "gpt2", "--reserved", "magic")
    assert code == 2
    assert "rule, simulated" in err


def test_a_named_card_is_judged(run):
    code, out, _ = run("memory", "7B", "--gpu", "rtx-4090")
    assert code == 0
    verdicts = next(line for line in out.splitlines() if line.startswith("GeForce RTX 4090"))
    assert verdicts.split("GiB")[1].split() == ["does", "not", "fit", "tight", "fits"]
    assert "GeForce" not in run("memory", "7B")[1]

from __future__ import annotations


def test_the_list_and_one_row(run):
    _, out, _ = run("models", "--family", "llama")
    assert "llama-2-7b" in out
    assert "meta-llama/Llama-2-7b-hf" in out
    code, out, _ = run("models", "7B")
    assert code == 0
    assert "hidden_size: 4096" in out
    assert "source: " in out


def test_families_say_what_is_understood_of_each(run):
    code, out, _ = run("models", "--families")
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line.split()}
    assert rows["llama"].endswith("memory and parameters")
    assert rows["recurrent_gemma"].endswith("parameters") and "memory" not in rows["recurrent_gemma"]

from __future__ import annotations

import json

import pytest

pytest.importorskip("peft")

CONFIG = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}


def test_text_and_json_say_the_same(run, tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    words = ("trace", "--config", str(path), "--method", "lora", "--sequence-length", "32", "--rank", "4")
    code, out, err = run(*words)
    assert code == 0 and "traced peak" in out and "+0.0000%" in out
    assert "tracing lora (1 of 1)" in err
    code, out, err = run(*words, "--quiet", "--json")
    assert (code, err) == (0, "")
    (traced,) = json.loads(out)["traces"]
    assert traced["parameters"]["trainable"] == 2 * 4 * (128 + 128 + 128 + 64)


def test_what_cannot_be_traced_is_one_line_and_a_hint(run) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run("trace", "7B", "--compile")
    assert (code, out) == (2, "")
    assert "compile" in err and "loralens memory computes it" in err and "Traceback" not in err

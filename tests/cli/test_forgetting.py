from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_recorded_run_as_text_in_both_languages(run) -> None:  # type: ignore[no-untyped-def]
    code, english, _ = run("forgetting", "--recorded", "--language", "en")
    assert code == 0
    assert "lora-full-rank" in english and "nats per token" in english
    code, chinese, _ = run("forgetting", "--recorded", "--language", "zh")
    assert code == 0
    assert "旧文本" in chinese


def test_json_is_what_the_api_serves(run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("forgetting", "--recorded", "--full", "--json")
    assert code == 0
    record = json.loads(out)
    assert set(record) == {"plan", "points", "choice", "result"}
    assert record["result"]["budget"] == "full"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--old", "no-such-file.txt", "--new", "no-such-file.txt"], "does not exist"),
        (["--old", "no-such-file.txt"], "--new is missing"),
        (["--ranks", "eight"], "--ranks must be numbers"),
        (["--ranks", "0"], "ranks must be a whole number from 1 to 96"),
        (["--seeds", "1"], "seeds must be"),
        (["--model", "x"], "--model needs --old and --new"),
        (["--recorded", "--language", "fr"], "--language must be"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(run, words: list[str], message: str) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run("forgetting", *words)
    assert code == 2
    assert message in err and "Traceback" not in err
    assert out == ""


def test_malformed_files_are_refused(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    good = tmp_path / "good.txt"
    good.write_text(" ".join(str(i * 7919 % 100_003) + "abcdefgh"[i % 8] for i in range(9_000)), encoding="utf-8")
    for name, raw, message in (
        ("empty", b"", "is empty"),
        ("tiny", b"hello", "at least 20,000"),
        ("binary", b"\x00\x01" * 30_000, "binary"),
        ("one", b"a" * 30_000, "1 different character"),
    ):
        bad = tmp_path / name
        bad.write_bytes(raw)
        code, _, err = run("forgetting", "--old", str(good), "--new", str(bad))
        assert code == 2
        assert message in err

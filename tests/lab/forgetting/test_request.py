from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from loralens.core.errors import InvalidInput
from loralens.lab.forgetting.request import KEPT_TEXTS, check_request, corpora, keep_texts


def words(seed: int, count: int = 5_000) -> str:
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 8))) for _ in range(count))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"budget": "huge"}, "budget"),
    ({"budget": 3}, "budget"),
    ({"budget": ["quick"]}, "budget"),
    ({"seed": -1}, "seed"),
    ({"seed": True}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"seed": 10**30}, "seed"),
    ({"seeds": 1}, "seeds"),
    ({"seeds": 11}, "seeds"),
    ({"ranks": []}, "ranks"),
    ({"ranks": [0]}, "ranks"),
    ({"ranks": [97]}, "ranks"),
    ({"ranks": "8"}, "ranks"),
    ({"ranks": list(range(1, 10))}, "ranks"),
    ({"fresh": "yes"}, "fresh"),
    ({"old_text": 3}, "old_text"),
    ({"old_hash": "../../etc/passwd"}, "old_hash"),
    ({"state_dir": "/tmp"}, "state_dir"),
    ({"rank": 8}, "rank"),
]


@pytest.mark.parametrize(("body", "field"), BAD, ids=[str(body)[:40] for body, _ in BAD])
def test_bad_requests_name_their_field(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        check_request(body)
    assert raised.value.field == field


def test_defaults_and_order() -> None:
    request = check_request({"ranks": [8, 1, 8], "old_name": "x" * 500})
    assert request["budget"] == "quick"
    assert request["ranks"] == [1, 8]
    assert request["old_name"] == "x" * 80
    assert request["seeds"] is None


def test_texts_come_in_pairs_and_differ(tmp_path: Path) -> None:
    assert [c.name for c in corpora(check_request({}), tmp_path)] == ["prose", "code"]
    for body in ({"old_text": words(1)}, {"new_text": words(1)}):
        with pytest.raises(InvalidInput, match="both texts or neither"):
            corpora(check_request(body), tmp_path)
    with pytest.raises(InvalidInput, match="the same"):
        corpora(check_request({"old_text": words(1), "new_text": words(1)}), tmp_path)
    with pytest.raises(InvalidInput, match="is empty") as raised:
        corpora(check_request({"old_text": words(1), "new_text": ""}), tmp_path)
    assert raised.value.field == "new_text"


def test_texts_are_kept_under_their_hash_and_found_again(tmp_path: Path) -> None:
    body = check_request({"old_text": words(1), "new_text": words(2), "old_name": "../../evil"})
    kept = keep_texts(body, tmp_path)
    assert "old_text" not in kept
    assert check_request({k: v for k, v in kept.items() if v is not None})
    old, new = corpora(kept, tmp_path)
    assert (old.text(), new.text()) == (words(1), words(2))
    assert {p.parent for p in tmp_path.rglob("*.txt")} == {tmp_path / "forgetting-texts"}
    for path in tmp_path.rglob("*.txt"):
        path.unlink()
    with pytest.raises(InvalidInput, match="no longer stored"):
        corpora(kept, tmp_path)


def test_only_the_newest_texts_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "forgetting-texts"
    folder.mkdir()
    for number in range(KEPT_TEXTS + 5):
        path = folder / f"{number:064x}.txt"
        path.write_text("x", encoding="utf-8")
        os.utime(path, (time.time() - 1000 + number, time.time() - 1000 + number))
    kept = keep_texts({"old_text": "new"}, tmp_path)
    left = {path.stem for path in folder.glob("*.txt")}
    assert len(left) == KEPT_TEXTS
    assert kept["old_hash"] in left and f"{0:064x}" not in left


def test_checking_a_request_needs_no_torch() -> None:
    program = (
        "import sys, loralens.lab.forgetting.request, loralens.lab.forgetting.recorded; print('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"

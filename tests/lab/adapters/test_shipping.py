"""The hub that ships with the project: whole, as described, and what the page's own arithmetic is compared with.

`tests/oracles/shipped-hub.json` holds PyTorch's logits and answers by these files. It is written by
`python -m tests.lab.adapters.test_shipping`; the page's unit tests hold the browser's logits to the same rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from loralens.lab.adapters import load_hub
from loralens.lab.adapters.hub import Hub
from loralens.lab.adapters.shipping import FOLDER, PAGE, described, differing, file_hashes, main
from loralens.lab.adapters.tasks import grammar_hash
from loralens.lab.tiny.tokenizer import load_tokenizer

ORACLE = Path(__file__).parents[2] / "oracles" / "shipped-hub.json"
TEXTS = (
    "def main():\n    return 1",
    "发票晚了,星期一。",
    "a \u00a0b\t\n\n c  d",
    "Anna: the invoice is late, Monday.",
    "1,024½",
)


@pytest.fixture(scope="module")
def shipped() -> Hub:
    return load_hub(FOLDER)


def test_the_files_are_those_that_the_page_names() -> None:
    page = json.loads((FOLDER / PAGE).read_text("utf-8"))
    assert page["files"] == file_hashes(FOLDER)
    assert page["grammar"] == grammar_hash() and page["tokenizer"] == load_tokenizer().content_hash
    assert {name: page[name] for name in ("base", "adapters", "examples")} == {
        name: described(FOLDER)[name] for name in ("base", "adapters", "examples")
    }


def test_what_torch_computes_is_what_was_recorded(shipped: Hub) -> None:
    recorded, now = json.loads(ORACLE.read_text("utf-8")), computed(shipped)
    assert recorded["texts"] == now["texts"] and len(recorded["rows"]) == 7
    for then, row in zip(recorded["rows"], now["rows"], strict=True):
        assert {**then, "logits": None} == {**row, "logits": None}
        torch.testing.assert_close(torch.tensor(row["logits"]), torch.tensor(then["logits"]), atol=2e-5, rtol=0)


def test_it_can_be_made_anew_and_compared(
    hub_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command itself, with the small preset that the other tests train."""
    monkeypatch.setattr("loralens.lab.adapters.shipping.train", lambda root, recipe: iter(()))
    monkeypatch.setattr("loralens.lab.adapters.shipping.hub_folder", lambda root, recipe: tmp_path / "made")
    monkeypatch.setattr("loralens.lab.adapters.shipping.FOLDER", tmp_path / "kept")
    (tmp_path / "made").symlink_to(hub_folder)
    assert differing(hub_folder, tmp_path / "kept") == sorted(file_hashes(hub_folder))
    assert main(["--check"]) == 1 and "differs: model.safetensors" in capsys.readouterr().out


def computed(hub: Hub) -> dict[str, Any]:
    """For the base and each adapter: the logits after an example's prompt, and the answer."""
    prompt = json.loads((FOLDER / PAGE).read_text("utf-8"))["examples"][1]["prompt"]
    rows = []
    for adapter in (None, *(loaded.name for loaded in hub.adapters)):
        logits = [round(value, 6) for value in hub.logits(prompt, adapter).tolist()]
        rows.append({"adapter": adapter, "answer": hub.generate(prompt, adapter, tokens=80), "logits": logits})
    return {
        "prompt": prompt,
        "rows": rows,
        "texts": [{"text": text, "ids": load_tokenizer().encode(text)} for text in TEXTS],
    }


if __name__ == "__main__":
    ORACLE.write_text(json.dumps(computed(load_hub(FOLDER)), ensure_ascii=False) + "\n", encoding="utf-8")

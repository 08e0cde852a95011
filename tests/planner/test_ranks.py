"""Ranks: the figures of the published runs, exactly; what was not run is unknown."""

from __future__ import annotations

import pytest

from loralens.core.errors import InvalidInput
from loralens.planner.ranks import ranks_answer

# Test accuracy as the files state it: huggingface/peft 5d602fd method_comparison/MetaMathQA/results.
PUBLISHED = {
    "lora-rank32": 0.4783927217589083,
    "lora-rank64": 0.47384382107657314,
    "lora-rank64-rslora": 0.513267626990144,
    "lora-rank10-target-mlp": 0.4943138741470811,
    "lora-rank32-dora": 0.46929492039423804,
    "full-finetuning-lr_0.00001": 0.4715693707354056,
    "miss-default": 0.48673237300985595,
    "vera-default": 0.35405610310841545,
}


def asked(model: str = "llama-3.2-3b", method: str = "lora", **lora: object) -> dict[str, object]:
    return {"model": model, "method": method, "recipe": {"lora": lora} if lora else {}}


def test_the_rows_are_the_published_ones() -> None:
    answer = ranks_answer(asked(rank=32))
    rows = {row["name"]: row for row in answer["rows"]}
    assert len(rows) == len(answer["rows"]) == 63
    assert {name: rows[name]["accuracy"] for name in PUBLISHED} == PUBLISHED
    assert [row["accuracy"] for row in answer["rows"]] == sorted(
        (row["accuracy"] for row in answer["rows"]), reverse=True
    )


def test_runs_have_names_in_words() -> None:
    titles = {row["name"]: row["title"] for row in ranks_answer(asked(rank=32))["rows"]}
    assert titles["lora-rank64-rslora"] == {
        "zh": "rsLoRA，秩 64，alpha 64，q_proj、v_proj",
        "en": "rsLoRA, rank 64, alpha 64, on q_proj, v_proj",
    }
    assert titles["lora-rank32-lorafa"]["en"].startswith("LoRA-FA, rank 32")
    assert titles["full-finetuning-lr_0.00001"] == {"zh": "全量微调", "en": "Full fine-tuning"}
    assert titles["miss-default"]["en"] == "miss-default"


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (asked(rank=32), "lora-rank32"),
        (asked(rank=64), "lora-rank64"),
        (asked(rank=64, alpha=64, use_rslora=True), "lora-rank64-rslora"),
        (asked(rank=10, target_modules=["up_proj", "gate_proj", "down_proj"]), "lora-rank10-target-mlp"),
        (asked(method="dora", rank=32), "lora-rank32-dora"),
        (asked(method="full"), "full-finetuning-lr_0.00001"),
    ],
)
def test_a_setting_that_was_run_is_known(body: dict[str, object], name: str) -> None:
    answer = ranks_answer(body)
    assert answer["known"] and answer["measured"] is not None and answer["measured"]["name"] == name
    assert answer["verdict"][0]["en"].startswith("Measured: ") and answer["verdict"][0]["zh"].startswith("测得：")


@pytest.mark.parametrize(
    "body",
    [
        asked(rank=16),
        asked(rank=32, alpha=32),
        asked(rank=32, use_rslora=True),
        asked(rank=32, bias="all"),
        asked(method="qlora", rank=32),
        asked("llama-3.1-8b", rank=32),
        asked("qwen3-8b", method="full"),
    ],
)
def test_what_was_not_run_is_unknown(body: dict[str, object]) -> None:
    answer = ranks_answer(body)
    assert not answer["known"] and answer["measured"] is None
    assert [said["en"].split()[0].rstrip(":") for said in answer["verdict"]] == ["Unknown"]
    assert all("未知" in said["zh"] for said in answer["verdict"])


def test_a_difference_within_chance_is_not_called_one() -> None:
    verdict = {said["en"].split(":")[0]: said["en"] for said in ranks_answer(asked(rank=32))["verdict"]}
    assert "may be chance" in verdict["LoRA, rank 64, alpha 128, on q_proj, v_proj"]
    assert "-0.5 points" in verdict["LoRA, rank 64, alpha 128, on q_proj, v_proj"]
    from_rslora = " ".join(said["en"] for said in ranks_answer(asked(rank=64, alpha=64, use_rslora=True))["verdict"])
    assert "more than chance" in from_rslora


def test_a_card_has_no_say() -> None:
    with pytest.raises(InvalidInput, match="unknown field"):
        ranks_answer(asked(rank=32) | {"gpu": "a100"})

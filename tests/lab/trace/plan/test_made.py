"""Plans from traces against the walked ones, and what happens where traces do not fit together."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from loralens.cli.main import run
from loralens.core.answer.answers import memory_answer
from loralens.core.errors import InvalidInput
from loralens.core.question.recipe import Recipe
from loralens.core.question.traced import TRACED
from loralens.core.tape.size import ONE, TOKENS
from loralens.lab.trace.ledger import Recorded, TracedStorage
from loralens.lab.trace.plan.file import plan_events
from loralens.lab.trace.plan.made import plans
from loralens.lab.trace.plan.sizes import Setting

LLAMA = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "max_position_embeddings": 4096,
}
RECIPE = {"sequence_length": 512, "lora": {"target_modules": "all-linear"}}


def test_a_traced_plan_equals_the_walked_one_where_nothing_was_traced(tmp_path, capsys) -> None:
    config, file = tmp_path / "config.json", tmp_path / "traced.json"
    config.write_text(json.dumps(LLAMA))
    words = ["--sequence-length", "512", "--target-modules", "all-linear"]
    assert run(["trace", "--config", str(config), "-m", "lora", *words, "--plan", str(file), "--quiet"]) == 0
    assert "2 to 1,024" in capsys.readouterr().out
    traced = json.loads(file.read_text())
    for batch, length, rank in ((1, 999, 5), (2, 512, 8), (5, 1001, 64), (600, 3000, 200)):
        asked = {**RECIPE, "micro_batch_size": batch, "sequence_length": length}
        asked["lora"] = {"target_modules": "all-linear", "rank": rank}
        (ours,), (walked,) = (
            memory_answer({"config": one, "method": "lora", "recipe": asked})["estimates"] for one in (traced, LLAMA)
        )
        for name in ("parameters", "phases", "storage", "regime"):
            assert ours[name] == walked[name]


def test_a_model_type_that_is_not_known_is_answered() -> None:
    config = {"model_type": "gpt_neox_japanese", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config |= {"vocab_size": 500}
    body = {"config": config, "methods": ["full"], "recipe": {"gradient_checkpointing": False, "sequence_length": 256}}
    with pytest.raises(Exception, match="not modelled"):
        memory_answer(body)
    *_, result = plan_events(body)
    (estimate,) = memory_answer({**body, "config": result["config"]})["estimates"]
    assert estimate["basis"] == "traced" and estimate["peak"]["allocated_bytes"] > 0
    assert result["config"][TRACED]["parameters"] == estimate["parameters"]["total"]


def test_host_memory_is_not_traced() -> None:
    with pytest.raises(InvalidInput, match="host memory"):
        next(plan_events({"config": LLAMA, "recipe": {"optimizer": "paged_adamw_8bit"}}))


def _storage(index: int, size: int, op: str, kind: str = "activation", phase: str = "forward") -> TracedStorage:
    return TracedStorage(index, size, kind, phase, op, f"layers.{index}", (size,), "uint8")


def _step(setting: Setting, sizes: list[int], op: str = "aten.mm") -> Recorded:
    """A weight, and activations that end one by one."""
    weight = _storage(0, 4096, "aten.empty", "weight", "setup")
    weight.owner = "layers.0.weight"
    storages = [weight, *(_storage(place, size, op) for place, size in enumerate(sizes, 1))]
    births = [place + 1 for place in range(len(storages))]
    events = [*births, *(-place for place in reversed(births[1:]))]
    marks = [("forward", 1), ("backward", len(births)), ("optimizer", len(events))]
    return Recorded(storages, events, marks, [("layers.0.weight", (64, 64), True)])


def _plans(trace: Any, **words: Any) -> Any:
    return plans({"max_position_embeddings": 4096, "sliding_window": 1024}, "full", Recipe.from_mapping(words), trace)


def test_a_threshold_of_the_config_ends_the_range() -> None:
    def windowed(setting: Setting) -> Recorded:
        return _step(setting, [2 * setting[0] * setting[1]], "aten.mm" if setting[1] <= 1024 else "aten.bmm")

    (found,) = _plans(windowed, sequence_length=512)
    assert found.plan.validity.ranges["sequence_length"] == [128, 1024]
    assert found.plan.moments[0].total == TOKENS * 2 + ONE * 4096
    assert "aten.bmm" in found.plan.assumptions[1]


def test_a_loop_over_positions_holds_for_its_length_alone() -> None:
    (found,) = _plans(lambda setting: _step(setting, [setting[0]] * setting[1]), sequence_length=32)
    assert found.plan.validity.ranges["sequence_length"] == [32, 32]
    assert found.plan.validity.ranges["micro_batch_size"] == [1, 1024]


def test_lengths_that_are_padded_leave_the_same_remainder() -> None:
    (found,) = _plans(lambda setting: _step(setting, [-(-setting[1] // 64) * 64 * setting[0]]), sequence_length=512)
    assert found.plan.validity.remainders == {"sequence_length": (64, 0)}
    assert found.plan.validity.covers(3, 640, 8) and not found.plan.validity.covers(3, 641, 8)


def test_what_no_polynomial_gives_holds_for_what_was_asked_alone() -> None:
    (found,) = _plans(
        lambda setting: _step(setting, [2 ** setting[0] % 1009 + setting[1] ** 3 % 997]), micro_batch_size=3
    )
    assert [*found.plan.validity.ranges.values()][:2] == [[3, 3], [2048, 2048]]
    assert found.checked == []

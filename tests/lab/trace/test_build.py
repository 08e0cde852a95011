"""What a config may say, what PEFT and bitsandbytes make of it, and what is refused in words."""

from __future__ import annotations

import copy
import gc
import threading

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from loralens.core.answer.answers import memory_answer  # noqa: E402
from loralens.core.answer.estimate import estimate  # noqa: E402
from loralens.core.errors import InvalidInput, UnsupportedArchitecture  # noqa: E402
from loralens.lab.trace.case import trace  # noqa: E402

CONFIG = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    "auto_map": {"AutoModelForCausalLM": "somebody/else--modeling.Model"},
}
ALL = [("q_proj", 128, 128), ("k_proj", 128, 64), ("v_proj", 128, 64), ("o_proj", 128, 128),
       ("gate_proj", 128, 256), ("up_proj", 128, 256), ("down_proj", 256, 128)]  # fmt: skip
SHORT = {"sequence_length": 16}


def adapters(rank: int, names: set[str]) -> int:
    return 2 * sum(rank * (i + o) for name, i, o in ALL if name in names)


@pytest.mark.parametrize(
    ("lora", "trainable"),
    [
        ({"rank": 4, "target_modules": "all-linear"}, adapters(4, {name for name, _, _ in ALL})),
        ({"rank": 8, "target_modules": ["q_proj", "v_proj"]}, adapters(8, {"q_proj", "v_proj"})),
        ({"rank": 8, "target_modules": r".*\.1\.self_attn\.(q|k)_proj"}, adapters(8, {"q_proj", "k_proj"}) // 2),
        (
            {"rank": 4, "target_modules": "all-linear", "exclude_modules": ["down_proj", "mlp.up_proj"]},
            adapters(4, {name for name, _, _ in ALL} - {"down_proj", "up_proj"}),
        ),
        (
            {"rank": 4, "target_modules": ["q_proj"], "exclude_modules": r".*layers\.0\..*"},
            adapters(4, {"q_proj"}) // 2,
        ),
        ({"rank": 8}, adapters(8, {"q_proj", "v_proj"})),  # PEFT's default for the family
        ({"rank": 8, "use_dora": True}, adapters(8, {"q_proj", "v_proj"}) + 2 * (128 + 64)),
        ({"rank": 8, "target_modules": ["q_proj"], "rank_pattern": {"q_proj": 2}}, adapters(2, {"q_proj"})),
    ],
)
def test_trainable_parameters(lora, trainable):
    result = trace(CONFIG, "lora", {**SHORT, "lora": lora})
    assert result.trainable == trainable == estimate(CONFIG, "lora", **SHORT, lora=lora).trainable_parameters
    assert result.categories["adapter"] == 4 * trainable


def test_the_callers_config_is_left_alone_and_nothing_stays_behind():
    before = copy.deepcopy(CONFIG)
    threads = threading.active_count()
    results = [trace(CONFIG, "lora", SHORT).to_dict() for _ in range(2)]
    assert before == CONFIG
    assert results[0] == results[1]
    assert threading.active_count() == threads
    assert gc.isenabled() and gc.get_freeze_count() == 0
    assert torch.empty(2, requires_grad=True).sum().backward() is None  # torch works as before


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8"])
def test_packed_bytes(kind):
    pytest.importorskip("bitsandbytes")
    result = trace(
        CONFIG, "qlora", {**SHORT, "quantization": {"type": kind, "double_quant": False, "prepare_kbit": False}}
    )
    elements = 2 * sum(i * o for _, i, o in ALL)
    packed = sum(s.size_bytes for s in result.living("forward") if s.kind == "weight" and s.dtype in ("uint8", "int8"))
    assert packed == (elements if kind == "int8" else elements // 2)
    tables = result.kinds["quantization_state"]
    rows = 2 * sum(o for _, _, o in ALL)
    assert tables == (4 * rows if kind == "int8" else elements // 64 * 4 + 14 * 16 * 4)


@pytest.mark.parametrize(
    ("config", "error", "text"),
    [
        ({}, InvalidInput, "model_type is missing"),
        ({"model_type": "no-such-family"}, UnsupportedArchitecture, "no-such-family"),
        ({**CONFIG, "num_hidden_layers": 100_000}, InvalidInput, "too many layers to trace"),
        ({**CONFIG, "hidden_size": "wide"}, InvalidInput, "refused by transformers"),
        ({**CONFIG, "hidden_size": -4}, InvalidInput, "real"),
        (
            {**CONFIG, "num_attention_heads": 3, "head_dim": 33, "num_key_value_heads": 2},
            InvalidInput,
            "not a multiple",
        ),
    ],
)
def test_configs_that_do_not_fit_together_are_refused_in_words(config, error, text):
    with pytest.raises(error, match=text):
        trace(config, "full", SHORT)


def test_targets_that_no_module_has_are_refused():
    with pytest.raises(InvalidInput, match="PEFT rejected") as caught:
        trace(CONFIG, "lora", {**SHORT, "lora": {"target_modules": ["nothing"]}})
    assert caught.value.field == "lora.target_modules"


@pytest.mark.parametrize(
    ("kind", "skipped"),
    [
        ("nf4", ["lm_head", "down_proj"]),
        ("nf4", ["down_proj"]),
        ("nf4", ["model.layers"]),
        ("int8", ["lm_head", "no_such_layer"]),
    ],
)
def test_skipped_layers_are_those_of_transformers(kind, skipped):
    """A name's beginning or end; once names are given the head is packed too, unless it is one of them."""
    config = CONFIG | {"tie_word_embeddings": False}
    recipe = {**SHORT, "quantization": {"type": kind, "skip_modules": skipped}}
    traced = trace(config, "qlora", recipe)
    (computed,) = memory_answer({"config": config, "method": "qlora", "recipe": recipe})["estimates"]
    assert computed["peak"]["allocated_bytes"] == traced.peak_allocated_bytes
    assert computed["parameters"]["total"] == traced.total


@pytest.mark.parametrize("method", ["lora", "qlora", "dora"])
def test_a_frozen_factor_a_takes_no_gradient_and_keeps_no_input(method):
    words = {**SHORT, "gradient_checkpointing": False}
    lora = {"target_modules": "all-linear", "freeze_a": True}
    traced = trace(CONFIG, method, {**words, "lora": lora})
    computed = estimate(CONFIG, method, **words, lora=lora)
    assert computed.allocated_bytes == traced.peak_allocated_bytes
    assert computed.trainable_parameters == traced.trainable
    assert computed.allocated_bytes < estimate(CONFIG, method, **words, lora=lora | {"freeze_a": False}).allocated_bytes

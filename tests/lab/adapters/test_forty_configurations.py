"""Configurations made with real PEFT: reading, resizing, merging and converting leave the logits as PEFT has them.

Where an operation refuses, it says the reason that stands in the row.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.adapter import Adapter
from loralens.lab.adapters.files import read_adapter, write_adapter
from loralens.lab.adapters.formats.writing import convert
from loralens.lab.adapters.merging import merge_adapters
from loralens.lab.adapters.resize import resize_adapter

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own words about these odd settings
TOKENS = torch.arange(12)[None] * 5 % 64
SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
Row = tuple[str, dict[str, Any], dict[str, str]]

BEGAN = {"resize": "changed its base", "merge": "changed its base", "convert": "changed its base"}
DORA = {"merge": "DoRA"}
BIAS = {"convert": "lora_bias"}
TOKENS_TRAINED = {"merge": "rows of an embedding", "convert": "trainable_token_indices"}
OTHERWISE = {"merge": "does not act everywhere", "convert": "would act everywhere"}
PARAMETERS = {"merge": "target_parameters", "convert": "target_parameters"}
FULL = {"merge": "trained in full", "convert": "trained in full"}
TRAINED_BIAS = {"merge": "biases trained in full", "convert": "trained in full"}

ROWS: dict[str, Row] = {
    "plain": ("llama", {}, {}),
    "rank 1": ("llama", {"r": 1}, {}),
    "rank above the width": ("llama", {"r": 40}, {}),
    "small alpha": ("llama", {"lora_alpha": 1}, {}),
    "alpha with a fraction": ("llama", {"lora_alpha": 6.5}, {}),
    "dropout": ("llama", {"lora_dropout": 0.3}, {}),
    "rsLoRA": ("llama", {"use_rslora": True}, {}),
    "DoRA": ("llama", {"use_dora": True}, DORA),
    "DoRA, rsLoRA": ("llama", {"use_dora": True, "use_rslora": True}, DORA),
    "DoRA, ranks by module": ("llama", {"use_dora": True, "rank_pattern": {"v_proj": 2}}, DORA),
    "DoRA on everything": ("llama", {"use_dora": True, "target_modules": "all-linear"}, DORA),
    "DoRA on an embedding": ("llama", {"use_dora": True, "target_modules": ["embed_tokens", "q_proj"]}, DORA | {"convert": "scales its columns"}),
    "lora_bias": ("llama", {"lora_bias": True}, BIAS),
    "lora_bias, rsLoRA": ("llama", {"lora_bias": True, "use_rslora": True, "lora_alpha": 12}, BIAS),
    "ranks by module": ("llama", {"rank_pattern": {"v_proj": 2}}, {}),
    "ranks by pattern": ("llama", {"rank_pattern": {r"layers\.1\..*q_proj": 6, "v_proj": 3}}, {}),
    "alphas by module": ("llama", {"alpha_pattern": {"q_proj": 3}}, {}),
    "both, rsLoRA": ("llama", {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"v_proj": 5}, "use_rslora": True}, {}),
    "all-linear": ("llama", {"target_modules": "all-linear"}, {}),
    "the MLP": ("llama", {"target_modules": ["gate_proj", "up_proj", "down_proj"]}, {}),
    "a regular expression": ("llama", {"target_modules": r".*\.layers\.1\.(mlp|self_attn)\.\w+_proj"}, {}),
    "full names": ("llama", {"target_modules": ["model.layers.0.self_attn.q_proj", "layers.1.mlp.up_proj"]}, {}),
    "names without a module": ("llama", {"target_modules": ["q_proj", "c_attn"]}, {}),
    "excluded by name": ("llama", {"target_modules": ["q_proj", "up_proj"], "exclude_modules": ["up_proj"]}, {}),
    "excluded by pattern": ("llama", {"exclude_modules": r".*layers\.0.*"}, {}),
    "layers by list": ("llama", {"layers_to_transform": [1]}, {}),
    "one layer": ("llama", {"layers_to_transform": 0, "layers_pattern": "layers"}, {}),
    "head in full": ("llama", {"modules_to_save": ["lm_head"]}, FULL),
    "head and embeddings in full": ("llama", {"modules_to_save": ["lm_head", "embed_tokens"]}, FULL),
    "embedding": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}, {}),
    "embedding, head in full": (
        "llama", {"target_modules": ["embed_tokens", "q_proj"], "modules_to_save": ["lm_head"]}, FULL),
    "head": ("llama", {"target_modules": ["lm_head", "q_proj"]}, {}),
    "Gaussian": ("llama", {"init_lora_weights": "gaussian"}, {}),
    "orthogonal": ("llama", {"init_lora_weights": "orthogonal"}, {}),
    "no initialisation": ("llama", {"init_lora_weights": False}, {}),
    "PiSSA": ("llama", {"init_lora_weights": "pissa"}, BEGAN),
    "PiSSA, quick": ("llama", {"init_lora_weights": "pissa_niter_4"}, BEGAN),
    "OLoRA": ("llama", {"init_lora_weights": "olora"}, BEGAN),
    "bfloat16": ("llama", {"_dtype": torch.bfloat16}, {}),
    "float16": ("llama", {"_dtype": torch.float16}, {}),
    "biases, those of adapted layers": ("qwen", {"bias": "lora_only"}, TRAINED_BIAS),
    "biases, all": ("qwen", {"bias": "all"}, TRAINED_BIAS),
    "GPT-2": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}, {}),
    "GPT-2, everything": ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}, {}),
    "GPT-2, DoRA": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True, "use_dora": True}, DORA),
    "single tokens": ("llama", {"trainable_token_indices": {"embed_tokens": [1, 2, 5]}}, TOKENS_TRAINED),
    "single tokens, tied": ("tied", {"trainable_token_indices": [1, 2, 5]}, TOKENS_TRAINED),
    "a parameter of a layer": ("llama", {"target_modules": [], "target_parameters": ["self_attn.q_proj.weight"]}, PARAMETERS),
    "stacked experts": (
        "experts", {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
        PARAMETERS),
    "one parameter of the experts, rsLoRA": (
        "experts", {"target_modules": [], "target_parameters": ["experts.down_proj"], "use_rslora": True}, PARAMETERS),
    "experts, ranks and alphas by parameter": (
        "experts", {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"],
                    "rank_pattern": {r".*\.gate_up_proj": 8}, "alpha_pattern": {r".*\.gate_up_proj": 5}}, PARAMETERS),
    "experts by PEFT's conversion of names": ("experts", {"target_modules": ["q_proj", "gate_proj", "up_proj"]}, PARAMETERS),
    "aLoRA": ("llama", {"alora_invocation_tokens": [10, 15]}, OTHERWISE),
    "layers repeated": ("llama", {"layer_replication": [[0, 2], [1, 2]]}, OTHERWISE),
    "a classifier of Llama": ("classifier", {"task_type": "SEQ_CLS"}, FULL),
    "an encoder": ("bert", {"task_type": "SEQ_CLS", "target_modules": ["query", "value"]}, FULL),
}  # fmt: skip
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "QALoRA": ({"use_qalora": True}, "use_qalora"),
}


@cache
def _built(kind: str) -> Any:
    torch.manual_seed(0)
    made: dict[str, Callable[[], Any]] = {
        "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL)),
        "tied": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, tie_word_embeddings=True)),
        "experts": lambda: transformers.Qwen3MoeForCausalLM(
            transformers.Qwen3MoeConfig(**SMALL, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
        ),
        "qwen": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SMALL)),
        "classifier": lambda: transformers.LlamaForSequenceClassification(
            transformers.LlamaConfig(**SMALL, pad_token_id=0, num_labels=3)
        ),
        "gpt2": lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64)
        ),
        "bert": lambda: transformers.BertForSequenceClassification(
            transformers.BertConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                    num_attention_heads=4, max_position_embeddings=64)
        ),
    }  # fmt: skip
    return made[kind]().eval()


def _trained(kind: str, folder: Path, *, seed: int = 1, **changes: Any) -> torch.Tensor:
    """An adapter that was trained a little, saved by PEFT; the logits that it had."""
    settings = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | changes
    dtype = settings.pop("_dtype", torch.float32)
    base = copy.deepcopy(_built(kind))
    torch.manual_seed(seed)
    model = peft.get_peft_model(base, peft.LoraConfig(**settings))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data += (0.3 * torch.randn(parameter.shape, generator=generator)).to(dtype).to(parameter.dtype)
            if "lora_" in name:
                parameter.data = parameter.data.to(dtype)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return _loaded(kind, folder)


def _loaded(kind: str, folder: Path) -> torch.Tensor:
    torch.manual_seed(0)  # PiSSA's quick form draws a range each time it is loaded
    model = peft.PeftModel.from_pretrained(copy.deepcopy(_built(kind)), folder).eval()
    with torch.no_grad():
        logits: torch.Tensor = model(TOKENS).logits
    return logits


def _close(found: torch.Tensor, wanted: torch.Tensor, share: float = 1e-5) -> None:
    """Within 1e-5, or such a share of logits that are larger than one."""
    assert float((found - wanted).abs().max()) < share * max(1.0, float(wanted.abs().max()))


def _either(expected: dict[str, str], operation: str, work: Callable[[], Adapter | None]) -> Adapter | None:
    """The operation's outcome, or None where it is refused for the row's reason."""
    if operation not in expected:
        return work()
    with pytest.raises(InvalidInput, match=expected[operation]):
        work()
    return None


@pytest.mark.parametrize("name", ROWS)
def test_peft_s_logits_stay(name: str, tmp_path: Path) -> None:
    kind, changes, expected = ROWS[name]
    wanted = _trained(kind, tmp_path / "theirs", **changes)
    adapter = read_adapter(tmp_path / "theirs")
    half = changes.get("_dtype", torch.float32) != torch.float32
    write_adapter(adapter, tmp_path / "kept")
    _close(_loaded(kind, tmp_path / "kept"), wanted)

    wider = max(factors.rank for factors in adapter.factors.values()) + 2
    resized = _either(expected, "resize", lambda: resize_adapter(adapter, rank=wider).adapter)
    if resized is not None:
        write_adapter(resized, tmp_path / "resized")
        # Singular vectors, rounded to 16 bits once more: that is the format's own error.
        _close(_loaded(kind, tmp_path / "resized"), wanted, 2e-2 if half else 1e-5)

    merged = _either(expected, "merge", lambda: merge_adapters([adapter, adapter], [0.25, 0.75], "cat").adapter)
    if merged is not None:
        write_adapter(merged, tmp_path / "merged")
        _close(_loaded(kind, tmp_path / "merged"), wanted, 2e-2 if half else 1e-5)

    there = _either(
        expected, "convert", lambda: convert(tmp_path / "theirs", tmp_path / "mlx", "mlx", layers=2) and None
    )
    if there is None and "convert" not in expected:
        convert(tmp_path / "mlx", tmp_path / "back", "peft")
        _close(_loaded(kind, tmp_path / "back"), wanted, 2e-2 if half else 1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    changes, reason = REFUSED[name]
    model = peft.get_peft_model(
        copy.deepcopy(_built("llama")),
        peft.LoraConfig(**({"r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"} | changes)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path)
    with pytest.raises(InvalidInput, match=reason):
        read_adapter(tmp_path)


def test_two_adapters_together_are_the_sum_that_peft_would_merge(tmp_path: Path) -> None:
    """Different targets, ranks and scalings: the base with both updates, each as PEFT's merge_and_unload makes it."""
    kinds = ({"r": 3, "use_rslora": True}, {"r": 5, "target_modules": ["v_proj", "down_proj"], "lora_alpha": 11})
    base = _built("llama")
    summed = copy.deepcopy(base)
    for number, (changes, weight) in enumerate(zip(kinds, (0.7, -0.4), strict=True)):
        _trained("llama", tmp_path / str(number), seed=number, **changes)
        model = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / str(number)).merge_and_unload()
        theirs = dict(model.named_parameters())
        with torch.no_grad():
            for name, parameter in summed.named_parameters():
                parameter += weight * (theirs[name] - dict(base.named_parameters())[name])
    adapters = [read_adapter(tmp_path / str(number)) for number in range(2)]
    write_adapter(merge_adapters(adapters, [0.7, -0.4], "cat").adapter, tmp_path / "both")
    with torch.no_grad():
        wanted = summed(TOKENS).logits
    _close(_loaded("llama", tmp_path / "both"), wanted)


def test_there_are_forty() -> None:
    assert len(ROWS) + len(REFUSED) >= 50

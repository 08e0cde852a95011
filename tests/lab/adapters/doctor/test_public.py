"""What owners of adapters reported in public, made again: the doctor names it first.

Each row's source is the report. Names, shapes and settings are the report's; widths are shrunk, and numbers are random.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from loralens.lab.adapters.doctor import diagnose
from loralens.lab.adapters.doctor.base import Base, base_of

from .test_planted import LLAMA, PREFIX, Tensors, config, fused, healthy, renamed, spoken, write

MOE = {
    "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "vocab_size": 64, "hidden_size": 16,
    "intermediate_size": 24, "moe_intermediate_size": 8, "num_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 64,
}  # fmt: skip
PHI = LLAMA | {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "pad_token_id": 0}
EMBEDDED, HEAD = f"{PREFIX}model.embed_tokens", f"{PREFIX}lm_head"
SAVED = {"modules_to_save": ["embed_tokens", "lm_head"]}


@dataclass(frozen=True)
class Report:
    """A public report: where, what was observed, the adapter, and the code of the finding that must come first."""

    source: str
    observed: str
    code: str
    tensors: Callable[[], Tensors] = healthy
    settings: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] | str = field(default_factory=lambda: LLAMA)
    engine: str | None = None
    says: str = ""


def _full(rows: int, *names: str) -> Tensors:
    return healthy() | {f"{name}.weight": torch.ones(rows, 16).bfloat16() for name in names}


def _one(rank: int, **shapes: tuple[int, int]) -> Tensors:
    """Factors for modules by name, (in_features, out_features) of each."""
    generator, tensors = torch.Generator().manual_seed(2), {}
    for module, (fan_in, fan_out) in shapes.items():
        tensors[f"{PREFIX}{module}.lora_A.weight"] = torch.randn(rank, fan_in, generator=generator).bfloat16() * 0.1
        tensors[f"{PREFIX}{module}.lora_B.weight"] = torch.randn(fan_out, rank, generator=generator).bfloat16() * 0.1
    return tensors


def _of_gemma_12b() -> Tensors:
    """All seven linear layers of 48 layers, under the names of transformers before 4.52."""
    whole = base_of("gemma-3-12b").places
    names = {
        name: place for name, place in whole.items() if ".language_model.layers." in name and place.kind == "linear"
    }
    old = {name.replace("model.language_model", "language_model.model"): place for name, place in names.items()}
    return _one(1, **{name: (place.in_features, place.out_features) for name, place in old.items()})


REPORTS = [
    Report("vllm-project/vllm#2847", "LoRA rank 64 is greater than max_lora_rank 16", "rank",
           lambda: healthy(rank=64), {"r": 64, "lora_alpha": 64}, engine="vllm", says="--max-lora-rank 64"),
    Report("vllm-project/vllm-omni#1397", "rank 48: max_lora_rank should be 1, 8, 16, 32, 64, 128, 256, 320 or 512", "rank",
           lambda: healthy(rank=48), {"r": 48, "lora_alpha": 48}, engine="vllm", says="--max-lora-rank 64"),
    Report("vllm-project/vllm#9280", "vLLM only supports modules_to_save being None", "modules_to_save",
           lambda: _full(64, EMBEDDED, HEAD), SAVED, engine="vllm"),
    Report("vllm-project/vllm#6983", "lora_magnitude_vector is unsupported LoRA weight", "dora",
           lambda: healthy() | {n.replace("lora_B.weight", "lora_magnitude_vector"): t[:, 0] for n, t in healthy().items() if "lora_B" in n},
           {"use_dora": True}, engine="vllm"),
    Report("vllm-project/vllm#36501", "trainable_tokens_delta is unsupported LoRA weight", "names",
           lambda: healthy() | {f"{EMBEDDED}.token_adapter.trainable_tokens_delta": torch.ones(3, 16).bfloat16()},
           {"trainable_token_indices": {"embed_tokens": [5, 6, 7]}}, engine="vllm", says="trainable_tokens_delta"),
    Report("vllm-project/vllm#34186", "names without the multimodal class's prefix: the base's output, silently", "prefix",
           lambda: _one(4, **{f"model.layers.{i}.self_attn.o_proj": (2048, 2560) for i in range(2)}),
           {"target_modules": ["o_proj"]}, base="gemma-3-4b", says="0 of 2 modules match"),
    Report("unslothai/unsloth#2238", "# of LoRAs = 336 does not match # of saved modules = 0", "prefix",
           _of_gemma_12b, {"r": 1, "lora_alpha": 1, "target_modules": "all-linear"}, base="gemma-3-12b", says="0 of 336 modules match"),
    Report("unslothai/unsloth#237", "size mismatch for embed_tokens.weight: 32002 rows, 32000 in the model", "vocabulary",
           lambda: _full(66, EMBEDDED, HEAD), says="resize_token_embeddings(66)"),
    Report("huggingface/peft#2290", "size mismatch for embed_tokens.base_layer.weight: 32005 rows, 32000 in the model", "vocabulary",
           lambda: _full(69, f"{EMBEDDED}.base_layer"), says="resize_token_embeddings(69)"),
    Report("hiyouga/LLaMA-Factory#7997", "add_tokens: modules_to_save of 128320 rows, 128256 in the model", "vocabulary",
           lambda: _full(80, EMBEDDED, HEAD), SAVED, engine="vllm", says="resize_token_embeddings(80)"),
    Report("huggingface/peft#1328", "ZeRO-3: shape torch.Size([0]) in the checkpoint for every factor", "empty",
           lambda: {name: torch.ones(0).bfloat16() for name in healthy()}, says="12 of 12 tensors are empty"),
    Report("huggingface/peft#2450", "ZeRO-3: modules_to_save are torch.Size([0])", "empty",
           lambda: healthy() | {f"{EMBEDDED}.weight": torch.ones(0).bfloat16()}, SAVED, says="accelerator.get_state_dict"),
    Report("ggml-org/llama.cpp#11554", "Unexpected name 'base_model.model.lm_head.weight': Not a lora_A or lora_B tensor", "names",
           lambda: _full(64, HEAD), SAVED, engine="llama.cpp", says="lm_head.weight"),
    Report("ggml-org/llama.cpp#3640", "Unexpected tensor name: model.layers.0.self_attn.q_proj.lora_A.default.weight", "foreign_format",
           lambda: renamed(lambda n: n.removeprefix(PREFIX).replace(".weight", ".default.weight"))),
    Report("ggml-org/llama.cpp#9065", "an adapter of lm_head whose base ties it to its embeddings", "tied_head",
           lambda: healthy() | _one(4, lm_head=(16, 64)), {"target_modules": [*config()["target_modules"], "lm_head"]},
           base=LLAMA | {"tie_word_embeddings": True}, engine="llama.cpp"),
    Report("huggingface/peft#1705", "q_proj and v_proj for a model whose attention is one qkv_proj", "fused",
           lambda: {n: t for n, t in healthy().items() if "mlp" not in n}, base=PHI, says="a part of qkv_proj"),
    Report("sgl-project/sglang#6585", "one qkv_proj for a model with q_proj, k_proj and v_proj", "fused", fused,
           {"target_modules": ["qkv_proj"]}, says="cut lora_B by rows"),
    Report("huggingface/peft#3009", "since transformers 5 the experts of Qwen3-MoE are one parameter", "experts",
           lambda: _one(4, **{f"model.layers.0.mlp.experts.{i}.gate_proj": (16, 8) for i in range(4)}),
           {"target_modules": ["gate_proj"]}, base=MOE, says="0 of 4 modules match"),
    Report("huggingface/peft#2957", "names gained _orig_mod after torch.compile", "compiled",
           lambda: renamed(lambda n: n.replace(PREFIX, PREFIX + "_orig_mod."))),
    Report("tloen/alpaca-lora#357", "after training, all weights of lora_B are 0", "untrained",
           lambda: {name: tensor * ("lora_A" in name) for name, tensor in healthy().items()}),
    Report("getainode/ainode#186", "the adapter is NaN in all its values", "not_finite",
           lambda: {name: tensor * float("nan") for name, tensor in healthy().items()}, says="6 of 6 modules"),
    Report("sgl-project/sglang#18046", "SGLang supports no adapters that add tokens", "vocabulary", engine="sglang"),
]  # fmt: skip


def _base(report: Report) -> Base:
    return base_of(report.base) if isinstance(report.base, str) else base_of(config=report.base)


@pytest.mark.parametrize("report", REPORTS, ids=[report.source for report in REPORTS])
def test_it_is_named_first(report: Report, tmp_path: Path) -> None:
    folder = write(tmp_path / "reported", report.tensors(), config(**report.settings))
    (folder / "added_tokens.json").write_text('{"<new>": 64}')
    answer = diagnose(folder, _base(report), report.engine)
    first = answer.findings[0]
    assert first.code == report.code, answer.findings
    assert answer.verdict != "healthy" and first.repair
    assert report.says in f"{first.what} {first.cause} {first.repair} {first.modules}"
    for found in answer.findings:
        spoken(found)


def test_a_copied_list_of_tokens_is_no_fault(tmp_path: Path) -> None:
    """sgl-project/sglang#17905: many adapters carry their base's own added_tokens.json."""
    folder = write(tmp_path / "copied", healthy(), config())
    (folder / "added_tokens.json").write_text(json.dumps({"<pad>": 63}))
    assert diagnose(folder, base_of(config=LLAMA), "sglang").verdict == "healthy"


def test_a_file_without_a_tensor(tmp_path: Path) -> None:
    """tloen/alpaca-lora#597: the state dict was empty when it was saved."""
    folder = write(tmp_path / "none", None, config())
    header = json.dumps({"__metadata__": {"format": "pt"}}).encode()
    (folder / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    first = diagnose(folder, base_of(config=LLAMA)).findings[0]
    assert (first.code, first.what) == ("weights_unreadable", "the file contains no tensors")

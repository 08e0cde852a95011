"""Twenty-five adapters, each with one fault planted: the doctor must name it first."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from loralens.lab.adapters.doctor import diagnose
from loralens.lab.adapters.doctor.base import Base, base_of
from loralens.lab.adapters.doctor.finding import Finding
from loralens.lab.adapters.files import read_adapter
from loralens.lab.adapters.inspect import inspect_adapter

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
SHAPES = {"self_attn.q_proj": (16, 16), "self_attn.v_proj": (16, 8), "mlp.down_proj": (24, 16)}
PREFIX = "base_model.model."
Tensors = dict[str, torch.Tensor]


def healthy(layers: int = 2, rank: int = 4) -> Tensors:
    """Factors for SHAPES in every layer of LLAMA, in bfloat16 and with updates of full rank and usual size."""
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for layer in range(layers):
        for name, (fan_in, fan_out) in SHAPES.items():
            stem = f"{PREFIX}model.layers.{layer}.{name}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, fan_in, generator=generator).bfloat16() * 0.1
            tensors[f"{stem}.lora_B.weight"] = torch.randn(fan_out, rank, generator=generator).bfloat16() * 0.1
    return tensors


def config(**changes: Any) -> dict[str, Any]:
    """Its config, with some keys changed."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 4,
        "lora_alpha": 4,
        "target_modules": [name.rpartition(".")[2] for name in SHAPES],
    } | changes


def write(folder: Path, tensors: Tensors | None, settings: dict[str, Any] | None) -> Path:
    folder.mkdir(exist_ok=True)
    if tensors is not None:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    if settings is not None:
        (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def renamed(change: Callable[[str], str], tensors: Tensors | None = None) -> Tensors:
    return {change(name): tensor for name, tensor in (tensors or healthy()).items()}


def changed(part: str, change: Callable[[torch.Tensor], torch.Tensor], tensors: Tensors | None = None) -> Tensors:
    return {name: change(t.clone()) if part in name else t for name, t in (tensors or healthy()).items()}


def transposed() -> Tensors:
    tensors = {}
    for name, tensor in healthy().items():
        swapped = name.replace("lora_A", "x").replace("lora_B", "lora_A").replace("x", "lora_B")
        tensors[swapped] = tensor.T
    return tensors


def one_nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor[0, 0] = float("nan")
    return tensor


def embedded(rows: int) -> Tensors:
    return healthy() | {
        f"{PREFIX}lm_head.lora_A.weight": torch.randn(4, 16).bfloat16(),
        f"{PREFIX}lm_head.lora_B.weight": torch.randn(rows, 4).bfloat16() * 0.1,
    }


def fused() -> Tensors:
    qkv = {}
    for layer in range(2):
        stem = f"{PREFIX}model.layers.{layer}.self_attn.qkv_proj"
        qkv[f"{stem}.lora_A.weight"] = torch.randn(4, 16).bfloat16()
        qkv[f"{stem}.lora_B.weight"] = torch.randn(32, 4).bfloat16() * 0.1
    return qkv


def without(part: str) -> Tensors:
    return {name: tensor for name, tensor in healthy().items() if part not in name}


Q0, DOWN = "layers.0.self_attn.q_proj", "down_proj.lora_B"
TO_VLLM, TO_LLAMA_CPP = "vllm", "llama.cpp"
PLANTED: list[tuple[str, str, Tensors | None, dict[str, Any] | None, str | None]] = [
    ("prefix missing", "prefix", renamed(lambda n: n.replace("model.layers", "layers", 1)
        if n.startswith(PREFIX + "model.") else n), config(), None),
    ("saved from torch.compile", "compiled", renamed(lambda n: n.replace(PREFIX, PREFIX + "_orig_mod.")), config(), None),
    ("wrapped twice", "prefix", renamed(lambda n: PREFIX + n), config(), None),
    ("of a multimodal class", "prefix", renamed(lambda n: n.replace("model.layers", "model.language_model.layers")), config(), None),
    ("fused attention", "fused", fused(), config(target_modules=["qkv_proj"]), None),
    ("more layers", "layers", healthy(layers=4), config(), None),
    ("names of GPT-2", "other_names", renamed(lambda n: n.replace("model.layers", "transformer.h").replace("self_attn.q_proj", "attn.c_proj")
        .replace("self_attn.v_proj", "attn.c_fc").replace("mlp.down_proj", "mlp.c_proj2")),
        config(target_modules=["c_proj", "c_fc", "c_proj2"]), None),
    ("another width", "shape", changed("lora_A", lambda t: torch.cat([t, t], 1)), config(), None),
    ("vocabulary resized", "vocabulary", embedded(66), config(target_modules=[*config()["target_modules"], "lm_head"]), None),
    ("transposed", "transposed", {n: t for n, t in transposed().items() if "q_proj" not in n},
        config(), None),
    ("never trained", "untrained", changed("lora_B", torch.zeros_like), config(), None),
    ("dead modules", "dead", changed(DOWN, torch.zeros_like), config(), None),
    ("NaN", "not_finite", changed(Q0 + ".lora_B", one_nan), config(), None),
    ("exploded", "exploding", changed("lora_B", lambda t: t * 1e5), config(), None),
    ("one module exploded", "exploding", changed(Q0 + ".lora_B", lambda t: t * 1e4), config(), None),
    ("alpha far off", "exploding", healthy(), config(lora_alpha=40_000), None),
    ("rank of another config", "structure", healthy(), config(r=8), None),
    ("half of a pair", "structure", without(Q0 + ".lora_B"), config(), None),
    ("names of the live model", "foreign_format", renamed(lambda n: n.replace(".weight", ".default.weight")), config(), None),
    ("MLX", "foreign_format", renamed(lambda n: n.removeprefix(PREFIX).replace("lora_A.weight", "lora_a").replace("lora_B.weight", "lora_b")),
        {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"rank": 4, "scale": 1.0}}, None),
    ("no config", "no_config", healthy(), None, None),
    ("no weights", "no_weights", None, config(), None),
    ("DoRA for vLLM", "dora", healthy() | {
        f"{PREFIX}model.layers.{i}.{n}.lora_magnitude_vector": torch.ones(s[1]).bfloat16() for i in range(2) for n, s in SHAPES.items()},
        config(use_dora=True), TO_VLLM),
    ("rank too large for vLLM", "rank", healthy(rank=600), config(r=600), TO_VLLM),
    ("rsLoRA for llama.cpp", "rslora", healthy(), config(use_rslora=True), TO_LLAMA_CPP),
]  # fmt: skip


RULES = json.loads((Path(__file__).parents[4] / "frontend/src/features/adapters/doctor.zh-CN.json").read_text("utf-8"))


def spoken(found: Finding) -> None:
    """The page has a Chinese sentence for it; what the strict reader refuses is in the reader's own words."""
    for sentence in (found.what, found.cause, found.repair):
        by_reader = found.stage in ("config", "structure")
        is_command = re.match(r"loralens |vllm |sglang |PeftModel\.|model\.", sentence)
        if sentence and not by_reader and not is_command:
            assert any(re.fullmatch(pattern, sentence, re.DOTALL) for pattern, _ in RULES), sentence


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llama.cpp", "mlx"])
def test_what_engines_refuse_is_said_in_chinese_too(engine: str, tmp_path: Path, base: Base) -> None:
    everything = config(
        use_dora=True, use_rslora=True, bias="all", modules_to_save=["score"], alpha_pattern={"q_proj": 9}, r=600,
        target_modules=[*config()["target_modules"], "lm_head"],
    )  # fmt: skip
    tensors = healthy(rank=600) | {f"{PREFIX}score.weight": torch.ones(2, 16)}
    tensors |= {
        f"{PREFIX}lm_head.lora_A.weight": torch.ones(4, 16),
        f"{PREFIX}lm_head.lora_B.weight": torch.ones(64, 4),
    }
    folder = write(tmp_path / "all", tensors, everything)
    (folder / "added_tokens.json").write_text('{"<new>": 64}')
    tied = base_of(config=LLAMA | {"tie_word_embeddings": True})
    found = diagnose(folder, tied, engine).findings
    assert any(one.stage == "engine" for one in found)
    for one in found:
        spoken(one)


def test_notes_of_the_inspector_are_said_in_chinese_too(tmp_path: Path) -> None:
    whole = {f"{PREFIX}score.weight": torch.ones(2, 16), f"{PREFIX}model.embed_tokens.weight": torch.ones(4, 16)}
    vectors = {
        f"{PREFIX}model.layers.{i}.{name}.lora_magnitude_vector": torch.ones(shape[1])
        for i in range(2)
        for name, shape in SHAPES.items()
    }
    rows = {f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta": torch.ones(2, 16)}
    expert = f"{PREFIX}model.layers.0.mlp.experts"
    experts = {f"{expert}.lora_A.weight": torch.ones(8, 16), f"{expert}.lora_B.weight": torch.ones(16, 8)}
    adaptive = {
        f"{PREFIX}x.lora_{role}": torch.ones(shape) for role, shape in (("A", (3, 4)), ("B", (4, 3)), ("E", (3, 1)))
    }
    said = set()
    for number, (tensors, settings) in enumerate((
        (healthy() | whole, config(modules_to_save=["score"], target_modules=[*config()["target_modules"], "c_attn"])),
        (healthy() | vectors, config(use_dora=True, target_modules="all-linear")),
        (healthy(), config(init_lora_weights="pissa")),
        (healthy() | rows, config(trainable_token_indices=[1, 2])),
        (healthy() | experts, config(target_parameters=["experts.down_proj"])),
        (healthy(), config(alora_invocation_tokens=[3])),
        (adaptive, {"peft_type": "ADALORA", "init_r": 3, "lora_alpha": 4, "target_modules": ["x"]}),
    )):  # fmt: skip
        said |= set(inspect_adapter(read_adapter(write(tmp_path / str(number), tensors, settings))).notes)
    assert len(said) == 10
    for sentence in said:
        assert any(re.fullmatch(pattern, sentence, re.DOTALL) for pattern, _ in RULES), sentence


@pytest.fixture(scope="module")
def base() -> Base:
    return base_of(config=LLAMA)


def test_a_healthy_adapter_is_healthy(tmp_path: Path, base: Base) -> None:
    for engine in (None, "peft", "vllm", "llama.cpp"):
        answer = diagnose(write(tmp_path / "good", healthy(), config()), base, engine)
        assert answer.verdict == "healthy" and answer.findings == [] and answer.modules == 6


def test_there_are_25() -> None:
    assert len(PLANTED) == 25


@pytest.mark.parametrize(("name", "code", "tensors", "settings", "engine"), PLANTED, ids=[row[0] for row in PLANTED])
def test_the_planted_fault_is_named_first(
    name: str, code: str, tensors: Tensors | None, settings: dict[str, Any] | None, engine: str | None,
    tmp_path: Path, base: Base,
) -> None:  # fmt: skip
    answer = diagnose(write(tmp_path / "planted", tensors, settings), base, engine)
    first = answer.findings[0]
    assert first.code == code, answer.findings
    assert answer.verdict == ("doubtful" if code == "dead" else "broken")
    assert first.repair
    for found in answer.findings:
        spoken(found)


@pytest.mark.parametrize(
    ("prefix", "verdict"), [("model.language_model", "healthy"), ("language_model.model", "doubtful")]
)
def test_an_adapter_of_a_multimodal_model(prefix: str, verdict: str, tmp_path: Path) -> None:
    """The language model's layers are found under the class's own prefix, and under the one of older versions with a warning."""
    whole = base_of("gemma-3-4b")
    tensors = {}
    for layer in range(2):
        place = whole.places[f"model.language_model.layers.{layer}.self_attn.q_proj"]
        stem = f"{PREFIX}{prefix}.layers.{layer}.self_attn.q_proj"
        tensors[f"{stem}.lora_A.weight"] = torch.randn(4, place.in_features).bfloat16() * 0.1
        tensors[f"{stem}.lora_B.weight"] = torch.randn(place.out_features, 4).bfloat16() * 0.1
    answer = diagnose(write(tmp_path / "vlm", tensors, config(target_modules=["q_proj"])), whole)
    assert answer.verdict == verdict, answer.findings
    assert whole.layers == 34


def test_what_acts_elsewhere_is_said(tmp_path: Path, base: Base) -> None:
    """Repeated layers are the base's own; aLoRA acts from its tokens on; AdaLoRA is no LoRA to an engine."""
    repeated = write(tmp_path / "repeated", healthy(layers=3), config(layer_replication=[[0, 2], [1, 2]]))
    assert diagnose(repeated, base).verdict == "healthy"
    late = diagnose(write(tmp_path / "late", healthy(), config(alora_invocation_tokens=[3])), base)
    adaptive = {
        f"{PREFIX}x.lora_{role}": torch.ones(shape) for role, shape in (("A", (3, 4)), ("B", (4, 3)), ("E", (3, 1)))
    }
    pruned = diagnose(write(tmp_path / "pruned", adaptive, {"peft_type": "ADALORA", "lora_alpha": 4}))
    for answer, code in ((late, "alora"), (pruned, "adalora")):
        assert (answer.verdict, answer.findings[0].code) == ("doubtful", code)
        for found in answer.findings:
            spoken(found)


def test_factors_of_stacked_experts_fit_and_are_measured(tmp_path: Path) -> None:
    """PEFT's target_parameters: eight experts in one pair, under the module's name and nested below it."""
    base = base_of("mixtral-8x7b")
    tensors = {}
    generator = torch.Generator().manual_seed(0)
    for module, (fan_in, fan_out) in {"experts.base_layer": (4096, 28672), "experts": (14336, 4096)}.items():
        stem = f"{PREFIX}model.layers.3.mlp.{module}"
        tensors[f"{stem}.lora_A.weight"] = torch.randn(8, fan_in, generator=generator).bfloat16() * 0.1
        tensors[f"{stem}.lora_B.weight"] = torch.randn(fan_out, 8, generator=generator).bfloat16() * 0.1
    settings = config(r=1, target_modules=[], target_parameters=["experts.gate_up_proj", "experts.down_proj"])
    answer = diagnose(write(tmp_path / "experts", tensors, settings), base)
    assert (answer.verdict, answer.modules) == ("healthy", 2), answer.findings
    other = diagnose(tmp_path / "experts", base_of("llama-3.1-8b"))
    assert other.findings[0].what.startswith("0 of 2 modules match")

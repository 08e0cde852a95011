"""The generated cases: families of real width with few layers, crossed with the words of the recipe.

Every family gets the core recipes; the rest rotate over the families, and the widely used families get all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from loralens.core.catalogue import model
from loralens.core.jsontext import JsonObject

# catalogue id, layers that keep the family's pattern of layers, names for a small LoRA, target for a large one
_FAMILIES: Final = (
    ("llama-2-7b", 3, "q_proj,v_proj", "all-linear"),
    ("llama-3.2-1b", 3, "q_proj,v_proj", "all-linear"),
    ("mistral-7b-v0.3", 3, "q_proj,v_proj", "all-linear"),
    ("mistral-7b-v0.1", 2, "q_proj,v_proj", "all-linear"),  # sliding window
    ("qwen2.5-0.5b", 3, "q_proj,v_proj", "all-linear"),
    ("qwen3-0.6b", 3, "q_proj,v_proj", "all-linear"),
    ("gemma-2b", 2, "q_proj,v_proj", "all-linear"),
    ("gemma-2-9b", 4, "q_proj,v_proj", "all-linear"),
    ("gemma-3-1b", 7, "q_proj,v_proj", "all-linear"),
    ("phi-2", 3, "q_proj,v_proj", "all-linear"),
    ("phi-3-mini", 3, "qkv_proj", "all-linear"),
    ("phi-4-mini", 2, "qkv_proj", "all-linear"),
    ("gpt2", 3, "c_attn", "c_attn,c_proj,c_fc"),
    ("opt-125m", 3, "q_proj,v_proj", "all-linear"),
    ("pythia-410m", 3, "query_key_value", "all-linear"),
    ("falcon-7b", 2, "query_key_value", "all-linear"),
    ("falcon-180b", 2, "query_key_value", "all-linear"),
    ("bloom-560m", 3, "query_key_value", "all-linear"),
    ("starcoder2-7b", 2, "q_proj,v_proj", "all-linear"),
    ("olmo-2-7b", 2, "q_proj,v_proj", "all-linear"),
    ("glm-4-9b", 2, "q_proj,v_proj", "all-linear"),
    ("smollm2-135m", 3, "q_proj,v_proj", "all-linear"),
    ("mixtral-8x7b", 2, "q_proj,v_proj", "q_proj,k_proj,v_proj,o_proj"),
    ("qwen3-30b-a3b", 2, "q_proj,v_proj", "q_proj,k_proj,v_proj,o_proj"),
    ("gpt-oss-20b", 2, "q_proj,v_proj", "q_proj,k_proj,v_proj,o_proj"),
    ("deepseek-v2-lite", 3, "kv_b_proj", "q_proj,kv_b_proj,o_proj"),
    ("deepseek-v3", 5, "kv_b_proj", "q_b_proj,kv_b_proj,o_proj"),
    ("glm-4.5", 4, "q_proj,v_proj", "q_proj,k_proj,v_proj,o_proj"),
    ("llama-4-scout", 4, "q_proj,v_proj", "q_proj,k_proj,v_proj,o_proj"),
    ("bert-base-uncased", 3, "query,value", "all-linear"),
    ("t5-base", 3, "q,v", "q,k,v,o,wi,wo"),
    ("flan-t5-xl", 2, "q,v", "q,k,v,o,wi_0,wi_1,wo"),
    ("vit-large-patch16-224", 3, "q_proj,v_proj", "all-linear"),
    ("whisper-large-v3", 2, "q_proj,v_proj", "all-linear"),
    ("gpt-j", 2, "q_proj,v_proj", "all-linear"),
    ("granite", 2, "q_proj,v_proj", "all-linear"),
    ("smollm3", 4, "q_proj,v_proj", "all-linear"),
    ("llama-4-interleaved", 4, "q_proj,v_proj", "q_proj,v_proj,gate_proj,down_proj"),
    ("whisper-dropout", 5, "q_proj,v_proj", "all-linear"),
    ("vit-dropout", 5, "q_proj,v_proj", "all-linear"),
    ("t5-wide-heads", 5, "q,v", "q,k,v,o,wi_0,wi_1,wo"),
)
_WIDELY_USED: Final = frozenset({"llama-3.2-1b", "qwen2.5-0.5b", "gemma-2-9b"})
_EVERY_RECIPE: Final = frozenset({"t5-base", "whisper-large-v3", "vit-large-patch16-224", "llama-4-scout"})
# beside what rotation gives them: paths that no other case of the family takes
_ALSO: Final[Mapping[str, tuple[str, ...]]] = {"pythia-410m": ("full-eager", "lora-eager-checkpointing")}
_LANGUAGE_ALONE: Final = frozenset({"llama-4-scout"})  # the whole model has cases in `grid_media`
_NO_PADDED: Final = frozenset({"vit", "whisper"})  # their inputs have no padding mask
# families that the catalogue does not list, with the shapes of a small published member
_EXTRA: Final[dict[str, JsonObject]] = {
    "gpt-j": {"model_type": "gptj", "vocab_size": 50400, "n_positions": 2048, "n_embd": 2048, "n_layer": 2, "n_head": 16,
              "rotary_dim": 64, "activation_function": "gelu_new", "resid_pdrop": 0.0, "embd_pdrop": 0.0,
              "attn_pdrop": 0.0, "tie_word_embeddings": False},
    "granite": {"model_type": "granite", "vocab_size": 49155, "hidden_size": 2048, "intermediate_size": 8192,
                "num_hidden_layers": 2, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_act": "silu",
                "max_position_embeddings": 131072, "tie_word_embeddings": True, "attention_dropout": 0.1,
                "embedding_multiplier": 12.0, "attention_multiplier": 0.015625, "residual_multiplier": 0.22,
                "logits_scaling": 8.0},
    "smollm3": {"model_type": "smollm3", "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 11008,
                "num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 4, "hidden_act": "silu",
                "max_position_embeddings": 65536, "tie_word_embeddings": True},
    # as Llama-4-Maverick: every second layer dense, no norm of query and key; chunks shorter than the longest case
    "llama-4-interleaved": {"model_type": "llama4_text", "vocab_size": 32000, "hidden_size": 1024, "intermediate_size": 2048,
                            "intermediate_size_mlp": 4096, "num_hidden_layers": 4, "num_attention_heads": 8,
                            "num_key_value_heads": 2, "head_dim": 128, "num_local_experts": 4, "num_experts_per_tok": 1,
                            "interleave_moe_layer_step": 2, "use_qk_norm": False, "attn_temperature_tuning": False,
                            "attention_chunk_size": 1024, "max_position_embeddings": 131072},
    # the small members train with dropout in all places; five layers, of which not all are simulated
    "whisper-dropout": {"model_type": "whisper", "vocab_size": 51865, "d_model": 384, "encoder_layers": 5, "decoder_layers": 5,
                        "encoder_attention_heads": 6, "decoder_attention_heads": 6, "encoder_ffn_dim": 1536,
                        "decoder_ffn_dim": 1536, "num_mel_bins": 80, "max_source_positions": 1500,
                        "max_target_positions": 448, "dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.1,
                        "tie_word_embeddings": False, "pad_token_id": 50257},
    "vit-dropout": {"model_type": "vit", "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 5,
                    "num_attention_heads": 6, "image_size": [160, 320], "patch_size": 16, "num_channels": 3,
                    "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "qkv_bias": False,
                    "hidden_act": "gelu", "num_labels": 1000},
    "t5-wide-heads": {"model_type": "t5", "vocab_size": 32128, "d_model": 512, "d_kv": 128, "d_ff": 1024, "num_layers": 5,
                      "num_decoder_layers": 5, "num_heads": 6, "feed_forward_proj": "gated-silu", "dropout_rate": 0.0,
                      "tie_word_embeddings": False},
}  # fmt: skip


def small_config(name: str, layers: int) -> JsonObject:
    """The model's config with `layers` layers and everything else as published."""
    config = _EXTRA[name] if name in _EXTRA else model(name).config
    if name in _LANGUAGE_ALONE:
        config = {key: value for key, value in config.items() if key != "vision_config"}
    return shortened(config, layers)


def shortened(config: Mapping[str, Any], layers: int) -> JsonObject:
    """A config with fewer layers."""
    short = {key: value for key, value in config.items() if key not in ("architectures", "torch_dtype")}
    for key in ("num_hidden_layers", "n_layer", "num_layers", "encoder_layers", "decoder_layers", "num_decoder_layers"):
        if short.get(key):
            short[key] = layers
    for key in ("layer_types", "no_rope_layers", "mlp_layer_types"):
        if isinstance(short.get(key), list):
            short[key] = short[key][:layers]
    if isinstance(short.get("text_config"), Mapping):
        short["text_config"] = shortened(short["text_config"], layers)
    return short


def _shape(batch: int, length: int) -> JsonObject:
    return {"micro_batch_size": batch, "sequence_length": length}


def _core(few: list[str], many: list[str] | str) -> dict[str, tuple[str, JsonObject]]:
    large = {"rank": 16, "alpha": 32, "dropout": 0.05, "target_modules": many}
    nf4 = {"type": "nf4", "double_quant": True, "prepare_kbit": True}
    return {
        "full-bf16": ("full", {**_shape(2, 1024), "autocast": None}),
        "full-fp32-autocast": ("full", {**_shape(1, 512), "weights_dtype": "float32"}),
        "full-checkpointing-foreach": ("full", {**_shape(4, 1024), "autocast": None, "optimizer": "adamw_foreach", "gradient_checkpointing": True}),
        "lora-few-no-autocast": ("lora", {**_shape(1, 1000), "autocast": None, "lora": {"rank": 8, "dropout": 0.1, "target_modules": few}}),
        "lora-many": ("lora", {**_shape(2, 512), "lora": large}),
        "lora-many-checkpointing": ("lora", {**_shape(4, 2048), "gradient_checkpointing": True, "lora": large}),
        "qlora-checkpointing": ("qlora", {**_shape(2, 2048), "gradient_checkpointing": True, "lora": large, "quantization": nf4}),
    }  # fmt: skip


def _rotating(few: list[str], many: list[str] | str) -> dict[str, tuple[str, JsonObject]]:
    small = {"rank": 8, "alpha": 16, "target_modules": few}
    large = {"rank": 32, "alpha": 32, "target_modules": many}
    nf4 = {"type": "nf4", "double_quant": False, "prepare_kbit": False}
    cases: dict[str, tuple[str, JsonObject]] = {
        "full-eager": ("full", {**_shape(1, 768), "autocast": None, "attention": "eager"}),
        "full-padded-8bit": ("full", {**_shape(3, 500), "autocast": None, "padded": True, "optimizer": "adamw_8bit"}),
        "full-fp16-scaler": ("full", {**_shape(1, 1024), "weights_dtype": "float32", "autocast": "float16", "optimizer": "adamw_foreach"}),
        "full-fp32": ("full", {**_shape(1, 640), "weights_dtype": "float32", "autocast": None, "optimizer": "adamw_loop"}),
        "full-accumulating": ("full", {**_shape(1, 256), "autocast": None, "gradient_accumulation_steps": 4}),
        "full-step-in-backward": ("full", {**_shape(1, 512), "autocast": None, "optimizer_in_backward": True}),
        "full-step-in-backward-checkpointing": ("full", {**_shape(2, 512), "autocast": None, "optimizer_in_backward": True, "gradient_checkpointing": True, "optimizer": "adamw_8bit"}),
        "full-clipping": ("full", {**_shape(1, 128), "autocast": None, "max_grad_norm": 1.0}),
        "full-last-layer": ("full", {**_shape(2, 512), "autocast": None, "trainable_layers": 1}),
        "full-loop-short": ("full", {**_shape(1, 64), "autocast": None, "optimizer": "adamw_loop"}),
        "full-sgd": ("full", {**_shape(1, 256), "autocast": None, "optimizer": "sgd"}),
        "full-momentum": ("full", {**_shape(1, 256), "autocast": None, "optimizer": "sgd_momentum"}),
        "full-adafactor": ("full", {**_shape(1, 64), "autocast": None, "optimizer": "adafactor"}),
        "full-lion": ("full", {**_shape(1, 256), "autocast": None, "optimizer": "lion"}),
        "full-lion-8bit": ("full", {**_shape(1, 256), "autocast": None, "optimizer": "lion_8bit"}),
        "full-muon": ("full", {**_shape(1, 64), "autocast": None, "optimizer": "muon"}),
        "full-paged": ("full", {**_shape(1, 64), "autocast": None, "optimizer": "paged_adamw_32bit"}),
        "lora-padded-bf16-adapters": ("lora", {**_shape(4, 512), "autocast": None, "padded": True, "lora": {**large, "adapter_dtype": "bfloat16", "dropout": 0.1}}),
        "lora-padded-checkpointing": ("lora", {**_shape(4, 777), "padded": True, "gradient_checkpointing": True, "lora": large}),
        "lora-eager-checkpointing": ("lora", {**_shape(2, 1024), "attention": "eager", "gradient_checkpointing": True, "lora": large}),
        "lora-long": ("lora", {**_shape(1, 6000), "gradient_checkpointing": True, "lora": small}),
        "lora-fp16-base": ("lora", {**_shape(2, 700), "weights_dtype": "float16", "autocast": "float16", "lora": large}),
        "lora-rslora": ("lora", {**_shape(1, 512), "lora": {**large, "rank": 64, "use_rslora": True}, "optimizer": "paged_adamw_8bit"}),
        "lora-biases": ("lora", {**_shape(1, 512), "lora": {**small, "bias": "all"}}),
        "lora-accumulating": ("lora", {**_shape(1, 512), "lora": small, "gradient_accumulation_steps": 2, "optimizer": "adamw_foreach"}),
        "dora": ("dora", {**_shape(1, 512), "lora": {**small, "dropout": 0.05}}),
        "dora-many-checkpointing": ("dora", {**_shape(2, 512), "gradient_checkpointing": True, "lora": large}),
        "qlora-no-preparation": ("qlora", {**_shape(1, 1024), "lora": large, "quantization": nf4}),
        "qlora-8bit-optimizer": ("qlora", {**_shape(1, 2048), "gradient_checkpointing": True, "optimizer": "paged_adamw_8bit", "lora": large, "quantization": {"type": "fp4"}}),
        "int8-lora-checkpointing": ("qlora", {**_shape(1, 1024), "gradient_checkpointing": True, "lora": small, "quantization": {"type": "int8"}}),
    }  # fmt: skip
    return cases


_PER_FAMILY: Final = 3


def cases() -> Iterator[tuple[str, JsonObject]]:
    """Name and request (config, method, recipe) of every case."""
    position = 0
    for name, layers, few_text, many_text in _FAMILIES:
        few = few_text.split(",")
        many: list[str] | str = many_text if many_text == "all-linear" else many_text.split(",")
        config = small_config(name, layers)
        chosen = _core(few, many)
        rest = _rotating(few, many)
        if name in _WIDELY_USED:
            chosen |= rest
        else:
            names = list(rest)
            chosen |= {
                names[(position + k) % len(names)]: rest[names[(position + k) % len(names)]] for k in range(_PER_FAMILY)
            }
            position += _PER_FAMILY
            if name in _EVERY_RECIPE:
                chosen |= rest
            chosen |= {word: rest[word] for word in _ALSO.get(name, ())}
        for word, (method, recipe) in chosen.items():
            fitted = _fitted(config, recipe)
            if fitted is not None:
                yield f"{name}/{word}", {"config": config, "method": method, "recipe": fitted}


def _fitted(config: Mapping[str, Any], recipe: JsonObject) -> JsonObject | None:
    """The recipe within what the model can take; None when its point would be lost."""
    if recipe.get("padded") and config["model_type"] in _NO_PADDED:
        return None
    longest = min(config.get(key) or 1 << 30 for key in ("n_positions", "max_position_embeddings"))
    length = min(recipe["sequence_length"], longest, 448 if config["model_type"] == "whisper" else 1 << 30)
    return {"gradient_checkpointing": False, **recipe, "sequence_length": length}

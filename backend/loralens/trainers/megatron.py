"""Megatron-LM's arguments: the command of `pretrain_gpt.py`, which says the model's own sizes too.

**Source:** NVIDIA/Megatron-LM d98e8a64 megatron/training/arguments.py (`validate_args`: what follows from what),
megatron/training/tokenizer/tokenizer.py (`_vocab_size_with_padding`).
"""

from __future__ import annotations

from typing import Any, Final

from loralens.trainers.reading import Reading

GPT2_VOCABULARY: Final = 50_257
ATTENTION: Final = {"flash": "flash", "unfused": "eager", "local": "eager"}


def read_megatron(r: Reading) -> None:
    """The model, the step, and who shares it."""
    tp = r.whole("tensor_model_parallel_size", 1) or 1
    layers = r.whole("num_layers", None)
    r.config = _config(r, layers, tp)
    r.say("sequence_length", r.whole("seq_length", 1024), "seq_length")
    r.say("micro_batch_size", r.whole("micro_batch_size", 1), "micro_batch_size")
    half = "bfloat16" if r.true("bf16") else "float16" if r.true("fp16") else "float32"
    r.say("weights_dtype", half, "bf16", "fp16")
    r.say("attention", ATTENTION.get(str(r.get("attention_backend") or "auto"), "sdpa"), "attention_backend")
    if r.get("transformer_impl") not in (None, "transformer_engine"):
        r.block("layers without TransformerEngine are not modelled", "transformer_impl")
    _optimizer(r)
    _recompute(r)
    _mesh(r, tp, layers)


def _config(r: Reading, layers: int | None, tp: int) -> dict[str, Any] | None:
    """A config in Megatron's words; None where a size is missing."""
    hidden, heads = r.whole("hidden_size", None), r.whole("num_attention_heads", None)
    if not (hidden and heads and layers):
        r.ask("--num-layers, --hidden-size and --num-attention-heads are not all said: name the model")
        return None
    swiglu, squared = r.true("swiglu"), r.true("squared_relu")
    rope = r.true("use_rotary_position_embeddings") or r.get("position_embedding_type") == "rope"
    config: dict[str, Any] = {
        "model_type": "nemotron" if squared else "gpt2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": r.whole("num_query_groups", heads) if r.true("group_query_attention") else heads,
        "head_dim": r.whole("kv_channels", hidden // heads),
        "intermediate_size": r.whole("ffn_hidden_size", int(4 * hidden * 2 / 3) // 64 * 64 if swiglu else 4 * hidden),
        "vocab_size": _vocabulary(r, tp),
        "max_position_embeddings": r.whole("max_position_embeddings", 1024),
        "tie_word_embeddings": not r.true("untie_embeddings_and_output_weights"),
        "position_embedding_type": "rope" if rope else "learned_absolute",
        "normalization": str(r.get("normalization") or "LayerNorm"),
        "swiglu": swiglu,
        "add_bias_linear": not r.true("disable_bias_linear"),
        "add_qkv_bias": r.true("add_qkv_bias"),
    }
    for key in ("hidden_dropout", "attention_dropout"):
        value = r.get(key)
        config[key] = value if isinstance(value, (int, float)) else 0.1
    return config


def _vocabulary(r: Reading, tp: int) -> int:
    size = r.whole("vocab_size", None)
    if size is None:
        size = GPT2_VOCABULARY
        if r.get("tokenizer_type") not in (None, "GPT2BPETokenizer"):
            r.ask(f"the tokenizer decides the vocabulary: counted as GPT-2's {size}, unless --vocab-size says another")
    multiple = (r.whole("make_vocab_size_divisible_by", 128) or 128) * tp
    return -(-size // multiple) * multiple


def _optimizer(r: Reading) -> None:
    named = str(r.get("optimizer") or "adam")
    r.say("optimizer", {"adam": "adamw_fused", "sgd": "sgd_momentum"}.get(named, "adamw_fused"), "optimizer")
    if named not in ("adam", "sgd"):
        r.near(f"the optimizer {named[:40]} is counted as Adam", "optimizer")
    clip = r.get("clip_grad")
    r.say("max_grad_norm", clip if isinstance(clip, (int, float)) else 1.0, "clip_grad")


def _recompute(r: Reading) -> None:
    granularity = str(r.get("recompute_granularity") or "")
    r.say("gradient_checkpointing", granularity == "full", "recompute_granularity")
    if granularity == "full":
        if r.get("recompute_method") == "block":
            r.near("only some layers are recomputed: counted as all", "recompute_method")
        else:
            r.say("checkpoint_segment", r.whole("recompute_num_layers", 1), "recompute_num_layers")
    elif granularity:
        r.near("parts of a layer are recomputed: counted as kept", "recompute_granularity")


def _mesh(r: Reading, tp: int, layers: int | None) -> None:
    pp, cp = (r.whole(f"{name}_parallel_size", 1) or 1 for name in ("pipeline_model", "context"))
    said = (r.whole("nproc_per_node", None) or 0) * (r.whole("nnodes", 1) or 1)
    gpus = r.gpus or said or tp * pp * cp
    if not (r.gpus or said):
        r.ask(f"how many GPUs? the command does not say: counted as {gpus}, the fewest; say --gpus N")
    copies = max(1, gpus // (tp * pp * cp))
    r.say("gpus", gpus, "nproc_per_node", "nnodes")
    r.say("strategy", "megatron", "use_distributed_optimizer")
    groups = r.whole("num_distributed_optimizer_instances", 1) or 1
    divided = r.true("use_distributed_optimizer")
    r.say("dp_replicate", groups if divided else copies * cp, "use_distributed_optimizer",
          "num_distributed_optimizer_instances")  # fmt: skip
    for word, key, size in (("tp", "tensor_model_parallel_size", tp), ("pp", "pipeline_model_parallel_size", pp),
                            ("cp", "context_parallel_size", cp)):  # fmt: skip
        if size > 1:
            r.say(word, size, key)
    if tp > 1 and r.true("sequence_parallel"):
        r.say("sequence_parallel", True, "sequence_parallel")
    micro = r.whole("micro_batch_size", 1) or 1
    samples = r.whole("global_batch_size", micro * copies) or micro * copies
    r.say("gradient_accumulation_steps", max(1, samples // (micro * copies)), "global_batch_size")
    each, several = "num_layers_per_virtual_pipeline_stage", "num_virtual_stages_per_pipeline_rank"
    if pp > 1 and (r.true(each) or r.true(several)):
        stages = r.whole(several, None) or (layers or pp) // pp // (r.whole(each, 1) or 1)
        r.say("schedule", "interleaved", each, several)
        r.say("virtual_stages", max(1, stages), each, several)

"""Axolotl's YAML. **Source:** axolotl 0.18.0 (067b021), utils/schemas, loaders, core/trainers."""

from __future__ import annotations

from typing import Any

from loralens.trainers.common import adapter as lora
from loralens.trainers.common import attention, clip, dtype, packed_rows, parts, targets
from loralens.trainers.launch import parallelism
from loralens.trainers.reading import Reading, is_true

KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")
LIGER = ("liger_rms_norm", "liger_rope", "liger_glu_activation", "liger_layer_norm")
OLD_ATTENTION = {
    "flash_attention": "flash",
    "sdp_attention": "sdpa",
    "eager_attention": "eager",
    "xformers_attention": "flash",
}


def read_axolotl(r: Reading) -> None:
    """Every key that means something becomes words; see `tables/axolotl.json` for the rest."""
    r.model, r.model_setting = r.get("base_model"), r.setting("base_model")
    _method(r)
    _batch(r)
    _checkpointing(r)
    _dtypes(r)
    r.optimizer("optimizer")
    clip(r, "max_grad_norm")
    _attention(r)
    _kernels(r)
    if labels := r.whole("num_labels", None):  # utils/schemas/model.py: AutoModelForSequenceClassification
        r.say("head", "sequence_classification", "num_labels")
        r.say("num_labels", labels, "num_labels")
    if r.true("torch_compile"):
        r.say("compile", True, "torch_compile")
    ranks = r.whole("dp_shard_size", None), r.whole("dp_replicate_size", None)
    parallelism(r, (ranks[0] or 1) * (ranks[1] or 1) if any(ranks) else None)


def _method(r: Reading) -> None:
    kind = r.get("adapter")
    if kind in (None, "none"):
        r.train("full", "adapter")
        return
    if kind not in ("lora", "qlora"):
        r.block(f"the adapter {str(kind)[:40]} is not modelled", "adapter")
    four = r.true("load_in_4bit") or kind == "qlora"
    r.train("qlora" if four else "lora", "adapter", "load_in_4bit")
    if four:
        r.say("quantization", str(r.get("bnb_config_kwargs.bnb_4bit_quant_type") or "nf4"), "load_in_4bit")
        double = r.get("bnb_config_kwargs.bnb_4bit_use_double_quant")
        if isinstance(double, bool):
            r.say("double_quant", double, "bnb_config_kwargs.bnb_4bit_use_double_quant")
        compute = dtype(r.get("bnb_config_kwargs.bnb_4bit_compute_dtype"))
        if compute:
            r.say("compute_dtype", compute, "bnb_config_kwargs.bnb_4bit_compute_dtype")
    elif r.true("load_in_8bit"):
        r.say("quantization", "int8", "load_in_8bit")
    elif r.true("gptq"):
        r.say("quantization", "gptq4", "gptq")
    if four and isinstance(r.get("quantize_moe_experts"), bool):
        r.say("pack_experts", r.get("quantize_moe_experts"), "quantize_moe_experts")
    elif r.true("quantize_moe_experts"):
        r.near("experts quantized one by one", "quantize_moe_experts")
    lora(r, rank="lora_r", alpha="lora_alpha", dropout="lora_dropout", saved="lora_modules_to_save",
         dora="peft_use_dora", rslora="peft_use_rslora")  # fmt: skip
    if r.get("lora_r") is None:
        r.ask("lora_r is missing: Axolotl has no default and stops; counted with the usual rank")
    targets(r, "lora_target_modules")
    parts(r, "lora_target_parameters")
    if r.true("lora_target_linear"):
        if r.true(
            "quantize_moe_experts"
        ):  # adapter.py `find_all_linear_names`: by class, where stacked weights are no layers
            r.say("target_modules", ".*attn\\..*", "lora_target_linear")
            r.near(
                "linear layers of attention; others beside the experts, such as shared ones, are left out",
                "lora_target_linear",
            )
        else:
            r.say("target_modules", "all-linear", "lora_target_linear")
    if r.get("peft_autocast_adapter_dtype") is False:
        r.say("adapter_dtype", "bfloat16", "peft_autocast_adapter_dtype")


def _batch(r: Reading) -> None:
    r.say("micro_batch_size", r.whole("micro_batch_size", 1), "micro_batch_size")
    r.say("sequence_length", r.whole("sequence_len", 512), "sequence_len")
    steps = r.whole("gradient_accumulation_steps", None)
    if steps is None and r.whole("batch_size", None):
        steps = max(1, (r.whole("batch_size", 1) or 1) // int(r.words["micro_batch_size"]))
    r.say("gradient_accumulation_steps", steps or 1, "gradient_accumulation_steps")
    packed = r.true("sample_packing") or r.true("batch_flattening")
    packed_rows(r, "micro_batch_size", "sequence_len", packed=packed, keys=("sample_packing", "batch_flattening"))


def _checkpointing(r: Reading) -> None:
    value = r.get("gradient_checkpointing")
    old = {"offload": "legacy", "offload_disk": "disk"}.get(str(value))
    if value is not None:
        r.say("gradient_checkpointing", is_true(value) or old is not None, "gradient_checkpointing")
    if (
        r.true("gradient_checkpointing_kwargs.use_reentrant")
        or r.get("gradient_checkpointing_kwargs.use_reentrant") is False
    ):
        r.say("checkpoint_reentrant", is_true(r.get("gradient_checkpointing_kwargs.use_reentrant")),
              "gradient_checkpointing_kwargs.use_reentrant")  # fmt: skip
    elif r.true("rl"):
        r.say("checkpoint_reentrant", False, "rl")
    form = old or r.get("activation_offloading")
    if form in ("legacy", "hidden_states"):
        r.say("checkpoint_offload", "cpu", "activation_offloading", "gradient_checkpointing")
    elif form in (True, "disk"):
        r.say("offload", "activations", "activation_offloading", "gradient_checkpointing")


def _dtypes(r: Reading) -> None:
    if is_true(r.get("bf16")):
        return  # the preset's
    if r.true("fp16"):
        r.say("weights_dtype", "float16", "fp16")
        r.say("autocast", "float16", "fp16")
    elif r.true("bfloat16", "float16"):
        name = "bfloat16" if r.true("bfloat16") else "float16"
        r.say("weights_dtype", name, name)
        r.say("autocast", None, name)
    elif r.get("bf16") is False or r.true("float32"):
        eight = r.true("load_in_8bit")  # resolve_dtype: float16 with load_in_8bit
        r.say("weights_dtype", "float16" if eight else "float32", "bf16", "float32")
        r.say("autocast", None, "bf16", "float32")


def _attention(r: Reading) -> None:
    attention(r, "attn_implementation")
    for key, word in OLD_ATTENTION.items():
        if r.true(key):
            r.say("attention", word, key)
    for key in ("flex_attention", "s2_attention", "sage_attention"):
        if r.true(key):
            r.near(f"{key} is not modelled: counted as sdpa", key)


def _kernels(r: Reading) -> None:
    plugins = " ".join(r.names(r.get("plugins") or []))
    if r.get("cut_cross_entropy") is not False and ("CutCrossEntropy" in plugins or r.true("cut_cross_entropy")):
        r.say("loss", "cut", "plugins", "cut_cross_entropy")
    elif r.true("liger_fused_linear_cross_entropy"):
        r.say("loss", "fused", "liger_fused_linear_cross_entropy")
    elif r.true("liger_cross_entropy"):
        r.say("loss", "kernel", "liger_cross_entropy")
    elif r.true("chunked_cross_entropy"):
        r.say("loss", "chunked", "chunked_cross_entropy")
    liger = any(r.true(key) for key in LIGER)
    given = [key for key in KERNELS if r.get(key) is not None]
    if r.method == "full":
        if liger:
            r.say("fused_kernels", True, *LIGER)
        return
    # check_auto_enable_lora_kernels: on by itself where none of the keys is given and nothing speaks against it
    own = bool(given) and any(r.true(key) for key in given)
    stopped = r.true("trust_remote_code", "rl", "load_in_8bit")
    fused: Any = "+lora" if own or (not given and not stopped) else liger
    keys = [*given, *(key for key in LIGER if r.true(key)), *(() if fused else ("trust_remote_code", "load_in_8bit"))]
    r.say("fused_kernels", fused, *keys)

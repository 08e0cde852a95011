"""LLaMA-Factory's YAML, both schemas. **Source:** LLaMA-Factory ff6d4d12, hparams, model, v1."""

from __future__ import annotations

from loralens.trainers.common import adapter as lora
from loralens.trainers.common import attention, batch, clip, packed_rows, targets, towers
from loralens.trainers.launch import parallelism
from loralens.trainers.reading import Reading, is_true


def read_llama_factory(r: Reading) -> None:
    """The schema of `llamafactory-cli train`."""
    r.model, r.model_setting = r.get("model_name_or_path"), r.setting("model_name_or_path")
    stage, kind = r.get("stage") or "sft", r.get("finetuning_type") or "lora"
    if stage not in ("sft", "pt"):
        r.block("another objective than supervised fine-tuning", "stage")
    if kind not in ("lora", "full", "freeze"):
        r.block(f"finetuning_type {str(kind)[:40]} is not modelled", "finetuning_type")
    towers(r, "freeze_vision_tower", "freeze_multi_modal_projector")
    four = r.get("quantization_bit") == 4
    method = "full" if kind in ("full", "freeze") else "qlora" if four else "lora"
    r.train(method, "finetuning_type", "quantization_bit")
    if r.method != "full":
        _quantization(r)
        lora(r, rank="lora_rank", alpha="lora_alpha", dropout="lora_dropout", saved="additional_target", dora="use_dora",
             rslora="use_rslora")  # fmt: skip
        targets(r, "lora_target")
    elif kind == "freeze":
        layers = r.whole("freeze_trainable_layers", 2) or 2
        if layers < 0:
            r.block("the first layers train, not the last", "freeze_trainable_layers")
        else:
            r.say("trainable_layers", layers, "freeze_trainable_layers", "finetuning_type")
    batch(r, "per_device_train_batch_size", 8, 1)
    r.say("sequence_length", r.whole("cutoff_len", 2048), "cutoff_len")
    packed = r.true("packing", "neat_packing") or (stage == "pt" and r.get("packing") is not False)
    if packed:  # rows are filled to cutoff_len; the batch keeps its rows
        r.say(
            "padded",
            bool(r.true("neat_packing")) and r.get("flash_attn") not in ("fa2", "fa3"),
            "packing",
            "neat_packing",
            "stage",
        )
    if r.true("disable_gradient_checkpointing"):
        r.say("gradient_checkpointing", False, "disable_gradient_checkpointing")
    if r.get("use_reentrant_gc") is False:
        r.say("checkpoint_reentrant", False, "use_reentrant_gc")
    if r.true("use_unsloth_gc"):
        r.say("checkpoint_offload", "cpu", "use_unsloth_gc")
    _precision(r)
    attention(r, "flash_attn")
    if r.true("enable_liger_kernel"):
        r.say("fused_kernels", True, "enable_liger_kernel")
        r.say("loss", "fused", "enable_liger_kernel")
    r.optimizer("optim")
    if r.true("use_muon"):
        r.say("optimizer", "muon", "use_muon")
    clip(r, "max_grad_norm")
    if r.true("torch_compile"):
        r.say("compile", True, "torch_compile")
    parallelism(r)


def _quantization(r: Reading) -> None:
    bits, method = r.get("quantization_bit"), str(r.get("quantization_method") or "bnb")
    if bits is None:
        return
    if method not in ("bnb", "bitsandbytes") or bits not in (4, 8):
        r.block(f"{bits} bits by {method[:20]} are not modelled", "quantization_bit")
    elif bits == 8:
        r.say("quantization", "int8", "quantization_bit")
    else:
        r.say("quantization", str(r.get("quantization_type") or "nf4"), "quantization_bit", "quantization_type")
        if r.get("double_quantization") is False:
            r.say("double_quant", False, "double_quantization")


def _precision(r: Reading) -> None:
    pure, half = (
        r.true("pure_bf16"),
        "bfloat16" if is_true(r.get("bf16")) else "float16" if is_true(r.get("fp16")) else None,
    )
    if pure:
        r.say("weights_dtype", "bfloat16", "pure_bf16")
        r.say("autocast", None, "pure_bf16")
        if r.method != "full":
            r.say("adapter_dtype", "bfloat16", "pure_bf16")
    elif half == "float16":
        r.say("autocast", "float16", "fp16")
        if r.method != "full":
            r.say("weights_dtype", "float16", "fp16")
    elif half is None:
        r.say("autocast", None, "bf16", "fp16")


def read_llama_factory_v1(r: Reading) -> None:
    """The newer schema, under src/llamafactory/v1."""
    r.model, r.model_setting = r.get("model"), r.setting("model")
    kind = r.get("peft_config.name") or "full"
    if kind not in ("lora", "full", "freeze"):
        r.block(f"peft_config.name {str(kind)[:40]} is not modelled", "peft_config.name")
    quantized = r.get("quant_config.quantization_bit") if r.get("quant_config.name") else None
    method = "full" if kind != "lora" else "qlora" if quantized == 4 else "lora"
    r.train(method, "peft_config.name", "quant_config.quantization_bit")
    if r.method != "full":
        if r.get("quant_config.name") not in (None, "bnb"):
            r.block("this packing is not modelled", "quant_config.name")
        if quantized in (4, 8):
            r.say("quantization", "nf4" if quantized == 4 else "int8", "quant_config.quantization_bit")
        lora(r, rank="peft_config.r", alpha="peft_config.lora_alpha", dropout="peft_config.lora_dropout",
             saved="peft_config.modules_to_save")  # fmt: skip
        targets(r, "peft_config.target_modules")
    elif kind == "freeze":
        r.block("which layers train is not read here", "peft_config.name")
    r.say("micro_batch_size", r.whole("micro_batch_size", 1), "micro_batch_size")
    r.say("sequence_length", r.whole("cutoff_len", 2048), "cutoff_len")
    r.say("gradient_accumulation_steps", 1, "global_batch_size")
    strategy = str(r.get("batching_strategy") or "normal")
    if strategy == "padding_free":
        packed_rows(r, "micro_batch_size", "cutoff_len", packed=True, keys=("batching_strategy",))
    elif strategy != "normal":
        r.near("batches of changing size", "batching_strategy")
    if r.get("enable_activation_checkpointing") is False:
        r.say("gradient_checkpointing", False, "enable_activation_checkpointing")
    if r.get("bf16") is False:
        r.say("autocast", None, "bf16")
    attention(r, "flash_attn")
    if r.get("optim_config.name") == "muon":
        r.say("optimizer", "muon", "optim_config.name")
    clip(r, "max_grad_norm")
    kind = str(r.get("dist_config.name") or "")
    if kind:
        gpus = r.gpus or r.whole("dp_size", None)
        if not gpus:
            r.ask("how many GPUs? the file does not say: judged for one, which holds everything; say --gpus N")
        r.say("strategy", "fsdp" if kind.startswith("fsdp") else "zero3", "dist_config.name")
        r.say("gpus", gpus or 1)
    else:
        parallelism(r)

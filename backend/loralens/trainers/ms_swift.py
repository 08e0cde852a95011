"""ms-swift's arguments, from a shell line or YAML. **Source:** ms-swift 3602360, arguments, trainers, tuners."""

from __future__ import annotations

import math

from loralens.trainers.common import adapter as lora
from loralens.trainers.common import attention, batch, checkpointing, clip, dtype, packed_rows, parts, targets, towers
from loralens.trainers.launch import parallelism
from loralens.trainers.reading import Reading, is_true


def read_ms_swift(r: Reading) -> None:
    """`swift sft` and `swift pt`."""
    if r.source.program in ("megatron", "swift rlhf"):
        r.blocks.append((next(iter(r.source.settings.values())), f"{r.source.program} is another backend or objective"))
    r.model, r.model_setting = r.get("model"), r.setting("model")
    kind = str(r.get("tuner_type", "train_type", "sft_type") or "lora")
    if kind not in ("lora", "full"):
        r.block(
            f"the tuner {kind[:40]} is not modelled",
            next(k for k in ("tuner_type", "train_type", "sft_type") if r.get(k)),
        )
    towers(r, "freeze_vit", "freeze_aligner")
    four = r.get("quant_bits") == 4 and str(r.get("quant_method") or "bnb") == "bnb"
    r.train(
        "full" if kind == "full" else "qlora" if four else "lora", "tuner_type", "train_type", "sft_type", "quant_bits"
    )
    if r.method != "full":
        _adapter(r, four)
    gpus = _gpus(r)
    size = r.whole("per_device_train_batch_size", 1) or 1
    batch(r, "per_device_train_batch_size", 1, max(1, math.ceil(16 / size / (r.gpus or gpus or 1))))
    length = r.whole("max_length", None)
    if length is None:
        r.ask("max_length is missing: ms-swift takes the model's maximum; counted as 2048, say what your samples have")
    r.say("sequence_length", length or 2048, "max_length")
    if r.true("packing") or r.true("padding_free"):
        packed_rows(r, "per_device_train_batch_size", "max_length", packed=True, keys=("packing", "padding_free"))
    held = dtype(r.get("torch_dtype"))
    if held == "bfloat16":
        r.say("weights_dtype", held, "torch_dtype")
    elif held is not None:  # float16 and float32 run under float16 autocast
        r.say("weights_dtype", held, "torch_dtype")
        r.say("autocast", "float16", "torch_dtype")
    if is_true(r.get("fp16")):
        r.say("autocast", "float16", "fp16")
    checkpointing(r)
    attention(r, "attn_impl")
    _head(r)
    if r.get("use_logits_to_keep") is False:
        r.say("loss", "full", "use_logits_to_keep")
    if r.true("use_liger_kernel"):
        r.say("fused_kernels", True, "use_liger_kernel")
        r.say("loss", "fused", "use_liger_kernel")
    r.optimizer("optim")
    clip(r, "max_grad_norm")
    if r.true("torch_compile"):
        r.say("compile", True, "torch_compile")
    parallelism(r, gpus)


def _head(r: Reading) -> None:
    """`task_type` and `num_labels`. **Source:** ms-swift 4.6.0 model/register.py: `seq_cls` is a sequence classifier."""
    kind = r.get("task_type")
    if kind not in (None, "causal_lm", "seq_cls"):
        r.block(f"the task {str(kind)[:40]} has an objective of its own", "task_type")
    labels = r.whole("num_labels", None)
    if kind == "seq_cls" or (labels and kind is None):
        r.say("head", "sequence_classification", "task_type", "num_labels")
    if labels:
        r.say("num_labels", labels, "num_labels")


def _adapter(r: Reading, four: bool) -> None:
    if four:
        r.say("quantization", str(r.get("bnb_4bit_quant_type") or "nf4"), "quant_bits", "bnb_4bit_quant_type")
        if r.get("bnb_4bit_use_double_quant") is False:
            r.say("double_quant", False, "bnb_4bit_use_double_quant")
        compute = dtype(r.get("bnb_4bit_compute_dtype"))
        if compute:
            r.say("compute_dtype", compute, "bnb_4bit_compute_dtype")
    elif r.get("quant_bits") is not None:
        if r.get("quant_bits") == 8 and str(r.get("quant_method") or "bnb") == "bnb":
            r.say("quantization", "int8", "quant_bits")
        else:
            r.block("this packing is not modelled", "quant_bits")
    lora(r, rank="lora_rank", alpha="lora_alpha", dropout="lora_dropout", saved="modules_to_save", dora="use_dora",
         rslora="use_rslora")  # fmt: skip
    targets(r, "target_regex", "target_modules")
    parts(r, "target_parameters")
    own = dtype(r.get("lora_dtype"))
    if own:
        r.say("adapter_dtype", own, "lora_dtype")


def _gpus(r: Reading) -> int | None:
    """As many processes as torchrun is told to start; one card each."""
    count = r.whole("env.NPROC_PER_NODE", None)
    if count:
        return count * (r.whole("env.NNODES", 1) or 1)
    visible = r.get("env.CUDA_VISIBLE_DEVICES")
    if isinstance(visible, str) and "," in visible and not r.true("deepspeed"):
        r.near("one process over several cards: the layers are spread over them", "env.CUDA_VISIBLE_DEVICES")
    return 1 if visible is not None else None

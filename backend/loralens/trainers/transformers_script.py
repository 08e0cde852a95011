"""A Python script with transformers' own `Trainer`. **Source:** transformers 5.23.0 training_args.py, peft 0.21.2."""

from __future__ import annotations

from typing import Final

from loralens.trainers.common import attention, batch, checkpointing, clip
from loralens.trainers.reading import Reading, is_true
from loralens.trainers.trl import python_cards, python_model

LENGTH: Final = 2048


def read_transformers(r: Reading) -> None:
    """TrainingArguments with, or without, LoraConfig and get_peft_model."""
    python_model(r)
    if "quantization" in r.words and "prepare_kbit" not in r.words:
        r.say("prepare_kbit", False)  # the script's own call, where there is one
    if r.get("peft.autocast_adapter_dtype") is False and r.method != "full":
        r.say("adapter_dtype", r.words.get("weights_dtype", "bfloat16"), "peft.autocast_adapter_dtype")
    attention(r, "load.attn_implementation")
    batch(r, "args.per_device_train_batch_size", 8, 1, "args.")
    length = r.whole("own.length", None)
    if length is None:
        r.ask(f"the script does not say how long samples are: counted as {LENGTH}")
    r.say("sequence_length", length or LENGTH, "own.length")
    autocast = next(
        (name for key, name in (("bf16", "bfloat16"), ("fp16", "float16")) if is_true(r.get(f"args.{key}"))), None
    )
    r.say("autocast", autocast, "args.bf16", "args.fp16")
    checkpointing(r, "args.")
    r.optimizer("args.optim")
    clip(r, "args.max_grad_norm")
    if r.true("args.torch_compile"):
        r.say("compile", True, "args.torch_compile")
    if r.true("args.use_liger_kernel"):
        r.say("fused_kernels", True, "args.use_liger_kernel")
        r.say("loss", "fused", "args.use_liger_kernel")
    python_cards(r)

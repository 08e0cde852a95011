"""torchtune's YAML. **Source:** torchtune bd2a0fc, recipes/configs and recipes."""

from __future__ import annotations

import re
from pathlib import PurePath

from loralens.trainers.common import adapter as lora
from loralens.trainers.common import dtype
from loralens.trainers.reading import Reading

OPTIMIZERS = {"bitsandbytes.optim.PagedAdamW8bit": "paged_adamw_8bit", "bitsandbytes.optim.PagedAdamW": "paged_adamw_32bit",
              "bitsandbytes.optim.AdamW8bit": "adamw_8bit", "torch.optim.SGD": "sgd"}  # fmt: skip
PROJECTIONS = {"output_proj": "o_proj"}
MLP = ("gate_proj", "down_proj", "up_proj")


def read_torchtune(r: Reading) -> None:
    """A recipe's config; `${...}` stays as it is written."""
    component = str(r.get("model._component_") or "")
    name = component.rsplit(".", 1)[-1]
    r.model, r.model_setting = _model(r, name), r.setting("model._component_")
    method = "qlora" if name.startswith("qlora_") else "lora" if name.startswith("lora_") else "full"
    r.train(method, "model._component_")
    if r.method != "full":
        _adapter(r)
    r.say("micro_batch_size", r.whole("batch_size", 1), "batch_size")
    r.say("gradient_accumulation_steps", r.whole("gradient_accumulation_steps", 1), "gradient_accumulation_steps")
    length = r.whole("tokenizer.max_seq_len", None)
    if length is None:
        r.ask("tokenizer.max_seq_len is null: the longest sample of the data decides; counted as 2048")
    r.say("sequence_length", length or 2048, "tokenizer.max_seq_len")
    _optimizer(r)
    _loss(r)
    held = dtype(r.get("dtype"))
    if held:
        r.say("weights_dtype", held, "dtype")
        if r.method != "full":
            r.say("adapter_dtype", held, "dtype")
    r.say("gradient_checkpointing", r.true("enable_activation_checkpointing"), "enable_activation_checkpointing")
    clip = r.get("clip_grad_norm")
    r.say(
        "max_grad_norm",
        float(clip) if isinstance(clip, (int, float)) and not isinstance(clip, bool) else None,
        "clip_grad_norm",
    )
    if r.true("compile"):
        r.say("compile", True, "compile")
    _cards(r)


def _model(r: Reading, name: str) -> str | None:
    """The Hugging Face id is in no key; the folder of the checkpoint has its name, else the builder's name has."""
    folder = r.get("checkpointer.checkpoint_dir")
    if isinstance(folder, str) and "${" not in folder:
        return PurePath(folder).name
    plain = re.sub(r"^q?lora_", "", name)
    return re.sub(r"(?<=\d)_(?=\d)", ".", plain).replace("_", "-") or None


def _adapter(r: Reading) -> None:
    if r.method == "qlora":
        r.say("quantization", "nf4", "model._component_")
    lora(
        r,
        rank="model.lora_rank",
        alpha="model.lora_alpha",
        dropout="model.lora_dropout",
        saved="",
        dora="model.use_dora",
    )
    names = [PROJECTIONS.get(one, one) for one in r.names(r.get("model.lora_attn_modules") or [])]
    names += MLP if r.true("model.apply_lora_to_mlp") else ()
    names += ("lm_head",) if r.true("model.apply_lora_to_output") else ()
    if names:
        r.say(
            "target_modules", names, "model.lora_attn_modules", "model.apply_lora_to_mlp", "model.apply_lora_to_output"
        )


def _optimizer(r: Reading) -> None:
    name = str(r.get("optimizer._component_") or "torch.optim.AdamW")
    if name in ("torch.optim.AdamW", "torch.optim.Adam"):
        r.say(
            "optimizer",
            "adamw_fused" if r.true("optimizer.fused") else "adamw_foreach",
            "optimizer.fused",
            "optimizer._component_",
        )
    elif name in OPTIMIZERS:
        r.say("optimizer", OPTIMIZERS[name], "optimizer._component_")
    else:
        r.block(f"the optimizer {name[:60]} is not modelled", "optimizer._component_")
    if r.true("optimizer_in_bwd"):
        r.say("optimizer_in_backward", True, "optimizer_in_bwd")


def _loss(r: Reading) -> None:
    name = str(r.get("loss._component_") or "").rsplit(".", 1)[-1]
    if name == "CEWithChunkedOutputLoss":
        r.say("loss", "chunked", "loss._component_")
    elif name == "CrossEntropyLoss":
        r.say("loss", "full", "loss._component_")
    elif name == "LinearCrossEntropyLoss":
        r.say("loss", "linear", "loss._component_")
    elif name:
        r.block(f"the loss {name[:60]} is not modelled", "loss._component_")


def _cards(r: Reading) -> None:
    spread = r.whole("tensor_parallel_dim", 1) or 1
    if spread > 1:
        r.near("weights are split along the width too", "tensor_parallel_dim")
    if (r.whole("context_parallel_dim", 1) or 1) > 1:
        r.near("the sequence is split over GPUs", "context_parallel_dim")
    alone = "single_device" in r.source.name
    if r.true("enable_activation_offloading"):
        r.say("offload", "activations", "enable_activation_offloading")
    if alone or not (r.true("fsdp_cpu_offload") or (r.gpus or 1) > 1 or "distributed" in r.source.name):
        if not alone and r.gpus is None:
            r.ask("one GPU or several? judged for one; say --gpus N for the distributed recipe, which shards")
        return
    if r.gpus is None:
        r.ask("how many GPUs? the file does not say: judged for one, which holds everything; say --gpus N")
    r.say("strategy", "fsdp", "fsdp_cpu_offload")
    r.say("gpus", r.gpus or 1)
    if r.true("fsdp_cpu_offload"):
        r.say("offload", "parameters", "fsdp_cpu_offload")

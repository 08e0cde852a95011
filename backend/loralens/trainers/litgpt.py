"""LitGPT's YAML, of `litgpt finetune_lora` and `finetune_full`. **Source:** litgpt 0.5.13 finetune/lora.py, finetune/full.py."""

from __future__ import annotations

from typing import Final

from loralens.core.errors import InvalidInput
from loralens.core.question.recipe import Recipe
from loralens.trainers.common import adapter as lora
from loralens.trainers.reading import Reading

TARGETS: Final[dict[str, tuple[str, ...]]] = {
    "lora_query": ("q_proj",), "lora_key": ("k_proj",), "lora_value": ("v_proj",), "lora_projection": ("o_proj",),
    "lora_mlp": ("gate_proj", "up_proj", "down_proj"), "lora_head": ("lm_head",),
}  # fmt: skip
USUAL: Final = ("lora_query", "lora_value")
PRECISIONS: Final[dict[str, tuple[str, str | None]]] = {
    "bf16-true": ("bfloat16", None), "16-true": ("float16", None), "32-true": ("float32", None),
    "bf16-mixed": ("float32", "bfloat16"), "16-mixed": ("float32", "float16"),
}  # fmt: skip
PACKINGS: Final[dict[str, tuple[str, bool]]] = {
    "bnb.nf4": ("nf4", False), "bnb.nf4-dq": ("nf4", True), "bnb.fp4": ("fp4", False), "bnb.fp4-dq": ("fp4", True),
    "bnb.int8-training": ("int8", False),
}  # fmt: skip
LENGTH: Final = 2048


def read_litgpt(r: Reading) -> None:
    """The file says the adapter's layers one by one, and the length not at all unless it cuts samples."""
    folder = r.get("checkpoint_dir")
    r.model = str(folder).removeprefix("checkpoints/").rstrip("/") if folder else None
    r.model_setting = r.setting("checkpoint_dir")
    packing = r.get("quantize")
    r.method = "full"
    if any(key.startswith("lora_") for key in r.source.settings):
        four = packing is not None and PACKINGS.get(packing, ("",))[0] in ("nf4", "fp4")
        r.train("qlora" if four else "lora", "lora_r", "quantize")
        _adapter(r)
    if packing is not None:
        _packing(r, str(packing))
    if (precision := r.get("precision")) is not None:
        _precision(r, str(precision))
    _batch(r)
    _optimizer(r)
    devices = r.whole("devices", 1) or 1
    if (r.gpus or devices) > 1:
        r.say("strategy", "fsdp" if r.method == "full" else "fsdp2", "devices")
        r.say("gpus", r.gpus or devices, "devices")
        r.say("gradient_checkpointing", True, "devices")


def _adapter(r: Reading) -> None:
    lora(r, rank="lora_r", alpha="lora_alpha", dropout="lora_dropout", saved="")
    chosen = [key for key in TARGETS if (r.get(key) if r.get(key) is not None else key in USUAL)]
    r.say("target_modules", [name for key in chosen for name in TARGETS[key]], *TARGETS)


def _packing(r: Reading, packing: str) -> None:
    if packing not in PACKINGS or r.method == "full":
        r.block(f"quantize={packing[:40]} is not modelled here", "quantize")
        return
    kind, double = PACKINGS[packing]
    r.say("quantization", kind, "quantize")
    if kind != "int8":
        r.say("double_quant", double, "quantize")


def _precision(r: Reading, precision: str) -> None:
    if precision not in PRECISIONS:
        r.block(f"precision={precision[:40]} is not modelled", "precision")
        return
    weights, autocast = PRECISIONS[precision]
    r.say("weights_dtype", weights, "precision")
    r.say("autocast", autocast, "precision")
    if r.method != "full":
        r.say("adapter_dtype", weights, "precision")
    if r.words.get("quantization") in ("nf4", "fp4"):
        r.say("compute_dtype", weights, "precision")


def _batch(r: Reading) -> None:
    micro = r.whole("train.micro_batch_size", 1) or 1
    whole = r.whole("train.global_batch_size", 16) or 16
    ranks = r.gpus or r.whole("devices", 1) or 1
    if whole // ranks < micro:
        raise InvalidInput(
            f"{r.where('train.global_batch_size')}: train.global_batch_size {whole} is less than one micro-batch of {micro} on {ranks} GPUs",
            field="train.global_batch_size",
            hint=f"try train.global_batch_size: {micro * ranks}",
        )
    r.say("micro_batch_size", micro, "train.micro_batch_size")
    r.say("gradient_accumulation_steps", whole // ranks // micro, "train.global_batch_size", "train.micro_batch_size")
    length = r.whole("train.max_seq_length", None)
    if length is None:
        r.ask(f"train.max_seq_length is null: the longest sample of the data decides; counted as {LENGTH}")
    r.say("sequence_length", length or LENGTH, "train.max_seq_length")
    if r.true("train.max_norm"):
        r.near("LitGPT's finetuning refuses max_norm", "train.max_norm")


def _optimizer(r: Reading) -> None:
    """Bitsandbytes' paged AdamW on a packed base, whatever AdamW the file names."""
    name = str(r.get("optimizer.class_path", "optimizer") or "").rsplit(".", 1)[-1]
    if not name or "quantization" in r.words:
        return
    if name == "AdamW":
        word = "adamw_fused" if r.true("optimizer.init_args.fused") else "adamw_foreach"
        if r.get("optimizer.init_args.foreach") is False and word == "adamw_foreach":
            word = "adamw_loop"
    elif name == "SGD":
        word = "sgd_momentum" if r.true("optimizer.init_args.momentum") else "sgd"
    elif name in ("AdamW8bit", "PagedAdamW8bit"):
        word = {"AdamW8bit": "adamw_8bit", "PagedAdamW8bit": "paged_adamw_8bit"}[name]
    else:
        r.block(f"the optimizer {name[:40]} is not modelled", "optimizer.class_path")
        r.block(f"the optimizer {name[:40]} is not modelled", "optimizer")
        return
    r.say("optimizer", word, "optimizer.class_path", "optimizer")


def write_litgpt(model: str, method: str, recipe: Recipe) -> dict[str, object]:
    """See `read_litgpt`."""
    adapter, packing, gpus = recipe.lora, recipe.quantization, recipe.parallelism.gpus
    precision = (recipe.weights_dtype, recipe.autocast)
    keys: dict[str, object] = {"checkpoint_dir": model, "out_dir": "out/finetune"}
    if precision in PRECISIONS.values():
        keys["precision"] = next(name for name, meant in PRECISIONS.items() if meant == precision)
    if packing is not None:
        meant = (packing.type, packing.double_quant and packing.type != "int8")
        keys["quantize"] = next((name for name, one in PACKINGS.items() if one == meant), None)
    keys["devices"] = gpus
    if method != "full":
        chosen = adapter.target_modules if isinstance(adapter.target_modules, tuple) else ()
        if adapter.target_modules == "all-linear":
            chosen = tuple(name for key, names in TARGETS.items() if key != "lora_head" for name in names)
        keys |= {"lora_r": adapter.rank, "lora_alpha": adapter.alpha, "lora_dropout": adapter.dropout}
        keys |= {key: all(name in chosen for name in names) for key, names in TARGETS.items()}
    if packing is None:
        keys |= _written_optimizer(recipe.optimizer)
    steps = recipe.micro_batch_size * recipe.gradient_accumulation_steps * gpus
    return keys | {"train.global_batch_size": steps, "train.micro_batch_size": recipe.micro_batch_size,
                   "train.max_seq_length": recipe.sequence_length, "train.epochs": 1}  # fmt: skip


def _written_optimizer(word: str) -> dict[str, object]:
    named: dict[str, tuple[str, dict[str, object]]] = {
        "adamw_fused": ("torch.optim.AdamW", {"fused": True}),
        "adamw_foreach": ("torch.optim.AdamW", {"lr": 0.0002}),
        "adamw_loop": ("torch.optim.AdamW", {"foreach": False}),
        "adamw_8bit": ("bitsandbytes.optim.AdamW8bit", {"lr": 0.0002}),
        "paged_adamw_8bit": ("bitsandbytes.optim.PagedAdamW8bit", {"lr": 0.0002}),
        "sgd": ("torch.optim.SGD", {"lr": 0.01}),
        "sgd_momentum": ("torch.optim.SGD", {"momentum": 0.9}),
    }
    if word not in named:
        return {}
    path, arguments = named[word]
    return {"optimizer.class_path": path, **{f"optimizer.init_args.{key}": value for key, value in arguments.items()}}

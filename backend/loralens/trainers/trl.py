"""TRL: its YAML and command line, and the keywords of a Python script. **Source:** trl 1.16.0, peft 0.21.2."""

from __future__ import annotations

from dataclasses import replace

from loralens.core.question.versions import read_version
from loralens.trainers.common import adapter as lora
from loralens.trainers.common import attention, batch, checkpointing, clip, dtype, packed_rows, parts, targets
from loralens.trainers.files import FileSetting, flat
from loralens.trainers.launch import parallelism
from loralens.trainers.reading import Reading, is_true
from loralens.trainers.trl_objectives import SFT, file_objective, objective, script_objective

OTHER_CONFIGS = ("DPOConfig", "GRPOConfig", "RLOOConfig", "KTOConfig", "ORPOConfig", "RewardConfig")


def read_trl(r: Reading) -> None:
    """`trl sft`, `dpo`, `kto`, `grpo` and their YAML files: the trainer's config, ModelConfig and TrainingArguments side by side."""
    if r.source.program == "trl other":
        r.blocks.append((next(iter(r.source.settings.values())), "another objective than supervised fine-tuning"))
    r.model, r.model_setting = r.get("model_name_or_path"), r.setting("model_name_or_path")
    four = r.true("load_in_4bit")
    r.train("full" if not r.true("use_peft") else "qlora" if four else "lora", "use_peft", "load_in_4bit")
    if r.method != "full":
        if four:
            r.say("quantization", str(r.get("bnb_4bit_quant_type") or "nf4"), "load_in_4bit", "bnb_4bit_quant_type")
            if isinstance(r.get("use_bnb_nested_quant"), bool):
                r.say("double_quant", r.get("use_bnb_nested_quant"), "use_bnb_nested_quant")
        elif r.true("load_in_8bit"):
            r.say("quantization", "int8", "load_in_8bit")
        lora(r, rank="lora_r", alpha="lora_alpha", dropout="lora_dropout", saved="lora_modules_to_save", dora="use_dora",
             rslora="use_rslora")  # fmt: skip
        targets(r, "lora_target_modules")
        parts(r, "lora_target_parameters")
    held = dtype(r.get("dtype", "torch_dtype"))
    if held or r.get("dtype", "torch_dtype") == "auto":
        r.say("weights_dtype", held or "bfloat16", "dtype", "torch_dtype")
        if four:
            r.say("compute_dtype", held or "bfloat16", "dtype", "torch_dtype")
    kind = file_objective(r)
    arguments(r, "", kind=kind)
    objective(r, kind)
    attention(r, "attn_implementation")
    parallelism(r, r.whole("num_processes", None))


def arguments(r: Reading, group: str, *, size: int = 8, steps: int = 1, kind: str = SFT) -> None:
    """The config's words under `group`; `size` and `steps`: micro batch and accumulation where nothing is said."""
    batch(r, f"{group}per_device_train_batch_size", size, steps, group)
    lengths = (f"{group}max_length", f"{group}max_seq_length")
    length = next((found for key in lengths if (found := r.whole(key, None)) is not None), None)
    r.say("sequence_length", length or 1024, *lengths)
    if r.true(f"{group}packing", f"{group}padding_free"):
        packed_rows(r, f"{group}per_device_train_batch_size", lengths[0], packed=True,
                    keys=(f"{group}packing", f"{group}padding_free"))  # fmt: skip
    if is_true(r.get(f"{group}fp16")):
        r.say("autocast", "float16", f"{group}fp16")
    elif r.get(f"{group}bf16") is False:
        r.say("autocast", None, f"{group}bf16")
    checkpointing(r, group)
    if r.true(f"{group}activation_offloading"):
        r.say("offload", "activations", f"{group}activation_offloading")
    if r.true(f"{group}use_liger_kernel"):
        r.say("fused_kernels", True, f"{group}use_liger_kernel")
        if read_version(r.stack.get("trl", "1.16")) < (1, 15):
            r.say("loss", "fused", f"{group}use_liger_kernel")
    _loss(r, f"{group}loss_type", kind)
    r.optimizer(f"{group}optim")
    clip(r, f"{group}max_grad_norm")
    if r.true(f"{group}torch_compile"):
        r.say("compile", True, f"{group}torch_compile")


def _loss(r: Reading, key: str, objective_: str) -> None:
    """`nll` and `chunked_nll`, which have become one; the preset has what runs where nothing is said."""
    named, known = r.get(key), read_version(r.stack.get("trl", "1.16"))
    if objective_ != SFT:  # whose losses all hold the same tensors
        if known < (1, 15):
            r.say("loss", "full", key)
        return
    if named not in (None, "nll", "chunked_nll", "dft"):
        r.near("another loss", key)
    if named is None or known >= (1, 15) or r.words.get("loss") == "fused":
        return
    if named == "chunked_nll":
        r.say("loss", "chunked_nll", key)
    elif known >= (1, 7):
        r.say("loss", "full", key)


def read_python(r: Reading) -> None:
    """SFTConfig or another trainer's with LoraConfig and from_pretrained, as scripts and notebooks have them."""
    python_model(r)
    attention(r, "load.attn_implementation")
    kind = script_objective(r)
    arguments(r, "args.", kind=kind)
    objective(r, kind, "args.")
    python_cards(r)


def python_model(r: Reading) -> None:
    """Model, method, packing and adapter of a script that calls transformers and PEFT."""
    named = "load.model_name" if r.setting("load.model_name") else "trainer.model"
    model = r.get(named)
    if isinstance(model, str) and not model.startswith("="):
        r.model, r.model_setting = model, r.setting(named)
    four = r.true("load.load_in_4bit", "bnb.load_in_4bit")
    adapted = r.setting("call.LoraConfig") is not None
    r.train(
        "full" if not adapted else "qlora" if four else "lora",
        *("call.LoraConfig", "load.load_in_4bit", "bnb.load_in_4bit"),
    )
    if adapted:
        if four:
            r.say(
                "quantization", str(r.get("bnb.bnb_4bit_quant_type") or "fp4"), "bnb.load_in_4bit", "load.load_in_4bit"
            )
            r.say("double_quant", r.true("bnb.bnb_4bit_use_double_quant"), "bnb.bnb_4bit_use_double_quant")
            compute = dtype(r.get("bnb.bnb_4bit_compute_dtype")) or "float32"
            r.say("compute_dtype", compute, "bnb.bnb_4bit_compute_dtype")
        elif r.true("load.load_in_8bit", "bnb.load_in_8bit"):
            r.say("quantization", "int8", "load.load_in_8bit", "bnb.load_in_8bit")
        if r.setting("call.prepare_model_for_kbit_training") and "quantization" in r.words:
            r.say("prepare_kbit", True, "call.prepare_model_for_kbit_training")
        r.say("rank", 8, "call.LoraConfig")
        r.say("alpha", 8, "call.LoraConfig")
        r.say("dropout", 0.0, "call.LoraConfig")
        lora(r, rank="lora.r", alpha="lora.lora_alpha", dropout="lora.lora_dropout", saved="lora.modules_to_save",
             dora="lora.use_dora", rslora="lora.use_rslora", bias="lora.bias")  # fmt: skip
        targets(r, "lora.target_modules")
        parts(r, "lora.target_parameters", "lora.layers_to_transform", "lora.trainable_token_indices")
    held = dtype(r.get("load.dtype", "load.torch_dtype"))
    if r.setting("call.from_pretrained"):
        r.say("weights_dtype", held or "bfloat16", "load.dtype", "load.torch_dtype", "load.model_name")


def python_cards(r: Reading) -> None:
    """How many GPUs share the work, from the config's own keywords."""
    given = {key.removeprefix("args."): one for key, one in r.source.settings.items() if key.startswith("args.")}
    whole = {key: one.value for key, one in given.items()}
    settings: dict[str, FileSetting] = {}
    for key, one in given.items():
        inside = flat(one.value, key) if isinstance(one.value, dict) else {key: one.value}
        settings |= {name: replace(one, key=name, value=value) for name, value in inside.items()}
    parallelism(replace(r, source=replace(r.source, settings=settings, whole=whole)))


def read_unsloth(r: Reading) -> None:
    """FastLanguageModel and its relatives, get_peft_model, and a config with Unsloth's own defaults.

    Source: unsloth 015bdef models/loader.py, models/llama.py, models/rl.py.
    """
    for name in OTHER_CONFIGS:
        if r.setting(f"call.{name}"):
            r.block("another objective than supervised fine-tuning", f"call.{name}")
    if r.get("call.from_pretrained") == "FastVisionModel":
        r.block("images in the data", "call.from_pretrained")
    r.model, r.model_setting = r.get("load.model_name"), r.setting("load.model_name")
    if not isinstance(r.model, str) or r.model.startswith("="):
        r.model = None
    four = r.get("load.load_in_4bit") is not False and not r.true("load.full_finetuning", "load.load_in_8bit")
    adapted = r.setting("call.get_peft_model") is not None
    r.train("full" if not adapted else "qlora" if four else "lora", "call.get_peft_model", "load.load_in_4bit")
    if adapted:
        if four:
            r.say("quantization", "nf4", "load.load_in_4bit", "load.model_name")
        elif r.true("load.load_in_8bit"):
            r.say("quantization", "int8", "load.load_in_8bit")
        lora(r, rank="lora.r", alpha="lora.lora_alpha", dropout="lora.lora_dropout", saved="lora.modules_to_save",
             dora="lora.use_dora", rslora="lora.use_rslora", bias="lora.bias")  # fmt: skip
        targets(r, "lora.target_modules")
        parts(r, "lora.target_parameters", "lora.layers_to_transform")
        if r.words.get("dropout"):
            r.say("fused_kernels", True, "lora.lora_dropout")
    held = dtype(r.get("load.dtype"))
    if held == "float16":
        r.say("weights_dtype", "float16", "load.dtype")
        r.say("autocast", "float16", "load.dtype")
    switch = next(
        (
            key
            for key in ("lora.use_gradient_checkpointing", "load.use_gradient_checkpointing")
            if r.get(key) is not None
        ),
        "",
    )
    if switch:
        value = r.get(switch)
        r.say("gradient_checkpointing", value == "unsloth" or is_true(value), switch)
        if value != "unsloth":
            r.say("checkpoint_offload", "none", switch)
    arguments(r, "args.", size=4, steps=2)
    own = next((found for key in ("args.max_length", "args.max_seq_length") if (found := r.get(key)) is not None), None)
    if own is None:
        r.say("sequence_length", r.whole("load.max_seq_length", 2048), "load.max_seq_length")
        if r.true("args.packing"):
            packed_rows(
                r, "args.per_device_train_batch_size", "load.max_seq_length", packed=True, keys=("args.packing",)
            )
    python_cards(r)

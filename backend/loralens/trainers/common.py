"""What several trainers take over from transformers: TrainingArguments' words, attention's names, dtypes."""

from __future__ import annotations

from typing import Any, Final

from loralens.trainers.reading import Reading, is_true

ATTENTION: Final = {
    "flash_attention_2": "flash", "flash_attention_3": "flash", "flash_attn": "flash", "flash_attn_2": "flash", "fa2": "flash",
    "fa3": "flash", "flash_attention": "flash", "sdpa": "sdpa", "eager": "eager", "disabled": "eager", "auto": None,
}  # fmt: skip
DTYPES: Final = {"bf16": "bfloat16", "bfloat16": "bfloat16", "fp16": "float16", "float16": "float16", "half": "float16",
                 "fp32": "float32", "float32": "float32", "torch.bfloat16": "bfloat16", "torch.float16": "float16"}  # fmt: skip


def attention(r: Reading, key: str) -> None:
    """The recipe's attention, by any trainer's name for it."""
    value = r.get(key)
    if value is None:
        return
    name = str(value)
    if "flash" in name and name.startswith("kernels-community/"):
        r.say("attention", "flash", key)
    elif name in ATTENTION:
        if ATTENTION[name] is not None:
            r.say("attention", ATTENTION[name], key)
    else:
        r.near(f"the attention {name[:40]} is not modelled: counted as sdpa", key)


def batch(r: Reading, key: str, default: int, accumulation: int | None, group: str = "") -> None:
    """Micro batch and accumulation, with the trainer's own defaults."""
    r.say("micro_batch_size", r.whole(key, default), key)
    steps = f"{group}gradient_accumulation_steps"
    r.say("gradient_accumulation_steps", r.whole(steps, accumulation), steps)


def checkpointing(r: Reading, group: str = "") -> None:
    """transformers' switches: `gradient_checkpointing`, its kwargs, and their newer names."""
    for name in ("gradient_checkpointing", "activation_checkpointing"):
        key = f"{group}{name}"
        value = r.get(key)
        if isinstance(value, bool) or value in ("true", "false", "unsloth"):
            r.say("gradient_checkpointing", is_true(value) or value == "unsloth", key)
        kwargs = f"{key}_kwargs"
        given = r.get(kwargs)
        given = given if isinstance(given, dict) else {}
        inside = {
            one: r.get(
                f"{kwargs}.{one}",
            )
            for one in ("use_reentrant", "every_n_layers", "offload", "selective")
        }
        words = {one: value for one, value in inside.items() if value is not None} | given
        keys = (kwargs, *(f"{kwargs}.{one}" for one in inside))
        if isinstance(words.get("use_reentrant"), bool):
            r.say("checkpoint_reentrant", words["use_reentrant"], *keys)
        if isinstance(words.get("every_n_layers"), int):
            r.say("checkpoint_every", words["every_n_layers"], *keys)
        if words.get("offload") is True:
            r.say("checkpoint_offload", "cpu", *keys)
        if words.get("selective"):
            r.near("some operators are kept, others recomputed", *keys)


def clip(r: Reading, key: str) -> None:
    """`max_grad_norm`; 0 is none."""
    value = r.get(key)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        r.say("max_grad_norm", float(value) or None, key)


def adapter(
    r: Reading, *, rank: str, alpha: str, dropout: str, saved: str, dora: str = "", rslora: str = "", bias: str = ""
) -> None:
    """A LoRA adapter's numbers, each where the file says it."""
    for word, key in (("rank", rank), ("alpha", alpha), ("dropout", dropout)):
        value = r.get(key)
        if value is None:
            continue
        if isinstance(value, str) and value[:1] in "$=":
            r.ask(f"{key} is {value}, which is set outside this file")
        else:
            r.say(word, value, key)
    if r.get(saved) not in (None, []):
        r.say("modules_to_save", r.names(r.get(saved)), saved)
    if bias and r.get(bias) is not None:
        r.say("bias", r.get(bias), bias)
    for word, key in (("use_dora", dora), ("use_rslora", rslora)):
        if key and isinstance(r.get(key), bool):
            r.say(word, r.get(key), key)


def targets(r: Reading, *keys: str, every: tuple[str, ...] = ("all", "all-linear")) -> None:
    """Target modules: names, one text that is a pattern or a name, or the trainer's word for all of them."""
    for key in keys:
        value = r.get(key)
        if value in (None, []):
            continue
        names = r.names(value) if not isinstance(value, str) or not _pattern(value) else None
        if names is None:
            r.say("target_modules", str(value), key)
        elif any(name in every for name in names):
            r.say("target_modules", "all-linear", key)
        else:
            r.say("target_modules", names, key)
        return


def parts(r: Reading, parameters: str, layers: str = "", tokens: str = "") -> None:
    """Adapters on parameters themselves, on some layers only, and rows of the embedding that train."""
    if r.get(parameters):
        r.say("target_parameters", r.names(r.get(parameters)), parameters)
    for word, key in (("layers_to_transform", layers), ("trainable_token_indices", tokens)):
        found = r.get(key) if key else None
        numbers = found if isinstance(found, list) else [found]
        if all(isinstance(one, int) and not isinstance(one, bool) for one in numbers):
            r.say(word, numbers, key)
        elif found is not None:
            r.near("its numbers are not written in the file", key)


def _pattern(text: str) -> bool:
    return any(symbol in text for symbol in "*()[]|\\^$+?")


def packed_rows(r: Reading, batch_key: str, length_key: str, *, packed: bool, keys: tuple[str, ...]) -> None:
    """A packed batch is one row of batch times length tokens, without a mask."""
    if packed:
        r.words["sequence_length"] = r.words["sequence_length"] * r.words["micro_batch_size"]
        r.because["sequence_length"] = tuple(
            one for key in (length_key, batch_key) if (one := r.setting(key)) is not None
        )
        r.say("micro_batch_size", 1, batch_key)
        r.say("padded", False, *keys)


def towers(r: Reading, tower: str, projector: str) -> None:
    """Which parts of a multimodal model stay frozen; each is by default. How many pictures a sample has no file says."""
    given = [key for key in (tower, projector) if r.setting(key) is not None]
    if not given:
        return
    held, joint = (r.get(key) is None or is_true(r.get(key)) for key in (tower, projector))
    if joint and not held:
        r.near("the projector is frozen and the tower is not", projector, tower)
    r.say("freeze_tower", "tower+projector" if held and joint else "tower" if held else "none", *given)
    r.block("no key says how many pictures a sample has: `loralens memory --images` counts them", given[0])


def dtype(value: Any) -> str | None:
    """A dtype by any of its names; None for `auto` and for nothing."""
    return DTYPES.get(str(value)) if value is not None else None

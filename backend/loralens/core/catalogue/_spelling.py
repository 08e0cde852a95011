"""The spelling in which names of models are compared: owner, case and the many ways to write a version taken away.

`meta-llama/Meta-Llama-3.1-8B-Instruct`, `llama3.1:8b` and `Llama 3_1 8 B` all come to words that begin `llama-3.1-8b`.
Words that name a further training and not other shapes (`instruct`, `chat`, …) and words for a packing of the weights
(`bnb-4bit`, `AWQ`, …) are taken out and told apart.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from loralens.core.catalogue._names import key

INFERENCE: Final = "files for inference"
"""A packing that no training step keeps: the weights are unpacked when they are loaded, or cannot be trained on."""

_VERSIONS: Final = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        (r"(?<![\w.])(\d+(?:\.\d+)?)-b(?=-|$)", r"\1b"),  # 7 B
        (r"^(\d+(?:\.\d+)?b)-((?:code)?-?llama.*|falcon.*|qwen.*|mistral.*|gemma.*)$", r"\2-\1"),  # 7B Llama 2
        (r"\b(?:meta-)?llama-?(\d)[-.](\d)(?=-|$)", r"llama-\1.\2"),  # llama3_1
        (r"\b(?:meta-)?llama-?(3)([1-3])(?=-|$)", r"llama-\1.\2"),  # llama31
        (r"\b(?:meta-)?llama-?(\d)(?=-|$)", r"llama-\1"),
        (r"\bqwen-?(\d)(?:[-.](5))?(?=-|$)", lambda found: "qwen" + ".".join(part for part in found.groups() if part)),
        (r"\bqwen(\d(?:\.5)?)-(\d)-(\d)b(?=-|$)", r"qwen\1-\2.\3b"),  # qwen2_5_1_5b
        (r"\bqwen-1-8b(?=-|$)", "qwen-1.8b"),
        (r"\bgemma-?(\d)(?=-|$)", r"gemma-\1"),
        (r"\bphi-?(\d)[-.]5(?=-|$)", r"phi-\1.5"),
        (r"\bphi-?(\d)(?=-|$)", r"phi-\1"),
        (r"\bgpt-?(2|j)(?=-|$)", r"gpt\1"),
        (r"\bgpt-?oss\b", "gpt-oss"),
        (r"\btiny-llama\b", "tinyllama"),
        (r"\bcode-llama\b", "codellama"),
        (r"\bsmol-?lm-?(\d)?(?=-|$)", r"smollm\1"),
        (r"\bstar-?coder-?2\b", "starcoder2"),
        (r"\bolmo-?(\d)(?=-|$)", r"olmo-\1"),
        (r"\bfalcon-?3(?=-|$)", "falcon3"),
        (r"\bdeepseek-?(v\d|r\d)", r"deepseek-\1"),
        (r"\bstablelm-2-1-6b\b", "stablelm-2-1.6b"),
    )
)

_PACKINGS: Final = tuple(
    (re.compile(rf"(?:^|-)(?:{pattern})(?=-|$)"), means)
    for pattern, means in (
        (r"gptq-int8|gptq-8bit|w8a16", "gptq8"),
        (r"gptq(?:-int4|-4bit)?(?:-\d+g)?|awq(?:-int4|-4bit)?|w4a16|autoround", "gptq4"),
        (r"(?:unsloth-)?bnb-4bit|bnb-nf4|nf4|qlora", "nf4"),
        (r"bnb-8bit|llm-int8", "int8"),
        (r"fp8-dynamic|fp8-static-pertensor|fp8|float8", "fp8"),
        (r"gguf|i?q\d(?:-[01ks])?(?:-[sml])?|exl[23]|nvfp4|mxfp4|mlx(?:-\d+bits?)?|w8a8|onnx|hqq|aqlm", INFERENCE),
        (r"bnb|4-?bits?", "nf4"),
        (r"8-?bits?", "int8"),
        (r"int4", "gptq4"),
        (r"int8", "int8"),
    )
)

NEUTRAL: Final = frozenset(
    {"hf", "instruct", "instruction", "it", "chat", "base", "pt", "pretrained", "sft", "dpo", "rlhf", "orpo", "kto", "rl",
     "thinking", "think", "preview", "text", "bf16", "fp16", "f16", "f32", "bfloat16", "float16", "latest", "unsloth",
     "qat", "dynamic", "lora", "deduped", "abliterated", "uncensored", "finetuned", "finetune"}
)  # fmt: skip
"""Words of a name that say how the weights were trained or stored: shapes stay as they are."""

_LENGTH: Final = re.compile(r"\d+k|1m")
_DATES: Final = {
    "qwen3": {"2507"},
    "mistral": {"2407", "2411", "2501", "2503", "2506"},
    "ministral": {"2410"},
    "codestral": {"2405"},
    "deepseek": {"0324", "0528", "1226"},
    "olmo": {"1124", "0424", "0724", "0425", "0325"},
    "olmoe": {"0924", "0125"},
}
"""Releases of which it is known that the shapes stayed; another date could be another architecture (GLM-4-9B-0414)."""


class Spelling(NamedTuple):
    """A name in parts.

    Attributes:
        core: the words that can mean shapes, joined.
        owner: who has it on the Hub; empty where none was named.
        training: words for a further training or a release that were taken out.
        packing: what the name says of how the weights are packed: a recipe's `quantization`, `INFERENCE`, or None.
        packed_as: the words that say so.
    """

    core: str
    owner: str
    training: tuple[str, ...]
    packing: str | None
    packed_as: str


def spelt(name: str) -> Spelling:
    """The parts of a name.

    >>> spelt("unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit")[:4]
    ('llama-3.1-8b', 'unsloth', ('instruct',), 'nf4')
    """
    owner, _, own = key(name).strip("-/").rpartition("/")
    text = re.sub(r"-{2,}", "-", re.sub(r"[():,]", "-", own)).strip("-")
    for pattern, replacement in _VERSIONS:
        text = pattern.sub(replacement, text)
    text, packing, packed_as = _unpacked(text, mlx="mlx" in owner)
    words = text.split("-")
    family = re.match(r"[a-z]+(?:[3](?=$))?", words[0])
    dates = _DATES.get(words[0], _DATES.get(family[0], set()) if family else set())
    training = tuple(word for word in words if word in NEUTRAL or _LENGTH.fullmatch(word) or word in dates)
    core = "-".join(word for word in words if word and word not in training)
    return Spelling(core, owner, training, packing, packed_as)


def _unpacked(text: str, *, mlx: bool) -> tuple[str, str | None, str]:
    """The name without words for a packing; what the first of them means; those words."""
    meaning: str | None = None
    said = []
    for pattern, means in _PACKINGS:
        while found := pattern.search(text):
            text = (text[: found.start()] + text[found.end() :]).strip("-")
            said.append(found[0].strip("-"))
            meaning = meaning or means
    return text, INFERENCE if mlx and meaning else meaning, "-".join(said)

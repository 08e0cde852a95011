"""Owner, training, packing and the many spellings of a version are told apart from what means shapes."""

import pytest

from loralens.core.catalogue._spelling import INFERENCE, spelt


@pytest.mark.parametrize(
    ("name", "core", "packing"),
    [
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b", None),
        ("llama3_1_8b", "llama-3.1-8b", None),
        ("Llama 3.1 8 B", "llama-3.1-8b", None),
        ("70 B Llama 2", "llama-2-70b", None),
        ("llama-2-7b", "llama-2-7b", None),
        ("lora_qwen2_5_1_5b_instruct", "qwen2.5-1.5b", None),
        ("Qwen-2.5-7B", "qwen2.5-7b", None),
        ("Qwen/Qwen-7B-Chat", "qwen-7b", None),
        ("gemma2:9b", "gemma-2-9b", None),
        ("gemma-2b", "gemma-2b", None),
        ("phi3", "phi-3", None),
        ("Qwen3-14B-unsloth-bnb-4bit", "qwen3-14b", "nf4"),
        ("X-GPTQ-Int4", "x", "gptq4"),
        ("X-GPTQ-Int8", "x", "gptq8"),
        ("X-AWQ", "x", "gptq4"),
        ("X-FP8-dynamic", "x", "fp8"),
        ("X-8bit", "x", "int8"),
        ("gemma-3-27b-it-qat-q4_0-gguf", "gemma-3-27b", INFERENCE),
        ("mlx-community/X-4bit", "x", INFERENCE),
        ("GLM-4-9B-0414", "glm-4-9b-0414", None),
        ("Qwen3-4B-Instruct-2507", "qwen3-4b", None),
    ],
)
def test_a_name_in_parts(name: str, core: str, packing: str | None) -> None:
    said = spelt(name)
    assert (said.core, said.packing) == (core, packing)


def test_what_was_taken_out_is_kept_for_the_note() -> None:
    assert spelt("unsloth/Qwen3-4B-Instruct-2507-bnb-4bit")[1:] == ("unsloth", ("instruct", "2507"), "nf4", "bnb-4bit")

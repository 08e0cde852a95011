"""Models whose code lives on the Hub, told anew for a trace: transformers' own parts, and small modules written after that code.

The code on the Hub itself is never run. Where a module here differs from it, its docstring says so. `core` never imports these:
they are what its walks are held against.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

# model_type -> module and classes of its config and its model
TYPES: Final[dict[str, tuple[str, str, str]]] = {
    "bailing_moe": ("bailing", "BailingMoeConfig", "BailingMoeForCausalLM"),
    "chatglm": ("chatglm", "ChatGLMConfig", "ChatGLMForConditionalGeneration"),
    "deepseek": ("deepseek", "DeepseekConfig", "DeepseekForCausalLM"),
    "dots_ocr": ("dots_ocr", "DotsOCRConfig", "DotsOCR"),
    "internlm2": ("internlm2", "InternLM2Config", "InternLM2ForCausalLM"),
    "interns1": ("interns1", "InternS1Config", "InternS1"),
    "kimi_vl": ("kimi_vl", "KimiVLConfig", "KimiVL"),
    "minicpm": ("minicpm", "MiniCPMConfig", "MiniCPMForCausalLM"),
}


def config_class(model_type: str) -> Any:
    """The config's class; None for a type that is not told here."""
    if model_type not in TYPES:
        return None
    module, name, _ = TYPES[model_type]
    return getattr(_module(module), name)


def model_class(config: Any) -> Any:
    """The class with a training loss; None for a type that is not told here."""
    if getattr(config, "is_yi_vl_derived_model", False):
        return _module("yi_vl").YiVL
    if config.model_type not in TYPES:
        return None
    module, _, name = TYPES[config.model_type]
    return getattr(_module(module), name)


def take_attention(config: Any, attention: str) -> None:
    """Towers that have kernels of their own take the recipe's word."""
    tower: Any = getattr(config, "vision_config", None)
    if hasattr(tower, "kernel"):
        tower.kernel = attention


def _module(name: str) -> Any:
    return import_module(f"{__name__}.{name}")

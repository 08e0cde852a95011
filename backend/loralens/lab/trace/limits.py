"""What a trace cannot do: words of the recipe that only the computed answer knows."""

from __future__ import annotations

from loralens.core.errors import InvalidInput
from loralens.core.question.accelerator import BEFORE_8, CUDA
from loralens.core.question.recipe import Recipe
from loralens.core.question.versions import framework

_HINT = "loralens memory computes it"


def check(method: str, recipe: Recipe) -> None:
    """Refuse what no real implementation here could run.

    Raises:
        InvalidInput: naming the word and what a trace knows instead.
    """
    if method not in ("full", "lora", "qlora", "dora"):
        raise InvalidInput(
            f"method {method!r:.40} cannot be traced; allowed: full, lora, qlora, dora", field="method", hint=_HINT
        )
    for name, given, allowed in (
        ("loss", recipe.loss, "full"),
        ("accelerator", recipe.accelerator if recipe.accelerator != BEFORE_8 else CUDA, CUDA),
        ("fused_kernels", recipe.fused_kernels, "none"),
        ("mixer_kernels", recipe.mixer_kernels, "torch"),
        ("compile", recipe.compile, False),
        ("checkpoint_offload", recipe.checkpoint_offload, "none"),
        ("checkpoint_every", recipe.checkpoint_every, 1),
        ("checkpoint_segment", recipe.checkpoint_segment, 1),
        ("parallelism.strategy", recipe.parallelism.strategy, "none"),
        ("parallelism.offload", recipe.parallelism.offload, "none"),
        ("parallelism.gpus", recipe.parallelism.gpus, 1),
    ):
        if given != allowed:
            raise InvalidInput(
                f"{name} {given!r} cannot be traced; a trace supports {allowed!r}", field=f"recipe.{name}", hint=_HINT
            )
    if method == "full" and recipe.quantization is not None:
        raise InvalidInput("full fine-tuning of a quantized base is not possible", field="recipe.quantization")
    if name := framework(recipe):
        raise InvalidInput(f"stack.{name} cannot be traced", field="recipe.stack", hint=_HINT)

"""Changes of one thing that save memory: what to change, to what, what it costs otherwise, and why it helps.

A change is data. Whether and how much it saves is never stated here: it is computed for the question at hand, and a
change that saves nothing there is not shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from loralens.planner.question import Question

COSTS: Final = ("none", "time", "quality", "method")
"""What a change costs beside memory, mildest first; `method`: something else is trained altogether."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field and its better value; `to` returns None where the change does not apply."""

    field: str
    to: Callable[[Question], Any]
    cost: str
    en: str
    named: str = ""

    @property
    def key(self) -> str:
        """The name of its sentence (`en`); the page's locales have one of that name in every language."""
        return self.named or self.field


def _set(field: str, value: Any, *when: Any) -> Callable[[Question], Any]:
    """`value`, where the field now has one of the values `when` (or, without any, another value)."""

    def to(question: Question) -> Any:
        now = question.get(field)
        if now is None and field == "double_quant":
            return None
        return value if (now in when if when else now != value) else None

    return to


def _only(method: str, to: Callable[[Question], Any]) -> Callable[[Question], Any]:
    return lambda question: to(question) if question.method == method else None


def _adapter(to: Callable[[Question], Any]) -> Callable[[Question], Any]:
    return lambda question: to(question) if question.method != "full" else None


def _halved(field: str, least: int) -> Callable[[Question], Any]:
    def to(question: Question) -> Any:
        now = question.get(field)
        return max(least, now // 2) if now > least else None

    return to


def _shorter(question: Question) -> Any:
    """Half as long, and never shorter than what a sample's pictures and sound take."""
    return _halved("sequence_length", max(128, question.estimate().plan.least_length))(question)


def _unpacked_to(autocast: bool) -> Callable[[Question], Any]:
    """The dtype of the products, where 4-bit weights are unpacked to float32; with or without autocast."""

    def to(question: Question) -> Any:
        r = question.recipe
        if r.quantization is None or r.quantization.compute_dtype != "float32" or (r.autocast is not None) != autocast:
            return None
        return r.autocast or "bfloat16"

    return to


def _fewer_targets(question: Question) -> Any:
    """Query and value alone, but not in place of the family's usual targets."""
    now = question.estimate().recipe.lora.target_modules
    usual = question.with_("target_modules", None).estimate().recipe.lora.target_modules
    return None if now in (usual, ("q_proj", "v_proj")) else ["q_proj", "v_proj"]


COMPUTE_DTYPE: Final = "compute_dtype"
CHANGES: Final = (
    Change(COMPUTE_DTYPE, _unpacked_to(True), "none",
           "4-bit weights are dequantized to float32 and then cast to 16 bits, in which autocast multiplies. "
           "bnb_4bit_compute_dtype=bfloat16 dequantizes them to 16 bits at once, with the same products; on TRL's command line, say "
           "dtype: bfloat16, or it takes float32 (since 0.27)."),
    Change(COMPUTE_DTYPE, _unpacked_to(False), "quality",
           "Without autocast every product with a 4-bit weight runs in float32, without the card's 16-bit units. "
           "bnb_4bit_compute_dtype=bfloat16 lets them run in 16 bits, as QLoRA's authors do; TRL takes float32 by default "
           "(since 0.27).", "compute_dtype_alone"),
    Change("attention", _set("attention", "sdpa", "eager"), "none",
           "A fused attention kernel does not keep the length × length matrix."),
    Change("padded", _set("padded", False, True), "none",
           "Pack samples instead of padding them: no mask, and no computation on padding."),
    Change("loss", _set("loss", "fused", "full", "kernel", "chunked", "kept_positions", "linear"), "none",
           "A fused loss never forms the full logits (tokens × vocabulary)."),
    Change("fused_kernels", _set("fused_kernels", True, False), "none",
           "Fused norm and rotary kernels read, write and keep fewer intermediates."),
    Change("optimizer", _set("optimizer", "adamw_fused", "adamw_foreach", "adamw_loop"), "none",
           "Fused AdamW needs no temporary copies for its update; the result is the same.", "optimizer_fused"),
    Change("double_quant", _set("double_quant", True, False), "none",
           "Quantize the quantization constants too (double quantization): saves 0.37 bit per weight."),
    Change("optimizer_in_backward", _only("full", _set("optimizer_in_backward", True, False)), "time",
           "Each gradient is applied and freed at once, so they never exist together; gradient accumulation and clipping are then impossible."),
    Change("gradient_checkpointing", _set("gradient_checkpointing", True, False), "time",
           "Keep only each layer's input and recompute the rest in the backward pass: about a third more "
           "operations for full fine-tuning, about half more for LoRA."),
    Change("checkpoint_offload",
           lambda q: "cpu" if q.recipe.gradient_checkpointing and q.recipe.checkpoint_offload == "none" else None, "time",
           "The saved inputs of the layers are moved to host memory and fetched for the backward pass: the transfer over PCIe takes time."),
    Change("gradient_accumulation_steps",
           _only("full", lambda q: 1 if q.recipe.gradient_accumulation_steps > 1 else None), "time",
           "Without gradient accumulation no gradient is alive during the forward pass; the global batch gets smaller."),
    Change("micro_batch_size", _halved("micro_batch_size", 1), "time",
           "Activations are proportional to the micro-batch; gradient accumulation keeps the global batch."),
    Change("optimizer", _set("optimizer", "adamw_8bit", "adamw_fused", "adamw_foreach", "adamw_loop"), "quality",
           "Adam's two moments in 8 bits each. Results are usually close, not the same.", "optimizer_8bit"),
    Change("optimizer", _set("optimizer", "paged_adamw_8bit", "adamw_8bit"), "time",
           "Optimizer state in pages that move to host memory when the GPU is full, and back when needed: slower.",
           "optimizer_paged"),
    Change("prepare_kbit", _set("prepare_kbit", False, True), "quality",
           "Everything that is not quantized stays in 16 bits, as with Unsloth and others, instead of being raised to float32: norms, "
           "embeddings, head, and experts that are not packed."),
    Change("weights_dtype", _set("weights_dtype", "bfloat16", "float32"), "quality",
           "Two bytes per weight instead of four; rounding is coarser."),
    Change("adapter_dtype", _adapter(_set("adapter_dtype", "bfloat16", "float32")), "quality",
           "Halves the adapter, its gradients and moments; small updates may be rounded away."),
    Change("dropout", _adapter(lambda q: 0.0 if q.recipe.lora.dropout > 0 else None), "quality",
           "Without dropout neither its mask nor its copy of the input is kept."),
    Change("target_modules", _adapter(_fewer_targets), "quality",
           "Every adapted layer keeps its own input; q_proj and v_proj alone keep the least."),
    Change("rank", _adapter(_halved("rank", 1)), "quality",
           "The adapter is proportional to the rank, though it is usually a small part."),
    Change("sequence_length", _shorter, "quality",
           "Activations and logits are proportional to the sequence length; longer samples are cut."),
    Change("method", _only("full", lambda q: "lora"), "method",
           "Frozen weights have neither gradients nor optimizer state.", "method_lora"),
    Change("method",
           lambda q: "qlora" if q.method in ("full", "lora") and q.recipe.quantization is None else None, "method",
           "The frozen base at about four bits per weight, dequantized layer by layer when used.", "method_qlora"),
)  # fmt: skip

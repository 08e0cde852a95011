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
    zh: str
    en: str


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


def _fewer_targets(question: Question) -> Any:
    """Query and value alone, but not in place of the family's usual targets."""
    now = question.estimate().recipe.lora.target_modules
    usual = question.with_("target_modules", None).estimate().recipe.lora.target_modules
    return None if now in (usual, ("q_proj", "v_proj")) else ["q_proj", "v_proj"]


CHANGES: Final = (
    Change("attention", _set("attention", "sdpa", "eager"), "none",
           "融合的注意力算子不保存 长度×长度 的矩阵。",
           "A fused attention kernel does not keep the length × length matrix."),
    Change("padded", _set("padded", False, True), "none",
           "把样本首尾相接而不是填充：不再需要掩码，也不为空白计算。",
           "Pack samples instead of padding them: no mask is needed, and no blank is computed."),
    Change("loss", _set("loss", "fused", "full", "kernel", "chunked"), "none",
           "融合的损失从不形成完整的 logits（词元数 × 词表）。",
           "A fused loss never forms the whole logits (tokens × vocabulary)."),
    Change("fused_kernels", _set("fused_kernels", True, False), "none",
           "融合的归一化与旋转位置编码少保存中间结果。",
           "Fused norm and rotary kernels keep fewer intermediates."),
    Change("optimizer", _set("optimizer", "adamw_fused", "adamw_foreach", "adamw_loop"), "none",
           "fused 版 AdamW 更新时不需要临时副本，结果相同。",
           "Fused AdamW needs no temporary copies for its update; the result is the same."),
    Change("double_quant", _set("double_quant", True, False), "none",
           "把量化的缩放系数再量化一次：每个权重省 0.37 比特。",
           "Quantize the scales too: 0.37 bit less per weight."),
    Change("optimizer_in_backward", _only("full", _set("optimizer_in_backward", True, False)), "time",
           "算出一个梯度就更新、就释放：梯度不会同时存在。不能再做梯度累积和裁剪。",
           "Each gradient is used and freed at once, never all together. Rules out accumulation and clipping."),
    Change("gradient_checkpointing", _set("gradient_checkpointing", True, False), "time",
           "只保留每层的输入，反向时重算其余部分：多花约三分之一的时间。",
           "Keep only each layer's input and recompute the rest in backward: about a third more time."),
    Change("checkpoint_offload",
           lambda q: "cpu" if q.recipe.gradient_checkpointing and q.recipe.checkpoint_offload == "none" else None, "time",
           "每层保留的输入放到主机内存，反向时再取回：要等 PCIe 传输。",
           "The kept inputs of the layers wait in host memory and come back for backward: PCIe takes its time."),
    Change("gradient_accumulation_steps",
           _only("full", lambda q: 1 if q.recipe.gradient_accumulation_steps > 1 else None), "time",
           "不累积时，前向期间没有梯度占着显存；全局批量变小。",
           "Without accumulation no gradient is alive during forward; the global batch gets smaller."),
    Change("micro_batch_size", _halved("micro_batch_size", 1), "time",
           "激活与批量成正比；用梯度累积保持全局批量不变。",
           "Activations are proportional to the batch; accumulation keeps the global batch."),
    Change("optimizer", _set("optimizer", "adamw_8bit", "adamw_fused", "adamw_foreach", "adamw_loop"), "quality",
           "Adam 的两个动量各存 8 比特。结果通常相近，但不完全相同。",
           "Adam's two moments in 8 bits each. Results are usually close, not the same."),
    Change("optimizer", _set("optimizer", "paged_adamw_8bit", "adamw_8bit"), "time",
           "优化器状态放在可换页的内存里，显存不够时移到主机；需要时再移回来，会变慢。",
           "Optimizer states in pages that move to the host when the card is full, and back when needed: slower."),
    Change("prepare_kbit", _set("prepare_kbit", False, True), "quality",
           "归一化层、词嵌入和输出层保持 16 比特，不提升到 float32（Unsloth 等训练器就是这样）。",
           "Norms, embeddings and head stay in 16 bits, not raised to float32, as Unsloth and others do."),
    Change("weights_dtype", _set("weights_dtype", "bfloat16", "float32"), "quality",
           "权重每个 2 字节而不是 4 字节；舍入更粗。",
           "Two bytes per weight instead of four; rounding is coarser."),
    Change("adapter_dtype", _adapter(_set("adapter_dtype", "bfloat16", "float32")), "quality",
           "适配器及其梯度和动量减半；小的更新可能被舍入掉。",
           "Halves the adapter, its gradients and moments; small updates may be rounded away."),
    Change("dropout", _adapter(lambda q: 0.0 if q.recipe.lora.dropout > 0 else None), "quality",
           "没有 dropout 就不用保存它的掩码和输入的副本。",
           "Without dropout neither its mask nor its copy of the input is kept."),
    Change("target_modules", _adapter(_fewer_targets), "quality",
           "每个目标层都要保存自己的输入；只用 q_proj 和 v_proj 保存得最少。",
           "Every target keeps its own input; q_proj and v_proj alone keep the least."),
    Change("rank", _adapter(_halved("rank", 1)), "quality",
           "适配器与秩成正比，不过它通常只占很小一部分。",
           "The adapter is proportional to the rank, though it is usually a small part."),
    Change("sequence_length", _halved("sequence_length", 128), "quality",
           "激活和 logits 与长度成正比；过长的样本会被截断。",
           "Activations and logits are proportional to the length; longer samples are cut."),
    Change("method", _only("full", lambda q: "lora"), "method",
           "冻结的权重没有梯度，也没有优化器状态。",
           "Frozen weights have neither gradients nor optimizer state."),
    Change("method",
           lambda q: "qlora" if q.method in ("full", "lora") and q.recipe.quantization is None else None, "method",
           "冻结的底座每个权重约 4 比特；每层用到时再解压。",
           "The frozen base at about four bits per weight, unpacked layer by layer when used."),
)  # fmt: skip

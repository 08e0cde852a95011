"""What each figure of the course is a figure of, in both languages: two rows of "26 GB" are two different things."""

from __future__ import annotations

from typing import Final

NAMES: Final[dict[str, tuple[str, str]]] = {
    "full-98": ("7B 全量微调，合计", "7B, full fine-tuning, total"),
    "full-weights-26": ("7B 全量微调，权重", "7B, full fine-tuning, weights"),
    "full-optimizer-52": ("7B 全量微调，优化器状态", "7B, full fine-tuning, optimizer state"),
    "full-gradients-26": ("7B 全量微调，梯度", "7B, full fine-tuning, gradients"),
    "full-activations-13": ("7B 全量微调，激活值", "7B, full fine-tuning, activations"),
    "full-total-117": ("7B 全量微调，分项之和", "7B, full fine-tuning, sum of its parts"),
    "lora-weights-13": ("7B LoRA，冻结的权重", "7B, LoRA, frozen weights"),
    "lora-own-0.04": ("7B LoRA，适配器自己的部分", "7B, LoRA, the adapter's own part"),
    "lora-26": ("7B LoRA，合计", "7B, LoRA, total"),
    "adapter-7b": ("7B 的 LoRA 参数", "LoRA parameters of 7B"),
    "adapter-13b": ("13B 的 LoRA 参数", "LoRA parameters of 13B"),
    "adapter-70b": ("70B 的 LoRA 参数", "LoRA parameters of 70B"),
    "share-0.03": ("7B 可训练参数的占比", "trainable share of 7B's parameters"),
    "fewer-7b": ("7B 参数减少的倍数", "reduction in parameters, 7B"),
    "fewer-13b": ("13B 参数减少的倍数", "reduction in parameters, 13B"),
    "fewer-70b": ("70B 参数减少的倍数", "reduction in parameters, 70B"),
    "memory-3.8x": ("显存减少的倍数", "reduction in memory, as a factor"),
    "saved-73.5": ("省下的显存", "memory saved"),
    "faster-100x": ("换任务加快的倍数", "speed-up of the task switch, as a factor"),
    "adapter-file-4": ("一个适配器文件", "one adapter file"),
    "storage-3250x": ("每个任务的存储减少的倍数", "reduction in storage per task, as a factor"),
    "storage-10-full": ("10 个任务，每个一整份模型", "10 tasks, a whole model each"),
    "storage-10-lora": ("10 个任务，一个底座加适配器", "10 tasks, one base and adapters"),
    "storage-10-saved": ("10 个任务省下的存储", "storage saved, 10 tasks"),
    "storage-6-full": ("6 个任务，每个一整份模型", "6 tasks, a whole model each"),
    "storage-6-lora": ("6 个任务，一个底座加适配器", "6 tasks, one base and adapters"),
    "storage-6-saved": ("6 个任务省下的存储，比例", "storage saved, 6 tasks, share"),
    "storage-6-saved-gb": ("6 个任务省下的存储", "storage saved, 6 tasks"),
    "square-16384": ("1024 × 1024 矩阵的 LoRA 参数（r = 8）", "LoRA parameters of a 1024 × 1024 matrix (r = 8)"),
    "square-1.5625": ("占这个矩阵的比例", "share of that matrix"),
    "knowledge-47.5": ("微调后剩下的旧知识（评分）", "old knowledge left after fine-tuning (score)"),
    "hours-17500": ("175 亿参数，训练时间", "17.5 billion parameters, training time"),
    "dollars-1.75m": ("175 亿参数，训练费用", "17.5 billion parameters, cost of training"),
}

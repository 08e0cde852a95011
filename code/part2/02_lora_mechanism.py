"""第 2 课 / Lesson 2: LoRA 的原理 / how LoRA works, built by hand with nothing but torch.

python code/part2/02_lora_mechanism.py
python code/part2/02_lora_mechanism.py --rank 16 --lang en
"""

import hashlib

from lesson import arguments, run, say, step, table
import torch
from torch import nn
from tqdm import trange

import loralens
from loralens.core.errors import InvalidInput


class LoRALinear(nn.Module):
    """y = W x + (alpha / r) · B A x, with W frozen. W is (d, d), A is (r, d), B is (d, r)."""

    def __init__(self, weight: torch.Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        out_features, in_features = weight.shape
        self.weight = nn.Parameter(weight.clone(), requires_grad=False)  # W 冻结 / frozen
        self.lora_a = nn.Parameter(torch.empty(rank, in_features))
        self.lora_b = nn.Parameter(torch.zeros(out_features, rank))  # B = 0：一开始什么都不改变 / changes nothing yet
        nn.init.kaiming_uniform_(self.lora_a, a=5**0.5)
        self.scaling = alpha / rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # 先乘 A 再乘 B：从不形成 d×d 的矩阵 / A first, then B: the d×d product is never formed
        return x @ self.weight.T + self.scaling * (x @ self.lora_a.T) @ self.lora_b.T

    def update(self) -> torch.Tensor:
        """ΔW = (alpha / r) · B A, as one d×d matrix."""
        return self.scaling * self.lora_b @ self.lora_a


def fingerprint(tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's bytes: equal only if no bit has changed."""
    return hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest()[:16]


def main() -> None:
    args = arguments(
        "LoRA by hand",
        model=("7B", "模型 / a model of the catalogue, for step 1"),
        rank=(8, "秩 / the inner dimension r of B·A"),
        alpha=(16.0, "缩放系数 alpha / rank 的分子 / numerator of the scaling alpha / rank"),
        width=(1024, "方阵的边长 d / side of the square matrix"),
        steps=(200, "训练步数 / training steps"),
    )
    width, rank = args.width, args.rank
    if not (1 <= rank <= width <= 8192 and args.steps >= 1):
        raise InvalidInput(
            f"needs 1 ≤ rank ≤ width ≤ 8192 and steps ≥ 1, got rank={rank}, width={width}, steps={args.steps}",
            field="rank",
            hint="try --rank 8 --width 1024",
        )
    torch.manual_seed(0)

    step(1, "数一数参数", "Count the parameters")
    full, small = width * width, 2 * width * rank
    say(f"一个 {width}×{width} 的权重矩阵有 {full:,} 个参数。", f"A {width}×{width} weight has {full:,} parameters.")
    share = f"{100 * small / full:.4f}%"
    say(
        f"两个小矩阵 B ({width}×{rank}) 和 A ({rank}×{width}) 一共 {small:,} 个，是它的 {share}。",
        f"The factors B ({width}×{rank}) and A ({rank}×{width}) have {small:,} together: {share} of it.",
    )
    # 与网页和 /api/parameters 是同一个函数 / the same function as the page and /api/parameters
    counted = loralens.parameters_answer({"model": args.model, "method": "lora", "recipe": {"lora": {"rank": rank}}})
    total, trainable = counted["parameters"]["total"], counted["parameters"]["trainable"]
    name = counted["model"]["name"]
    targets = dict.fromkeys(row["name"].split(".")[-3] for row in counted["tensors"] if row["role"] == "adapter")
    where, share = ", ".join(targets), f"{100 * trainable / total:.4f}%"
    say(
        f"整个 {name}（{where}）：{total:,} 个参数中可训练的有 {trainable:,} 个（{share}）。",
        f"All of {name} ({where}): {trainable:,} of {total:,} parameters are trainable ({share}).",
    )

    step(2, "B 从零开始，所以刚开始时输出完全不变", "B starts at zero, so at first the output is exactly the base's")
    layer = LoRALinear(torch.randn(width, width) / width**0.5, rank, args.alpha)
    x = torch.randn(256, width)
    base = x @ layer.weight.T
    say(f"输出逐位相同：{torch.equal(layer(x), base)}", f"Outputs equal bit for bit: {torch.equal(layer(x), base)}")

    step(3, "梯度流向哪里", "Where gradients flow")
    # 目标：原来的 W 加上一个秩很低的改动 / the goal: the old W plus a change of low rank
    wanted = torch.randn(width, 4) @ torch.randn(4, width) / width
    goal = layer.weight + wanted
    before = fingerprint(layer.weight)
    nn.functional.mse_loss(layer(x), x @ goal.T).backward()
    say(
        f"W.grad = {layer.weight.grad}（冻结：没有梯度，也没有优化器状态）",
        f"W.grad = {layer.weight.grad} (frozen: no gradient, no optimizer state)",
    )
    say(
        f"|B.grad| = {layer.lora_b.grad.norm():.2e}，|A.grad| = {layer.lora_a.grad.norm():.2e}"
        "：B 还是零，A 的梯度也就是零，下一步才开始动。",
        f"|B.grad| = {layer.lora_b.grad.norm():.2e}, |A.grad| = {layer.lora_a.grad.norm():.2e}"
        ": while B is zero, so is A's gradient; A starts to move one step later.",
    )

    step(4, "训练：只有 A 和 B 在动", "Train: only A and B move")
    optimizer = torch.optim.AdamW([layer.lora_a, layer.lora_b], lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    losses = []
    for _ in trange(args.steps, disable=None, leave=False):
        x = torch.randn(256, width)  # 每一步都是新样本 / new samples in every step
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(layer(x), x @ goal.T)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    say(f"损失：{losses[0]:.2e} → {losses[-1]:.2e}", f"Loss: {losses[0]:.2e} → {losses[-1]:.2e}")
    after = fingerprint(layer.weight)
    say(
        f"W 的指纹：{before} → {after}，一个比特都没变：{before == after}",
        f"W: {before} → {after}, unchanged: {before == after}",
    )

    step(5, "合并：W' = W + (alpha / r)·B·A 给出同样的输出", "Merge: W' = W + (alpha / r)·B·A gives the same output")
    with torch.no_grad():
        merged = x @ (layer.weight + layer.update()).T
        single = (merged - layer(x)).abs().max().item()
        double = layer.double()
        x64 = x.double()
        exact = (x64 @ (double.weight + double.update()).T - double(x64)).abs().max().item()
    say(
        f"最大差别：float32 下 {single:.1e}，float64 下 {exact:.1e}：只是舍入误差，公式相等。",
        f"Largest difference: {single:.1e} in float32, {exact:.1e} in float64: rounding only, the formulas are equal.",
    )

    step(6, "低秩：ΔW 有 d 个奇异值，只有 r 个不为零", "Low rank: ΔW has d singular values, only r are not zero")
    with torch.no_grad():
        values = torch.linalg.svdvals(double.update())
        learned = int((values > values[0] * 1e-10).sum())
        error = (torch.linalg.matrix_norm(double.update() - wanted) / torch.linalg.matrix_norm(wanted)).item()
    say(f"学到的 ΔW 的秩 = {learned}（r = {rank}）。", f"Rank of the ΔW that was learned = {learned} (r = {rank}).")
    shown = min(rank + 2, width)
    table(
        ["i", "σ_i"],
        [[i + 1, f"{values[i]:.2e}"] for i in range(shown)],
    )
    say(
        f"目标改动的秩是 4；学到的 ΔW 与它的相对误差是 {error:.3f}。试试 --rank 2：秩太低，学不出这个改动。",
        f"The target change has rank 4; the learned ΔW differs from it by a relative error of {error:.3f}. "
        "Try --rank 2: that rank is too low to reproduce it.",
    )


if __name__ == "__main__":
    run(main)

"""The verdict on each figure of the course, and the sentence that goes with it, in both languages.

`{exact}` stands for the exact value, with its unit, as the ledger computes it.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Verdict(NamedTuple):
    """What a reader should make of a printed figure.

    `kind`: `exact` (true as printed), `one case` (true for one choice of model and layers), `not true` (the rule gives
    it, the model does not), `rule of thumb`
    (follows from the rule, not what a step holds), `unsupported` (no source), `simulated` (a constant in the code).
    """

    kind: str
    zh: str
    en: str


KINDS: Final = {
    "exact": ("精确", "exact"),
    "one case": ("只对一种情形成立", "true for one case"),
    "rule of thumb": ("经验公式", "rule of thumb"),
    "not true": ("对这个模型不成立", "not true for this model"),
    "unsupported": ("没有依据", "unsupported"),
    "simulated": ("模拟值", "simulated"),
}

_GIB = ("课程写作 GB，其实是 GiB（2^30 字节）。", "Printed as GB, but it is GiB (2^30 bytes).")
_STORAGE = (
    "底座按 13 GB（其实是 13.04 GiB）算，适配器按 4 MB 算。",
    "Takes the base as 13 GB (it is 13.04 GiB) and an adapter as 4 MB.",
)
_ADAPTER = (
    "规则对任何模型都用 32 层、4096 宽、每层一个矩阵。{name} 只训练 q_proj 时精确值是 {exact}。",
    "The rule takes 32 layers of width 4096 and one matrix per layer for every model. {name}, q_proj alone: {exact}.",
)
_FEWER = (
    "除法用的是名义参数量和同一个 2,097,152。按真实的层数与宽度（只训练 q_proj）是 {exact}。",
    "Divides nominal counts by the same 2,097,152. With the real layers and widths (q_proj alone) it is {exact}.",
)

VERDICTS: Final[dict[str, Verdict]] = {
    "full-98": Verdict(
        "rule of thumb",
        "14 字节/参数，不含梯度和激活值；与它自己的分项之和 117.35 矛盾。真实一步的峰值取决于精度、批量和长度：{exact}。",
        "14 bytes per parameter, without gradients and activations; its own parts add up to 117.35 instead. The real "
        "peak of a step depends on precision, batch and length: {exact}.",
    ),
    "full-weights-26": Verdict(
        "rule of thumb",
        _GIB[0] + "真实的 Llama-2-7B 有 6,738,415,616 个参数，不是 7.0e9：{exact}。",
        _GIB[1] + " The real Llama-2-7B has 6,738,415,616 parameters, not 7.0e9: {exact}.",
    ),
    "full-optimizer-52": Verdict(
        "rule of thumb",
        _GIB[0] + "Adam 的一阶、二阶动量（float32），按真实参数量是 {exact}；权重是 bfloat16 时只有一半。",
        _GIB[1] + " Adam's two float32 moments for the real count: {exact}; half of it with bfloat16 weights.",
    ),
    "full-gradients-26": Verdict(
        "rule of thumb",
        _GIB[0] + "float32 梯度按真实参数量是 {exact}。梯度只在反向传播结束时才全部存在。",
        _GIB[1]
        + " float32 gradients for the real count: {exact}. They exist all together only at the end of the backward pass.",
    ),
    "full-activations-13": Verdict(
        "rule of thumb",
        "“权重的一半”没有依据：激活值取决于批量、长度、层数、宽度和算子，并不按权重的比例变化。批量 1、长度 2048 时最多是 {exact}。",
        "Half of the weights has no basis: activations depend on batch, length, depth, width and kernels, and do not scale "
        "with the weights. At batch 1 and length 2048 they reach {exact}.",
    ),
    "full-total-117": Verdict(
        "rule of thumb",
        "分项相加。一步的峰值是各时刻的最大值，不是各项之和：同样用 float32 权重时精确值是 {exact}。",
        "A sum of parts. A step's peak is the maximum over moments, not a sum: with float32 weights it is {exact}.",
    ),
    "lora-weights-13": Verdict(
        "rule of thumb",
        _GIB[0] + "16 比特的冻结权重，按真实参数量是 {exact}。",
        _GIB[1] + " Frozen 16-bit weights for the real count: {exact}.",
    ),
    "lora-own-0.04": Verdict(
        "rule of thumb",
        "三项各自四舍五入后相加。只训练 q_proj 时，适配器的权重、梯度和 Adam 状态一共是 {exact}。",
        "Three parts, each rounded before they are added. With q_proj alone, the adapter's weights, gradients and Adam "
        "state are {exact}.",
    ),
    "lora-26": Verdict(
        "rule of thumb",
        "仍把激活值算作权重的一半。批量 1、长度 2048、bf16 自动混合精度下，真实一步的峰值是 {exact}。",
        "Still takes the activations as half of the weights. At batch 1 × 2048 under bf16 autocast the peak of a real step "
        "is {exact}.",
    ),
    "adapter-7b": Verdict("one case", *_ADAPTER),
    "adapter-13b": Verdict("not true", *_ADAPTER),
    "adapter-70b": Verdict("not true", *_ADAPTER),
    "share-0.03": Verdict(
        "one case",
        "除以名义的 7.0e9。只训练 q_proj 时精确值是 {exact}；常用的 q_proj 加 v_proj 是它的两倍。",
        "Divided by the nominal 7.0e9. With q_proj alone it is {exact}; the usual q_proj and v_proj are twice that.",
    ),
    "fewer-7b": Verdict(
        "rule of thumb",
        "是四舍五入后的 0.03% 的倒数，与另外两个倍数的算法不同。只训练 q_proj 时精确值是 {exact}。",
        "The reciprocal of the rounded 0.03%, unlike the other two factors. With q_proj alone it is {exact}.",
    ),
    "fewer-13b": Verdict("not true", *_FEWER),
    "fewer-70b": Verdict("not true", *_FEWER),
    "memory-3.8x": Verdict(
        "rule of thumb",
        "用一条规则的 98 除以另一条规则的 26。同一设置下两个真实峰值之比是 {exact}。",
        "98 by one rule divided by 26 by another. The ratio of the two real peaks under one set-up is {exact}.",
    ),
    "saved-73.5": Verdict(
        "rule of thumb", "同上：真实峰值省下 {exact}。", "As above: of the real peak, {exact} is saved."
    ),
    "faster-100x": Verdict(
        "unsupported",
        "没有给出来源，所以这里不重复。改为在你的机器上测量：切换适配器的时间与重新加载底座相比（第 4 课）。{exact}。",
        "No source is given, so it is not repeated. Measured on your own machine instead: time to switch an adapter "
        "against reloading the base (lesson 4). {exact}.",
    ),
    "adapter-file-4": Verdict(
        "one case",
        "按 16 比特保存、只有 q_proj。PEFT 默认用 float32 保存适配器：文件是 {exact}。",
        "Stored in 16 bits, q_proj alone. PEFT stores adapters in float32 by default: the file is {exact}.",
    ),
    "storage-3250x": Verdict(
        "rule of thumb",
        "13 GB ÷ 4 MB。默认精度下，检查点文件与适配器文件之比是 {exact}。",
        "13 GB ÷ 4 MB. At default precisions the ratio of model checkpoint to adapter file is {exact}.",
    ),
    **{
        f"storage-{tasks}-{part}": Verdict(
            "rule of thumb", _STORAGE[0] + "精确值：{exact}。", _STORAGE[1] + " Exactly: {exact}."
        )
        for tasks in (10, 6)
        for part in ("full", "lora", "saved", "saved-gb")
    },
    "square-16384": Verdict("exact", "印的是对的：{exact}。", "Correct as printed: {exact}."),
    "square-1.5625": Verdict("exact", "印的是对的：{exact}。", "Correct as printed: {exact}."),
    "knowledge-47.5": Verdict(
        "simulated",
        "代码里乘以 0.5，不是测量。第 1 课真正训练一个小模型，测量忘记了多少。{exact}。",
        "Multiplied by 0.5 in the code, not measured. Lesson 1 trains a small model and measures it. {exact}.",
    ),
    "hours-17500": Verdict(
        "unsupported",
        "没有依据。由运算量推出：{exact}。",
        "No source. Derived from the number of operations: {exact}.",
    ),
    "dollars-1.75m": Verdict(
        "unsupported",
        "每小时 100 美元没有来源。按上一行的小时数和公布的价格：{exact}。",
        "100 dollars an hour has no source. With the hours of the row above and a published price: {exact}.",
    ),
}

"""第 3 课 / Lesson 3: 参数与显存对比 / parameters and memory side by side, as a table and a picture.

python code/part2/03_parameter_comparison.py
python code/part2/03_parameter_comparison.py --model 7B,qwen2.5-7b --rank 64 --lang en
"""

from pathlib import Path

from lesson import GIB, arguments, gib, pick, run, say, speak, step, table

import loralens
from loralens.core.catalogue import gpu
from loralens.core.errors import InvalidInput
from loralens.planner.textbook import full_memory, headline_bytes

METHODS = ("full", "lora", "qlora")
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.8}
PICTURE = Path(__file__).with_name("parameter_comparison.png")


def main() -> None:
    args = arguments(
        "Parameters and memory of full fine-tuning, LoRA and QLoRA",
        model=("7B,13B,30B,70B", "模型，逗号分隔 / models, separated by commas"),
        rank=(8, "LoRA 的秩 / rank of LoRA"),
        batch=(1, "微批量：每张 GPU 每次前向的样本数 / micro-batch: samples per GPU and forward pass"),
        length=(2048, "序列长度（词元）/ tokens per sample"),
        no_gradient_checkpointing=(False, "保存全部激活值，不重算 / keep all activations instead of recomputing them"),
        output=(str(PICTURE), "图片文件 / file of the picture"),
    )
    recipe = {
        "micro_batch_size": args.batch,
        "sequence_length": args.length,
        "gradient_checkpointing": not args.no_gradient_checkpointing,
        "lora": {"rank": args.rank},
    }
    if not Path(args.output).parent.is_dir() or Path(args.output).suffix != ".png":
        raise InvalidInput(f"cannot write {args.output}", field="output", hint="give a .png in a folder that exists")
    # 网页和 /api/memory 用的是同一个函数 / the page and /api/memory call the same function
    answers = [loralens.memory_answer({"model": name.strip(), "recipe": recipe}) for name in args.model.split(",")]

    step(1, "可训练参数有多少", "How many parameters are trainable")
    rows = []
    for answer in answers:
        lora = by_method(answer)["lora"]["parameters"]
        ratio = answer["comparison"]["parameters_ratio"]
        total, trainable = answer["model"]["parameters"], lora["trainable"]
        rows.append(
            [
                answer["model"]["name"],
                f"{total:,}",
                f"{trainable:,}",
                f"{lora['trainable_percent']:.4f}%",
                f"{ratio:,.0f}×",
            ]
        )
    table(
        [
            pick("模型", "model"),
            pick("全量", "full"),
            f"LoRA r={args.rank}",
            pick("占比", "share"),
            pick("减少的倍数", "reduction"),
        ],
        rows,
    )

    step(
        2,
        f"一步训练的显存（GiB，微批量 {args.batch} × 长度 {args.length}）",
        f"Memory of one step (GiB, micro-batch {args.batch} × length {args.length})",
    )
    # 峰值是各时刻的最大值；各项是峰值那一刻的内容 / the peak is the fullest moment; the terms are what is there then
    header = [
        pick("模型", "model"),
        pick("方法", "method"),
        *(name for name, _ in terms()),
        pick("峰值", "peak"),
        pick("峰值时刻", "in phase"),
    ]
    rows = []
    for answer in answers:
        for method, estimate in by_method(answer).items():
            cells = [gib(sum(estimate["breakdown"][part] for part in parts)) for _, parts in terms()]
            peak = estimate["peak"]
            rows.append([answer["model"]["name"], method, *cells, gib(peak["allocated_bytes"]), peak["phase"]])
    table(header, rows)

    step(3, "省了多少，需要什么 GPU", "What is saved, and which GPU it takes")
    rows = []
    for answer in answers:
        estimates = by_method(answer)
        rows.append(
            [
                answer["model"]["name"],
                f"{answer['comparison']['memory_ratio']:.2f}×",
                f"{answer['comparison']['storage_ratio']:,.0f}×",
                *(smallest_gpu(estimates[method]) for method in METHODS),
            ]
        )
    table([pick("模型", "model"), pick("显存", "memory"), pick("存储", "storage"), *METHODS], rows)
    say(
        "GPU：装得下峰值、碎片与 CUDA 上下文的最小的一块；—：没有一块单卡装得下，要分片或换方法。",
        "GPU: the smallest that holds the peak, its fragmentation and the CUDA context; —: no single GPU does, so shard the "
        "work or change the method.",
    )

    step(4, "与课程的经验公式相比", "Against the course's rules of thumb")
    rule = full_memory(7 * 10**9)
    headline, parts = f"{headline_bytes(7 * 10**9) / 10**9:.0f} GB", f"{rule.total_bytes / GIB:.2f} GiB"
    say(
        f"课程的 7B：{headline}（14 字节/参数），它自己的分项相加却是 {parts}。",
        f"The course's 7B: {headline} (14 bytes per parameter), while its own parts add to {parts}.",
    )
    say("每个数字的来历见 docs/course-numbers.md。", "Where each number comes from: docs/course-numbers.md.")

    step(5, "画图", "Draw it")
    draw(answers, args.rank, Path(args.output))
    say(f"图片：{args.output}", f"Picture: {args.output}")


def by_method(answer: dict) -> dict:
    """The estimates of one model by method."""
    return {estimate["method"]: estimate for estimate in answer["estimates"]}


def terms() -> list[tuple[str, tuple[str, ...]]]:
    """The four terms of the picture and what belongs to each; together they are the whole peak."""
    return [
        (pick("权重", "weights"), ("weights_bytes", "adapter_bytes")),
        (pick("优化器状态", "optimizer state"), ("optimizer_state_bytes",)),
        (pick("梯度", "gradients"), ("gradients_bytes",)),
        (pick("激活值等", "activations etc."), ("activations_bytes", "logits_bytes", "temporaries_bytes")),
    ]


def smallest_gpu(estimate: dict) -> str:
    """Name of the GPU with the least memory that surely fits."""
    fitting = [row for row in estimate["fits"] if row["verdict"] == "fits"]
    return min(fitting, key=lambda row: row["memory_bytes"])["name"] if fitting else "—"


def draw(answers: list[dict], rank: int, path: Path) -> None:
    """Two panels: parameters on a log axis, memory stacked by term with lines for three GPUs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from fonts import use_chinese_font

    if pick("zh", "en") == "zh" and not use_chinese_font():
        say("没有中文字体：图中改用英文。")
        speak("en")
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 6.2), width_ratios=[1, 1.9], layout="constrained")
    names = [answer["model"]["name"] for answer in answers]

    for offset, method, color, label in (
        (-0.2, "full", "#c0392b", pick("全量微调", "full fine-tuning")),
        (0.2, "lora", "#1e8449", f"LoRA r={rank}"),
    ):
        counts = [by_method(answer)[method]["parameters"]["trainable"] for answer in answers]
        bars = left.bar([i + offset for i in range(len(names))], counts, width=0.38, color=color, label=label)
        left.bar_label(bars, [short(count) for count in counts], padding=2, fontsize=9)
    left.set_yscale("log")
    left.set_ylim(bottom=1e5)
    left.margins(y=0.25)
    left.set_xticks(range(len(names)), names, fontsize=9)
    left.set_title(pick("可训练参数（对数轴）", "Trainable parameters (log axis)"))
    left.legend(loc="upper left", frameon=False)

    colors = ("#4477aa", "#ee8866", "#ddcc55", "#77aadd")
    places, labels, highest = [], [], 0.0
    for index, answer in enumerate(answers):
        for slot, (method, estimate) in enumerate(by_method(answer).items()):
            x, bottom = index * 4 + slot, 0.0
            for (name, parts), color in zip(terms(), colors):
                size = sum(estimate["breakdown"][part] for part in parts) / GIB
                right.bar(x, size, bottom=bottom, width=0.8, color=color, label=name if x == 0 else None)
                bottom += size
            right.text(x, bottom, f"{bottom:.0f}", ha="center", va="bottom", fontsize=9, bbox=WHITE)
            places.append(x)
            labels.append({"full": pick("全量", "full"), "lora": "LoRA", "qlora": "QLoRA"}[method])
            highest = max(highest, bottom)
        right.text(
            index * 4 + 1, -0.05, answer["model"]["name"], ha="center", va="top", transform=right.get_xaxis_transform()
        )
    top = 1.12 * highest
    for device in map(gpu, ("rtx-4090", "a100", "h200")):
        size = device.memory_bytes / GIB
        if size > top:
            continue
        right.axhline(size, color="#555555", linestyle="--", linewidth=0.9, zorder=0)
        right.text(
            1.005,
            size,
            f"{device.name}\n{size:.0f} GiB",
            transform=right.get_yaxis_transform(),
            va="center",
            fontsize=8,
            color="#555555",
        )
    right.set_ylim(0, top)
    right.set_xticks(places, labels, fontsize=8)
    right.tick_params(axis="x", length=0)
    right.set_ylabel("GiB")
    right.set_title(
        pick("一步训练的峰值显存，按项（虚线：GPU 的显存）", "Peak memory of one step by term (dashed: a GPU's memory)")
    )
    right.legend(loc="upper left", frameon=False, ncols=2)
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def short(count: int) -> str:
    """6738415616 as 6.7B, 4194304 as 4.2M."""
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.1f}M"


if __name__ == "__main__":
    run(main)

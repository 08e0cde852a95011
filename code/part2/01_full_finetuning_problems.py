"""第 1 课 / Lesson 1: 全量微调的四个问题 / four problems of full fine-tuning: memory, forgetting, storage, cost.

python code/part2/01_full_finetuning_problems.py
python code/part2/01_full_finetuning_problems.py --model qwen2.5-7b --tasks 20 --lang en
"""

from lesson import arguments, gib, pick, run, say, step, table
from tqdm import tqdm

import loralens
from loralens.lab.forgetting import job
from loralens.planner.fit import fit_answer
from loralens.planner.phases import phase_breakdowns

PARTS = {
    "weights_bytes": ("权重", "weights"),
    "optimizer_state_bytes": ("优化器状态", "optimizer state"),
    "gradients_bytes": ("梯度", "gradients"),
    "activations_bytes": ("激活值", "activations"),
    "logits_bytes": ("损失（logits）", "loss (logits)"),
    "temporaries_bytes": ("临时张量", "temporary tensors"),
}


def main() -> None:
    args = arguments(
        "Four problems of full fine-tuning",
        model=("7B", "模型 / a model of the catalogue"),
        rank=(8, "对比用的 LoRA 的秩 / rank of the LoRA it is compared with"),
        batch=(1, "微批量：每张 GPU 每次前向的样本数 / micro-batch: samples per GPU and forward pass"),
        length=(2048, "序列长度（词元）/ tokens per sample"),
        tasks=(10, "任务数 / number of tasks"),
        gpu=("a100", "算时间和价格的 GPU / the GPU for time and cost"),
        tokens=(10_000_000, "训练的词元总数 / tokens of the whole training"),
        seed=(0, "训练的随机种子 / random seed of the training run"),
    )
    recipe = {"micro_batch_size": args.batch, "sequence_length": args.length, "lora": {"rank": args.rank}}
    answer = loralens.memory_answer({"model": args.model, "methods": ["full", "lora"], "recipe": recipe})
    full, lora = answer["estimates"]
    name = answer["model"]["name"]

    step(
        1,
        "显存：每一个参数都要训练，就每一个都要梯度和优化器状态",
        "Memory: every parameter is trained, so every one needs a gradient and optimizer state",
    )
    say(
        f"{name}，微批量 {args.batch} × 长度 {args.length}，{full['regime']}（GiB）",
        f"{name}, micro-batch {args.batch} × length {args.length}, {full['regime']} (GiB)",
    )
    # 一步有三个阶段，各有显存最满的一刻；需要的显存是其中的最大值，不是各项之和
    # a step has three phases, each with its fullest moment; what is needed is the largest of them, not a sum of terms
    phases = phase_breakdowns(loralens.estimate(args.model, method="full", **recipe))
    rows = [[pick(*text), *(gib(parts[part]) for parts in phases.values())] for part, text in PARTS.items()]
    rows.append([pick("合计", "total"), *(gib(sum(parts.values())) for parts in phases.values())])
    table(
        [pick("项", "term"), pick("前向", "forward"), pick("反向", "backward"), pick("优化器更新", "optimizer step")],
        rows,
    )
    peak, lora_peak = (gib(one["peak"]["allocated_bytes"]) for one in (full, lora))
    say(f"峰值 {peak} GiB；LoRA 只要 {lora_peak} GiB。", f"Peak {peak} GiB; LoRA needs {lora_peak} GiB.")

    step(
        2,
        "灾难性遗忘：真的训练一个小模型，量一量",
        "Catastrophic forgetting: train a small model for real, and measure",
    )
    result = measure_forgetting(args.seed)
    for finding in result["findings"]:
        say("· " + finding["zh"], "· " + finding["en"])
    rows = []
    for arm in result["summary"]["arms"]:
        forgot, learned = arm["forgetting_nats"]["mean"], arm["learned_nats"]["mean"]
        rows.append([arm_name(arm), f"{forgot:+.2f}", f"{learned:+.2f}", f"{arm['forgetting_points']['mean']:+.1f}"])
    header = [
        pick("方法", "method"),
        pick("遗忘 nats/词元", "forgot, nats/token"),
        pick("学到 nats/词元", "learned, nats/token"),
        pick("遗忘 百分点", "forgot, points"),
    ]
    table(header, rows)

    step(
        3,
        f"存储：{args.tasks} 个任务，{args.tasks} 份完整的模型",
        f"Storage: {args.tasks} tasks, {args.tasks} whole models",
    )
    base, adapter = full["storage"]["checkpoint_bytes"], lora["storage"]["adapter_file_bytes"]
    separate, shared = args.tasks * base, base + args.tasks * adapter
    saved = 100 * (1 - shared / separate)
    full_sum = f"{args.tasks} × {gib(base)} = {gib(separate)} GiB"
    lora_sum = f"{gib(base)} + {args.tasks} × {adapter / 2**20:.0f} MiB = {gib(shared)} GiB"
    say(
        f"全量：{full_sum}；LoRA：{lora_sum}（省 {saved:.1f}%）",
        f"Full: {full_sum}; LoRA: {lora_sum} ({saved:.1f}% less)",
    )

    step(4, f"时间和钱：{args.tokens:,} 个词元", f"Time and money: {args.tokens:,} tokens")
    for method in ("full", "lora"):
        asked = {"model": args.model, "method": method, "recipe": recipe, "gpu": args.gpu, "tokens": args.tokens}
        fit = fit_answer(asked)
        show_cost(method, fit)
    say(
        "LoRA 只省下权重梯度那一份运算（至多三分之一）：它省的主要是显存和存储，不是时间。",
        "LoRA saves only the operations of the weight gradients, a third at most: it mainly saves memory and storage, not time.",
    )


ARMS = {
    "full": ("全量微调", "full fine-tuning"),
    "mixed": ("全量微调，混入旧文本", "full, old text mixed in"),
    "linear": ("只训练线性层（不限秩）", "linear layers only, in full"),
    "lora-full-rank": ("满秩 LoRA，同时训练词嵌入", "LoRA of full rank, embeddings trained too"),
}


def arm_name(arm: dict) -> str:
    """What one arm of the experiment is called."""
    if arm["arm"] in ARMS:
        return pick(*ARMS[arm["arm"]])
    where = pick("，只在 q、v 上", ", q and v only") if arm["arm"].endswith("-qv") else ""
    return pick(f"LoRA，秩 {arm['rank']}{where}", f"LoRA, rank {arm['rank']}{where}")


def measure_forgetting(seed: int) -> dict:
    """Run the quick experiment with a progress bar and return its result."""
    say(
        "先让小模型学会英文散文，再用 Python 代码微调它，看它还记得多少散文（约一两分钟）……",
        "A small model learns English prose and is then fine-tuned on Python code: how much prose does it remember? (a minute or two)",
    )
    result: dict = {}
    with tqdm(total=100, disable=None, leave=False, bar_format="{l_bar}{bar}| {elapsed}") as bar:
        for event in job.run({"budget": "quick", "seed": seed}):
            if event["type"] == "progress":
                bar.n = round(100 * event["done"] / event["total"])
                bar.set_description(str(event["phase"]))
            elif event["type"] == "result":
                result = event
    return result


def show_cost(method: str, fit: dict) -> None:
    """One line for the time and one for the money, each with where the number comes from."""
    time, gpu = fit["time"], fit["gpu"]["name"]
    hours = time["gpu_hours"]
    unknown = pick("未知", "unknown")
    least, expected = (unknown if hours[key] is None else f"{hours[key]:.2f}" for key in ("least", "expected"))
    share = time["rate"]["utilization"]
    say(
        f"{method}：{time['flops']:.2e} 次运算；{gpu} 上至少 {least} 小时，预计 {expected} 小时"
        + ("" if share is None else f"（峰值的 {share:.0%}）"),
        f"{method}: {time['flops']:.2e} operations; on {gpu} at least {least} hours, expected {expected}"
        + ("" if share is None else f" ({share:.0%} of its peak)"),
    )
    for price in time["cost"][:1]:
        if price["expected_usd"] is not None:
            product = f"{expected} h × {price['usd_per_gpu_hour']} USD/h"
            print(f"    {price['expected_usd']:.2f} USD = {product}  [{price['source']}]")
    if not time["cost"]:
        say("    没有已知的价格", "    no price is known")


if __name__ == "__main__":
    run(main)

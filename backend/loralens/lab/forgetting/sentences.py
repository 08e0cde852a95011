"""What was found, in plain sentences with their spread, in English and Chinese.

Each sentence follows the numbers: it says "less", "more" or "not settled" as the interval stands, so a run that
contradicts the usual claim says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

Sentence = dict[str, str]
_MINUS: Final = re.compile(r"(?<![\w.])-(?=\d)")


def findings(result: Mapping[str, Any]) -> list[Sentence]:
    """Sentences about a result of the experiment: [{"id", "en", "zh"}, ...]."""
    summary = result["summary"]
    arms = {arm["arm"]: arm for arm in summary["arms"]}
    comparisons = {entry["arm"]: entry for entry in summary["comparisons"]}
    reference = arms[result["reference_arm"]]
    said: list[Sentence | None] = [_forgot(arms["full"], len(summary["seeds"])), _reference(reference, arms["full"])]
    said.append(_against(reference, comparisons[reference["arm"]]))
    said.append(_equal_learning(reference, comparisons[reference["arm"]]))
    said.append(_rates(summary.get("sweep_at_equal_learning")))
    said.append(_reach(arms, summary))
    said.append(_unstable(arms))
    said.append(_rehearsal(arms["mixed"], arms["full"], comparisons["mixed"]))
    said.append(_spectrum(result, reference))
    said.append(_full_rank(arms, comparisons))
    said.append(_scope(len(summary["seeds"])))
    return [
        {name: _MINUS.sub("−", text) if name != "id" else text for name, text in sentence.items()}
        for sentence in said
        if sentence is not None
    ]


def settled(value: Mapping[str, Any]) -> bool:
    """Whether the 95% confidence interval leaves zero out."""
    return value["low"] is not None and (value["low"] > 0 or value["high"] < 0)


def _range(value: Mapping[str, Any], language: str, digits: int = 2, sign: int = 1) -> str:
    if value["low"] is None:
        return "one run, no interval" if language == "en" else "只有一次运行，没有区间"
    low, high = sorted((sign * value["low"], sign * value["high"]))
    if language == "en":
        return f"95% confidence interval {low:.{digits}f} to {high:.{digits}f}"
    return f"95% 置信区间 {low:.{digits}f} 到 {high:.{digits}f}"


def _forgot(full: Mapping[str, Any], seeds: int) -> Sentence:
    nats, points = full["forgetting_nats"], full["forgetting_points"]
    if not settled(nats):
        return {
            "id": "full_forgets",
            "en": f"Whether full fine-tuning forgot is not settled: {nats['mean']:+.2f} nats per token on the old text "
            f"({_range(nats, 'en')}, {seeds} seeds).",
            "zh": f"全量微调是否遗忘尚无定论：旧文本损失变化 {nats['mean']:+.2f} nats/词元"
            f"（{_range(nats, 'zh')}，{seeds} 个随机种子）。",
        }
    worse = nats["mean"] > 0
    agree_en = "which agree in sign" if nats["same_sign"] else "which disagree in sign"
    agree_zh = "方向一致" if nats["same_sign"] else "方向不一致"
    lost = points["mean"]
    return {
        "id": "full_forgets",
        "en": f"Full fine-tuning on the new text made the old text's loss {'rise' if worse else 'fall'} by "
        f"{abs(nats['mean']):.2f} nats per token ({_range(nats, 'en')}, {seeds} seeds, {agree_en}); "
        f"its next-token accuracy {'fell' if lost > 0 else 'rose'} by {abs(lost):.1f} points.",
        "zh": f"用新文本做全量微调后，旧文本的损失{'上升' if worse else '下降'}了 {abs(nats['mean']):.2f} nats/词元"
        f"（{_range(nats, 'zh')}，{seeds} 个随机种子，{agree_zh}），"
        f"下一词元准确率{'下降' if lost > 0 else '上升'} {abs(lost):.1f} 个百分点。",
    }


def _reference(lora: Mapping[str, Any], full: Mapping[str, Any]) -> Sentence:
    forgot, learned, most = lora["forgetting_nats"], lora["learned_nats"], full["learned_nats"]
    return {
        "id": "lora_learns",
        "en": f"LoRA of rank {lora['rank']} changed it by {forgot['mean']:+.2f} nats ({_range(forgot, 'en')}), "
        f"and learned {learned['mean']:.2f} nats of the new text where full fine-tuning learned {most['mean']:.2f}.",
        "zh": f"秩为 {lora['rank']} 的 LoRA 使旧文本损失变化 {forgot['mean']:+.2f} nats（{_range(forgot, 'zh')}）；"
        f"新文本损失下降 {learned['mean']:.2f} nats，而全量微调下降 {most['mean']:.2f} nats。",
    }


def _verdict(value: Mapping[str, Any]) -> tuple[str, str]:
    if not settled(value):
        return "it is not settled which forgot more", "谁遗忘更多尚无定论"
    return ("LoRA forgot less", "LoRA 遗忘更少") if value["mean"] < 0 else ("LoRA forgot more", "LoRA 遗忘更多")


def _against(lora: Mapping[str, Any], comparison: Mapping[str, Any]) -> Sentence:
    value = comparison["forgetting_nats"]
    en, zh = _verdict(value)
    return {
        "id": "after_equal_steps",
        "en": f"After equally many steps, each method at its own best learning rate: {en} (LoRA minus full "
        f"{value['mean']:+.2f} nats, {_range(value, 'en')}).",
        "zh": f"训练同样步数、各用自己最好的学习率：{zh}（LoRA 减全量 {value['mean']:+.2f} nats，{_range(value, 'zh')}）。",
    }


def _equal_learning(lora: Mapping[str, Any], comparison: Mapping[str, Any]) -> Sentence | None:
    value = comparison["at_equal_learning"]["forgetting_nats"]
    if value is None:
        return None
    en, zh = _verdict(value)
    return {
        "id": "at_equal_learning",
        "en": f"At the moment when both had learned the new text equally well: {en} (LoRA minus full "
        f"{value['mean']:+.2f} nats, {_range(value, 'en')}). "
        "Forgetting less by learning less is not a gain; this comparison takes that away.",
        "zh": f"在两者对新文本学得一样好的时刻：{zh}（LoRA 减全量 {value['mean']:+.2f} nats，{_range(value, 'zh')}）。"
        "学得少自然忘得少，这个对比去掉了这一因素。",
    }


def _rates(sweep: Mapping[str, Any] | None) -> Sentence | None:
    if sweep is None or not {"full", "lora"} <= sweep["families"].keys():
        return None
    full, lora = sweep["families"]["full"], sweep["families"]["lora"]
    return {
        "id": "learning_rates",
        "en": f"The learning rate matters as much as the method: at a new-text loss of {sweep['new_loss']:.2f}, the "
        f"gentlest rate of full fine-tuning ({full['learning_rate']:g}) had cost "
        f"{full['forgetting_nats']:+.2f} nats of the old text, that of LoRA ({lora['learning_rate']:g}) "
        f"{lora['forgetting_nats']:+.2f} (one seed).",
        "zh": f"学习率与方法同样重要：新文本损失同为 {sweep['new_loss']:.2f} 时，全量微调最温和的学习率"
        f"（{full['learning_rate']:g}）使旧文本损失变化 {full['forgetting_nats']:+.2f} nats，"
        f"LoRA（{lora['learning_rate']:g}）为 {lora['forgetting_nats']:+.2f}（单个随机种子）。",
    }


def _reach(arms: Mapping[str, Any], summary: Mapping[str, Any]) -> Sentence:
    full, linear = arms["full"]["learned_nats"]["mean"], arms["linear"]["learned_nats"]["mean"]
    share = linear / full if full > 0 else 0.0
    if share < 1:
        en = (
            f"The missing {1 - share:.0%} is due to the frozen embeddings and norms; only what LoRA lacks beyond that is "
            "due to its rank."
        )
        zh = f"缺的 {1 - share:.0%} 来自被冻结的词嵌入与归一化层；LoRA 在此之外的差距才来自低秩。"
    else:
        en = "Nothing is missing for the frozen embeddings and norms: what LoRA lacks is due to its rank."
        zh = "冻结的词嵌入与归一化层没有造成差距：LoRA 的差距来自低秩。"
    return {
        "id": "frozen_embeddings",
        "en": f"Training only the layers that LoRA can reach, with no limit on rank, learned {share:.0%} of what full "
        f"fine-tuning learned. {en}",
        "zh": f"只训练 LoRA 够得到的层（不限秩），学到了全量微调的 {share:.0%}。{zh}",
    }


def _unstable(arms: Mapping[str, Any]) -> Sentence | None:
    """Arms that did not surely learn anything, or not in every seed: their rate was too high (or too low) for them."""
    failed = [arm for arm in arms.values() if not settled(arm["learned_nats"]) or arm["learned_nats"]["mean"] <= 0]
    if not failed:
        return None
    names = ", ".join(f"{arm['arm']} ({arm['learning_rate']:g})" for arm in failed)
    return {
        "id": "unstable",
        "en": f"Did not learn reliably at the chosen learning rate: {names}. Its forgetting is that of a training run "
        "that went wrong, not of its rank.",
        "zh": f"在选定的学习率下没有稳定学会：{names}。它的遗忘来自训练失稳，而不是来自它的秩。",
    }


def _rehearsal(mixed: Mapping[str, Any], full: Mapping[str, Any], comparison: Mapping[str, Any]) -> Sentence:
    value = comparison["forgetting_nats"]
    cost = comparison["new_loss"]["mean"]
    fact = settled(value)
    less = value["mean"] < 0
    en = ("less" if less else "more") if fact else "not measurably differently"
    zh = ("更少" if less else "更多") if fact else "没有可测的差别"
    return {
        "id": "rehearsal",
        "en": f"Mixing {mixed['mix']:.0%} old text into full fine-tuning forgot {en} ({value['mean']:+.2f} nats, "
        f"{_range(value, 'en')}); the loss on the new text changed by {cost:+.2f} nats.",
        "zh": f"在全量微调中混入 {mixed['mix']:.0%} 旧文本，遗忘{zh}（{value['mean']:+.2f} nats，{_range(value, 'zh')}），"
        f"新文本损失变化 {cost:+.2f} nats。",
    }


def _spectrum(result: Mapping[str, Any], reference: Mapping[str, Any]) -> Sentence | None:
    spectra = result.get("spectrum")
    if not spectra:
        return None
    entry = next((e for e in spectra["linear"]["energy"] if e["rank"] == reference["rank"]), None)
    if entry is None:
        return None
    share, chance = entry["share"]["mean"], entry["random_share"]
    return {
        "id": "spectrum",
        "en": f"Rank {reference['rank']} holds {share:.0%} of the energy of the linear layers' real ΔW; of a "
        f"random matrix of the same shape it would hold {chance:.0%}.",
        "zh": f"线性层真实改动 ΔW 的能量有 {share:.0%} 落在前 {reference['rank']} 个奇异方向；"
        f"同样形状的随机矩阵只有 {chance:.0%}。",
    }


def _full_rank(arms: Mapping[str, Any], comparisons: Mapping[str, Any]) -> Sentence | None:
    if "lora-full-rank" not in arms:
        return None
    gap = comparisons["lora-full-rank"]["new_loss"]
    learned = arms["full"]["learned_nats"]["mean"]
    share = 1 - gap["mean"] / learned if learned > 0 else 0.0
    return {
        "id": "full_rank",
        "en": f"Check: LoRA of full rank with embeddings and norms trained as well learned {share:.0%} of what full "
        f"fine-tuning learned (new-text loss {gap['mean']:+.2f} nats, {_range(gap, 'en')}).",
        "zh": f"核对：满秩 LoRA（同时训练词嵌入与归一化层）学到全量微调的 {share:.0%}"
        f"（新文本损失相差 {gap['mean']:+.2f} nats，{_range(gap, 'zh')}）。",
    }


def _scope(seeds: int) -> Sentence:
    return {
        "id": "scope",
        "en": f"What the intervals cover: {seeds} random orders of the data and initialisations of the adapters, for one "
        "base model and one pair of texts. Biderman et al. (arXiv:2405.09673) measured models of 7 billion parameters on code and "
        "mathematics: there LoRA learned less and forgot less.",
        "zh": f"区间的含义：同一底座、同一对文本，{seeds} 种随机的数据顺序与适配器初值，不代表其他模型。"
        "Biderman 等（arXiv:2405.09673）在 70 亿参数模型的代码与数学任务上测得：LoRA 学得更少，忘得也更少。",
    }

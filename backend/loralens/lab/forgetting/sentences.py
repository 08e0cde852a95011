"""What was found, in plain sentences with their spread: which ones hold, and with which numbers; the words are in `locales/`.

Each sentence follows the numbers: it says "less", "more" or "not settled" as the interval stands, so a run that
contradicts the usual claim says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypedDict

from loralens.core.texts import Both, Texts

TEXTS: Final = Texts(__package__)
_MINUS: Final = re.compile(r"(?<![\w.])-(?=\d)")


class Sentence(TypedDict):
    """One finding, in both languages."""

    id: str
    en: str
    zh: str


def findings(result: Mapping[str, Any]) -> list[Sentence]:
    """Sentences about a result of the experiment."""
    summary = result["summary"]
    arms = {arm["arm"]: arm for arm in summary["arms"]}
    comparisons = {entry["arm"]: entry for entry in summary["comparisons"]}
    reference = arms[result["reference_arm"]]
    compared = comparisons[reference["arm"]]
    seeds = len(summary["seeds"])
    said = {
        "full_forgets": _forgot(arms["full"], seeds),
        "lora_learns": _reference(reference, arms["full"]),
        "after_equal_steps": _compared("after_equal_steps", compared["forgetting_nats"]),
        "at_equal_learning": _compared("at_equal_learning", compared["at_equal_learning"]["forgetting_nats"]),
        "learning_rates": _rates(summary.get("sweep_at_equal_learning")),
        "frozen_embeddings": _reach(arms),
        "unstable": _unstable(arms),
        "rehearsal": _rehearsal(arms["mixed"], comparisons["mixed"]),
        "spectrum": _spectrum(result, reference),
        "full_rank": _full_rank(arms, comparisons),
        "scope": TEXTS("scope", seeds=seeds),
    }
    return [
        {"id": name, "en": _MINUS.sub("−", text["en"]), "zh": _MINUS.sub("−", text["zh"])}
        for name, text in said.items()
        if text is not None
    ]


def settled(value: Mapping[str, Any]) -> bool:
    """Whether the 95% confidence interval leaves zero out."""
    return value["low"] is not None and (value["low"] > 0 or value["high"] < 0)


def _range(value: Mapping[str, Any]) -> Both:
    if value["low"] is None:
        return TEXTS("range.none")
    return TEXTS("range", low=value["low"], high=value["high"])


def _forgot(full: Mapping[str, Any], seeds: int) -> Both:
    nats, lost = full["forgetting_nats"], full["forgetting_points"]["mean"]
    if not settled(nats):
        return TEXTS("full_forgets.not_settled", nats=nats["mean"], range=_range(nats), seeds=seeds)
    return TEXTS(
        "full_forgets",
        moved=TEXTS("loss.rise" if nats["mean"] > 0 else "loss.fall"),
        nats=abs(nats["mean"]),
        range=_range(nats),
        seeds=seeds,
        agree=TEXTS("sign.same" if nats["same_sign"] else "sign.other"),
        accuracy=TEXTS("accuracy.fell" if lost > 0 else "accuracy.rose"),
        points=abs(lost),
    )


def _reference(lora: Mapping[str, Any], full: Mapping[str, Any]) -> Both:
    forgot = lora["forgetting_nats"]
    return TEXTS(
        "lora_learns",
        rank=lora["rank"],
        nats=forgot["mean"],
        range=_range(forgot),
        learned=lora["learned_nats"]["mean"],
        most=full["learned_nats"]["mean"],
    )


def _compared(name: str, value: Mapping[str, Any] | None) -> Both | None:
    """LoRA minus full fine-tuning, with the verdict that the interval allows."""
    if value is None:
        return None
    forgot = "less" if value["mean"] < 0 else "more"
    verdict = TEXTS(f"verdict.{forgot}" if settled(value) else "verdict.not_settled")
    return TEXTS(name, verdict=verdict, nats=value["mean"], range=_range(value))


def _rates(sweep: Mapping[str, Any] | None) -> Both | None:
    if sweep is None or not {"full", "lora"} <= sweep["families"].keys():
        return None
    full, lora = sweep["families"]["full"], sweep["families"]["lora"]
    return TEXTS(
        "learning_rates",
        loss=sweep["new_loss"],
        full_rate=full["learning_rate"],
        full_nats=full["forgetting_nats"],
        lora_rate=lora["learning_rate"],
        lora_nats=lora["forgetting_nats"],
    )


def _reach(arms: Mapping[str, Any]) -> Both:
    full, linear = arms["full"]["learned_nats"]["mean"], arms["linear"]["learned_nats"]["mean"]
    share = linear / full if full > 0 else 0.0
    rest = TEXTS("frozen_embeddings.cost", missing=1 - share) if share < 1 else TEXTS("frozen_embeddings.free")
    return TEXTS("frozen_embeddings", share=share, rest=rest)


def _unstable(arms: Mapping[str, Any]) -> Both | None:
    """Arms that did not surely learn anything, or not in every seed: their rate was too high (or too low) for them."""
    failed = [arm for arm in arms.values() if not settled(arm["learned_nats"]) or arm["learned_nats"]["mean"] <= 0]
    if not failed:
        return None
    return TEXTS("unstable", names=", ".join(f"{arm['arm']} ({arm['learning_rate']:g})" for arm in failed))


def _rehearsal(mixed: Mapping[str, Any], comparison: Mapping[str, Any]) -> Both:
    value = comparison["forgetting_nats"]
    forgot = "less" if value["mean"] < 0 else "more"
    return TEXTS(
        "rehearsal",
        mix=mixed["mix"],
        forgot=TEXTS(f"rehearsal.{forgot}" if settled(value) else "rehearsal.alike"),
        nats=value["mean"],
        range=_range(value),
        cost=comparison["new_loss"]["mean"],
    )


def _spectrum(result: Mapping[str, Any], reference: Mapping[str, Any]) -> Both | None:
    spectra = result.get("spectrum")
    if not spectra:
        return None
    entry = next((e for e in spectra["linear"]["energy"] if e["rank"] == reference["rank"]), None)
    if entry is None:
        return None
    share, chance = entry["share"]["mean"], entry["random_share"]
    return TEXTS("spectrum", rank=reference["rank"], share=share, chance=chance)


def _full_rank(arms: Mapping[str, Any], comparisons: Mapping[str, Any]) -> Both | None:
    if "lora-full-rank" not in arms:
        return None
    gap = comparisons["lora-full-rank"]["new_loss"]
    learned = arms["full"]["learned_nats"]["mean"]
    share = 1 - gap["mean"] / learned if learned > 0 else 0.0
    return TEXTS("full_rank", share=share, nats=gap["mean"], range=_range(gap))

"""What rank would do, from data: PEFT's own comparison of methods, and no word beyond what it measured.

Source: huggingface/peft 5d602fd method_comparison/MetaMathQA/results: one run for each row, with the figures of its file;
right answers are the test accuracy times the 1,319 questions of GSM8K.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from loralens.core.architecture.registry import build
from loralens.core.methods.adapters import settled
from loralens.core.question.lora import Lora
from loralens.planner.question import Question, read_question
from loralens.planner.texts import TEXTS

if TYPE_CHECKING:
    from loralens.core.texts import Both
    from loralens.planner.rank_shapes import RankAnswer, RankRun, RankSetting

DATA: Final = Path(__file__).with_name("ranks.json")
NAMES: Final = {"lora": "LoRA", "qlora": "QLoRA", "dora": "DoRA"}
KINDS: Final = {
    "rslora": "rsLoRA",
    "dora": "DoRA",
    "bdlora": "BD-LoRA",
    "mica": "MiCA",
    "lora-fa": "LoRA-FA",
}
"""What PEFT's documentation calls the variants that its runs name."""
CLEAR: Final = 2.0
"""Standard errors from which on a difference is called one: about 95% of chance's own differences are smaller."""


def ranks_answer(body: Any) -> RankAnswer:
    """`POST /api/ranks`: what is known of the quality of the question's rank.

    Raises:
        InvalidInput: something in the body is unknown or malformed.
        UnknownModel: nothing has that name.
    """
    question, _ = read_question(body)
    setting, rows = _published()
    targets = _targets(question)
    measured = next((row for row in rows if _is(row, question, targets)), None) if _as_run(question, setting) else None
    verdict = [_unknown(question, setting, rows, targets)] if measured is None else _said(measured, rows, setting)
    adapted = question.method != "full"
    return {
        "model": question.model.name,
        "method": question.method,
        "rank": question.recipe.lora.rank if adapted else None,
        "target_modules": targets if adapted else [],
        "known": measured is not None,
        "verdict": verdict,
        "limits": _limits(setting),
        "measured": measured,
        "rows": rows,
        "setting": setting,
        "source": _raw()["source"],
    }


@cache
def _raw() -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(DATA.read_text("utf-8")))


def _published() -> tuple[RankSetting, list[RankRun]]:
    raw = _raw()
    setting: RankSetting = raw["setting"]
    questions = setting["test_questions"]
    rows: list[RankRun] = []
    for row in raw["rows"]:
        share = row["right_answers"] / questions
        added = {
            "title": _name(row),
            "accuracy": share,
            "standard_error": math.sqrt(share * (1 - share) / questions),
        }
        rows.append(cast("RankRun", row | added))
    return setting, rows


def _as_run(question: Question, setting: RankSetting) -> bool:
    """Whether all that the runs have in common holds for the question."""
    lora = question.recipe.lora
    same = replace(Lora(), rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, target_modules=lora.target_modules,
                   adapter_dtype=lora.adapter_dtype, use_dora=lora.use_dora, use_rslora=lora.use_rslora)  # fmt: skip
    plain = question.recipe.quantization is None and lora == same
    return question.model.id == setting["model"] and question.method in ("full", "lora", "dora") and plain


def _is(row: RankRun, question: Question, targets: list[str]) -> bool:
    if question.method == "full":
        return row["peft_type"] is None
    lora = question.recipe.lora
    asked = (lora.rank, lora.alpha, targets, _variant(question))
    return row["peft_type"] == "LORA" and asked == (row["rank"], row["alpha"], row["target_modules"], row["variant"])


def _targets(question: Question) -> list[str]:
    """The layers as the last part of their names; a pattern or `all-linear` as it was given."""
    targets = settled(build(question.model.config), question.recipe.lora).target_modules or ()
    return [targets] if isinstance(targets, str) else sorted(targets)


def _variant(question: Question) -> list[str]:
    lora = question.recipe.lora
    flags = (("rslora", lora.use_rslora), ("dora", lora.use_dora or question.method == "dora"))
    return [name for name, on in flags if on]


def _unknown(question: Question, setting: RankSetting, rows: list[RankRun], targets: list[str]) -> Both:
    if not _as_run(question, setting):
        return TEXTS(
            "ranks.elsewhere",
            model=question.model.name,
            method=NAMES.get(question.method, question.method),
            measured=setting["model_name"],
        )
    there = [_name(row) for row in rows if row["peft_type"] == "LORA" and _comparable(row)]
    lora = question.recipe.lora
    asked = _named(_variant(question), lora.rank, lora.alpha, targets)
    return TEXTS("ranks.not_run", asked=asked, there=_listed(there, "ranks.semicolon"))


def _said(measured: RankRun, rows: list[RankRun], setting: RankSetting) -> list[Both]:
    share, error = _percent(measured["accuracy"]), _percent(measured["standard_error"])
    questions = setting["test_questions"]
    alpha = TEXTS("ranks.alpha", alpha=measured["alpha"]) if measured["alpha"] else ""
    said = [
        TEXTS(
            "ranks.measured",
            right=measured["right_answers"],
            questions=questions,
            share=share,
            error=error,
            alpha=alpha,
        )
    ]
    for other in rows:
        if (
            other["name"] != measured["name"]
            and other["peft_type"] == "LORA" == measured["peft_type"]
            and _comparable(other)
        ):
            said.append(_beside(measured, other))
    return said


def _comparable(row: RankRun) -> bool:
    return set(row["variant"]) <= {"rslora", "dora"}


def _beside(one: RankRun, other: RankRun) -> Both:
    difference = other["accuracy"] - one["accuracy"]
    error = math.hypot(one["standard_error"], other["standard_error"])
    clear = abs(difference) >= CLEAR * error
    points, noise = f"{100 * difference:+.1f}", f"{100 * error:.1f}"
    parameters = other["trainable_parameters"] / one["trainable_parameters"]
    memory = other["reserved_bytes"] / one["reserved_bytes"] - 1
    seconds = other["train_seconds"] / one["train_seconds"] - 1
    return TEXTS(
        "ranks.beside",
        name=other["title"],
        points=points,
        noise=noise,
        chance=TEXTS("ranks.clear" if clear else "ranks.chance"),
        parameters=f"{parameters:.2g}×",
        memory=_change(memory),
        time=_change(seconds),
    )


def _name(row: Mapping[str, Any]) -> Both:
    """A run in words, from its recipe; of methods that have no such words PEFT's own name of it."""
    if row["peft_type"] is None:
        return TEXTS("ranks.full")
    if row["peft_type"] != "LORA":
        return {"zh": row["name"], "en": row["name"]}
    return _named(row["variant"], row["rank"], row["alpha"], row["target_modules"])


def _named(variant: list[str], rank: int, alpha: float, targets: list[str]) -> Both:
    kind = " + ".join(KINDS[one] for one in variant) or NAMES["lora"]
    names: list[Both] = [{"zh": target, "en": target} for target in targets]
    return TEXTS("ranks.name", kind=kind, rank=rank, alpha=alpha, targets=_listed(names, "ranks.comma"))


def _listed(rows: Sequence[Both], between: str) -> Both:
    mark = TEXTS(between)
    return {"zh": mark["zh"].join(row["zh"] for row in rows), "en": mark["en"].join(row["en"] for row in rows)}


def _change(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}%"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _limits(setting: RankSetting) -> list[Both]:
    return [
        TEXTS(
            "ranks.limit.one",
            model=setting["model_name"],
            data=setting["train_data"],
            tests=TEXTS("ranks.tests"),
            steps=setting["steps"],
            rows=setting["micro_batch_size"],
        ),
        TEXTS("ranks.limit.seed", questions=setting["test_questions"]),
        TEXTS("ranks.limit.rate"),
        TEXTS("ranks.limit.card", gpu=setting["gpu"]),
    ]

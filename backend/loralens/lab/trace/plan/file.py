"""The file of `loralens trace --plan`: the model's config.json with its traced plans in it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from loralens.core.answer.answers import read_body
from loralens.core.answer.traced import plan_row
from loralens.core.answer.trainer import trained
from loralens.core.errors import InvalidInput, LoraLensError
from loralens.core.methods import COMPARED
from loralens.core.question.traced import FORMAT, TRACED
from loralens.extras import needing
from loralens.lab.trace.answer import PACKAGES, versions
from loralens.lab.trace.limits import check as traceable

if TYPE_CHECKING:
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe
    from loralens.lab.trace.ledger import Recorded
    from loralens.lab.trace.plan.made import Fitted
    from loralens.lab.trace.plan.sizes import Setting

_OWN_KEYS: Final = (TRACED, "_name_or_path")


def check(body: Mapping[str, Any]) -> tuple[Model, tuple[str, ...], Recipe]:
    """What is to be traced; all three compared methods where none is named.

    Raises:
        InvalidInput, UnknownModel: as `POST /api/memory`, and for words that a trace does not know.
    """
    model, methods, recipe, _gpus = read_body({**body, "config": _plain(body["config"])} if "config" in body else body)
    if "method" not in body and "methods" not in body:
        methods = COMPARED
    if recipe.optimizer.startswith("paged_"):
        raise InvalidInput(
            f"optimizer {recipe.optimizer} cannot be part of a traced plan: its states lie in host memory, which no trace sees",
            field="recipe.optimizer",
            hint=f"try optimizer={recipe.optimizer.removeprefix('paged_')}",
        )
    for method in methods:
        traceable(method, trained(model, method, recipe))
    return model, methods, recipe


def plan_events(body: Mapping[str, Any], file: str | None = None) -> Iterator[dict[str, object]]:
    """`progress` before each trace, then one `result`: {config, plans, refused, seconds}.

    `file`: `FILE.py:FUNCTION` of the command line, which builds the model in the config's place.

    A method that the real libraries refuse is left out, and named in `refused` with their reason.

    Raises:
        InvalidInput, UnknownModel, UnsupportedArchitecture, DependencyMissing: see `check` and `case.record`; also where
            every method is refused.
    """
    model, methods, asked = check(body)
    with needing("trace", "tracing"):
        from loralens.lab.trace import case
        from loralens.lab.trace.build import usual_targets
        from loralens.lab.trace.diffusion import CLASS, KNOWN
        from loralens.lab.trace.plan.made import plans, setting_of
    kind = str(model.config.get(CLASS))
    usual = KNOWN[kind][1] if kind in KNOWN else usual_targets(model.config.get("model_type"))
    started = time.perf_counter()
    rows: list[dict[str, object]] = []
    shown: list[dict[str, object]] = []
    refused: list[dict[str, object]] = []
    first: LoraLensError | None = None
    parameters = 0
    for method in methods:
        yield {"type": "progress", "method": method}
        recipe = trained(model, method, asked)

        def trace(setting: Setting, method: str = method, recipe: Recipe = recipe) -> Recorded:
            return case.recorded(model.config, method, setting_of(recipe, setting), file)[0]

        try:
            found = plans(model.config, method, replace(recipe, left_open=frozenset()), trace, usual)
        except LoraLensError as problem:
            first = first or problem
            refused.append({"method": method, "code": problem.code, "detail": problem.message})
            continue
        rows += [plan_row(one.plan, targets_open=recipe.lora.target_modules is None) for one in found]
        shown += [_shown(one) for one in found]
        plan = found[0].plan
        base = sum(item.parameter.numel[0] * item.count for item in plan.held if item.parameter.role == "base")
        parameters = max(parameters, base)
    if not rows:
        assert first is not None
        raise first
    plain = {name: value for name, value in model.config.items() if name not in _OWN_KEYS}
    source = ", ".join(f"{name} {text}" for name, text in versions().items() if text and name in PACKAGES)
    traced = {"format": FORMAT, "source": source, "parameters": parameters, "plans": rows}
    config = {**plain, "_name_or_path": kind if kind in KNOWN else model.name, TRACED: traced}
    yield {
        "type": "result",
        "config": config,
        "plans": shown,
        "refused": refused,
        "seconds": round(time.perf_counter() - started, 1),
    }


def _plain(config: Any) -> Any:
    """Without the plans that an earlier trace left: they would answer in place of the model."""
    return {k: v for k, v in config.items() if k != TRACED} if isinstance(config, Mapping) else config


def _shown(one: Fitted) -> dict[str, object]:
    validity = one.plan.validity
    return {
        "method": one.plan.method,
        "fitted": [list(setting) for setting in one.fitted],
        "checked": [list(setting) for setting in one.checked],
        "valid": {name: list(bounds) for name, bounds in validity.ranges.items()},
        "remainders": {name: list(pair) for name, pair in validity.remainders.items()},
        "moments": len(one.plan.moments),
        "notes": one.plan.assumptions,
    }

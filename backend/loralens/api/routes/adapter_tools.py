"""What is done with adapters that are sent: the doctor, comparing, merging, making plain, converting. Nothing of them is kept.

The last three answer an archive, `adapter/` and `report.json`; the report stands in the header `x-report` too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

from loralens.api.adapter_forms import MOST_ADAPTERS, Form, documented_form
from loralens.api.adapter_work import Made, Work
from loralens.api.answers import respond
from loralens.api.lab import NEEDS_LAB
from loralens.api.problems import documented
from loralens.api.shape import shape
from loralens.api.uploads import MAX_UPLOAD_BYTES
from loralens.core.errors import InvalidInput
from loralens.lab.adapters.answers import ComparisonAnswer, DiagnosisAnswer

router = APIRouter(tags=["adapters"])

Base = Annotated[
    str | None, Query(max_length=300, description="A model's name; or send its config.json as base_config.")
]
_CHUNK: Final = 2**18
_ARCHIVE: Final[dict[int | str, dict[str, object]]] = {
    200: {
        "content": {"application/zip": {}},
        "headers": {"x-report": {"description": "The archive's report.json.", "schema": {"type": "string"}}},
    }
}
_REFUSED: Final = documented(400, 404, 413, 415, 422, 503)


def _route(path: str, summary: str, most: int, *, base: bool = False, **more: Any) -> Callable[[Any], Any]:
    return router.post(
        f"/adapters/{path}",
        summary=summary,
        dependencies=NEEDS_LAB,
        openapi_extra=documented_form(most, base=base),
        max_body_size=MAX_UPLOAD_BYTES,
        **more,
    )


@_route(
    "doctor",
    "Say what is wrong with an adapter",
    1,
    base=True,
    response_model=shape(DiagnosisAnswer),
    responses=_REFUSED,
)
def examine(
    form: Form,
    work: Work,
    base: Base = None,
    engine: Annotated[Literal["peft", "vllm", "sglang", "llama.cpp", "mlx"] | None, Query()] = None,
) -> Response:
    """What it is, why it is so and what to do, the gravest first; one of the two files suffices, and it may be broken."""
    words = _base_words(form.base_config, base)
    return respond(work.of_form("doctor", form, {"engine": engine, **words}, whole=False))


@_route("compare", "Compare two adapters", 2, response_model=shape(ComparisonAnswer), responses=_REFUSED)
def compare(
    form: Form,
    work: Work,
    energy: Annotated[float, Query(gt=0, le=1, description="Share that the compared directions carry.")] = 0.99,
) -> Response:
    """Cosine and difference of their updates, and angles between the directions they use, module by module."""
    return respond(work.of_form("compare", form, {"energy": energy}, whole=True, least=2, most=2))


@_route("merge", "Merge adapters", MOST_ADAPTERS, response_class=Response, responses=_REFUSED | _ARCHIVE)
def merge(
    form: Form,
    work: Work,
    combination: Annotated[str, Query(max_length=40, description="PEFT's combination_type.")] = "svd",
    weights: Annotated[
        str | None, Query(max_length=300, description="One for each, with commas; 1 for each if left out.")
    ] = None,
    rank: Annotated[int | None, Query(ge=1, le=4096, description="Of the result, for combinations with svd.")] = None,
    density: Annotated[float, Query(gt=0, le=1)] = 0.5,
    signs: Annotated[Literal["total", "frequency"], Query()] = "total",
    seed: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> Response:
    """As PEFT's add_weighted_adapter does; the report says how far the result is from the weighted sum."""
    given = None if weights is None else [_number(text) for text in weights.split(",")]
    words = {
        "combination": combination,
        "weights": given,
        "rank": rank,
        "density": density,
        "signs": signs,
        "seed": seed,
    }
    made = work.made("merge", form, words, whole=True, least=2, most=MOST_ADAPTERS)
    return _archive(made, "merged.zip")


@_route(
    "plain", "Make PiSSA, OLoRA, CorDA or LoRA-GA plain LoRA", 2, response_class=Response, responses=_REFUSED | _ARCHIVE
)
def plain(form: Form, work: Work) -> Response:
    """As PEFT's path_initial_model_for_weight_conversion: the trained adapter first, then the one from before training."""
    return _archive(work.made("plain", form, {}, whole=True, least=2, most=2), "plain.zip")


@_route("convert", "Convert an adapter", 1, base=True, response_class=Response, responses=_REFUSED | _ARCHIVE)
def convert(
    form: Form,
    work: Work,
    to: Annotated[Literal["peft", "mlx", "kohya", "diffusers", "torchtune"], Query()],
    base: Base = None,
    alpha: Annotated[
        float | None, Query(gt=0, le=1e6, description="lora_alpha, where the files do not say it.")
    ] = None,
) -> Response:
    """Into another tool's format; what was written is read back and compared before it is answered."""
    words = _base_words(form.base_config, base)
    return _archive(work.made("convert", form, {"to": to, "alpha": alpha, **words}, whole=False), f"{to}.zip")


def _base_words(config: bytes | None, base: str | None) -> dict[str, str | None]:
    if config is not None and base is not None:
        raise InvalidInput("give base or base_config, not both", field="base")
    return {"base": base or None, "base_config": None if config is None else config.decode("utf-8", "replace")}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"{text[:40]!r} is not a number", field="weights", hint="weights=0.7,0.3") from None


def _archive(made: Made, name: str) -> Response:
    return StreamingResponse(
        iter(lambda: made.archive.read(_CHUNK), b""),
        media_type="application/zip",
        headers={
            "content-disposition": f'attachment; filename="{name}"',
            "content-length": str(made.size),
            "x-report": json.dumps(made.answer),
        },
        background=BackgroundTask(made.archive.close),
    )

"""Does it fit, what is the largest step that fits, and what would make it fit.

A GPU fits when its memory covers the peak with the fragmentation that the allocator cannot return and the CUDA context
(`needed_bytes`, see `core.answer.overhead`), so the answer is cautious.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from loralens.core import catalogue
from loralens.core.answer.moments import unified_note
from loralens.core.answer.pace import NEARLY_FULL
from loralens.core.answer.remarks import idle_words
from loralens.core.answer.traced import covered, holds
from loralens.core.catalogue import ON_DEMAND, Gpu
from loralens.core.errors import InvalidInput
from loralens.core.time.links import with_measured_link
from loralens.planner.advice import advise, held_weights
from loralens.planner.amount import AMOUNTS, is_asked, tokens_of
from loralens.planner.beside import fits_card
from loralens.planner.pace import pace
from loralens.planner.question import Question, read_question
from loralens.planner.quicker import quicker
from loralens.planner.time import training_time, withheld

if TYPE_CHECKING:
    from loralens.planner.shapes import AlikeTime, FitAnswer, Largest, Said, Time


VARIABLES: Final = ("micro_batch_size", "sequence_length", "rank")
LARGEST: Final = {"micro_batch_size": 65_536, "sequence_length": 1_048_576, "rank": 65_536}
FULL: Final = "the card is nearly full: published runs above 98.6% of a card's memory took 6 to 40% longer"
LEAST_LINK, MOST_LINK = 1e6, 1e13  # bytes a second; they catch slips of unit
OWN_WORDS: Final = ("gpu", *AMOUNTS, "utilization", "market", "link_bytes_per_second")


def fit_answer(body: Any) -> FitAnswer:
    """`POST /api/fit`: verdict, largest values, changes that help, and time and cost when `tokens` are given.

    Raises:
        InvalidInput: no GPU, several methods, or anything else in the body that is unknown or malformed.
        UnknownModel, UnknownGpu: nothing has that name.
    """
    question, own = read_question(body, OWN_WORDS)
    if own.get("gpu") is None:
        raise InvalidInput(
            "no GPU was named", field="gpu", hint="try gpu=rtx-4090 or custom:24GiB; GET /api/gpus lists all names"
        )
    device = _in_its_machine(catalogue.gpu(own["gpu"]), question, own.get("link_bytes_per_second"))
    paid = is_asked(own)
    if own.get("utilization") is not None and not paid:
        raise InvalidInput(
            "utilization says how long tokens take, and no tokens are given",
            field="utilization",
            hint="try tokens=10000000",
        )
    if own.get("market") is not None and not paid:
        raise InvalidInput(
            "market says at which prices tokens are paid, and no tokens are given",
            field="market",
            hint="try tokens=10000000",
        )
    market = ON_DEMAND if own.get("market") is None else own["market"]
    time: Time | None = None
    if paid and question.model.traced is None:  # a trace counts no operations
        tokens = tokens_of(question, own)
        one = training_time(question, device, tokens, own.get("utilization"), market)
        known = one["gpu_hours"]["expected"] is not None
        time = {**one, "alike": [] if known else pace(question, device, tokens, market)}
    found = question.estimate()
    if (
        time is not None
        and not time["withheld"]
        and NEARLY_FULL * device.memory_bytes <= found.overhead.device[1] <= device.memory_bytes
    ):
        time["assumptions"].append(FULL)
    needed, judged = needed_bytes(question), found.fits([device.id])[0]
    return {
        "model": question.model_dict(),
        "method": question.method,
        "regime": found.plan.regime,
        "recipe": found.recipe.to_dict(),
        "gpu": {
            "id": device.id,
            "name": device.name,
            "memory_bytes": device.memory_bytes,
            "memory_basis": device.memory_basis,
        },
        "verdict": judged["verdict"],
        "decided_by": judged["decided_by"],
        "peak": found.to_dict(())["peak"],
        "needed_bytes": needed,
        "headroom_bytes": device.memory_bytes - needed,
        "largest": {name: largest(question, device, name) for name in VARIABLES if applies(question, name)},
        "quicker": quicker(question, device),
        "advice": None if fits_card(question, device) else advise(question, device),
        "without_effect": idle_words(found.plan, found.recipe),
        "remarks": [*found.remarks(), *unified_note(device)],
        "time": time,
    }


def _in_its_machine(device: Gpu, question: Question, link: Any) -> Gpu:
    """The card with its machine's links, where their rate is given.

    Raises:
        InvalidInput: the rate is out of range, or there is one GPU.
    """
    if link is None:
        return device
    if isinstance(link, bool) or not isinstance(link, (int, float)) or not LEAST_LINK <= link <= MOST_LINK:
        raise InvalidInput(
            f"link_bytes_per_second must be from {LEAST_LINK:g} to {MOST_LINK:g}, got {link!r:.40}",
            field="link_bytes_per_second",
            hint="try 10e9; loralens bench --calibrate measures it",
        )
    if 1 in (question.recipe.parallelism.gpus, question.recipe.parallelism.machine_gpus):
        raise InvalidInput(
            "a link is between GPUs of a machine, and there is one",
            field="link_bytes_per_second",
            hint="try gpus=2, strategy=fsdp",
        )
    return with_measured_link(device, float(link))


def batch_by_length(body: Any, lengths: Iterable[int]) -> list[tuple[int, int | None]]:
    """The largest batch that safely fits for each length, up to what the model was made for; None where not even 1 does.

    Of a traced model, lengths whose smallest traced batch is too large are left out: a smaller one may fit.
    """
    question, own = read_question(body, OWN_WORDS)
    device = catalogue.gpu(own["gpu"])
    context = question.model.config.get("max_position_embeddings")
    longest = context if isinstance(context, int) else LARGEST["sequence_length"]
    traced = question.model.traced
    rows = [
        (length, largest(question.with_("sequence_length", length), device, "micro_batch_size"))
        for length in lengths
        if question.estimate().plan.least_length <= length <= longest
        and (traced is None or holds(traced, question.method, question.recipe, "sequence_length", length))
    ]
    return [(length, row["value"]) for length, row in rows if row["value"] or row["bounded_by"] == "memory"]


def withheld_of(body: Any) -> Said | None:
    """Why nothing is said of how long it takes; see `withheld`."""
    question, own = read_question(body, OWN_WORDS)
    return withheld(question, catalogue.gpu(own["gpu"]))


def pace_of(body: Any, tokens: int) -> list[AlikeTime]:
    """How long that many tokens take; see `pace`."""
    question, own = read_question(body, OWN_WORDS)
    return pace(question, catalogue.gpu(own["gpu"]), tokens)


def applies(question: Question, variable: str) -> bool:
    """False for rank when there is no adapter."""
    return variable != "rank" or question.method != "full"


def needed_bytes(question: Question) -> int:
    """What a card must have: the peak with fragmentation and context."""
    return question.estimate().overhead.needed[1]


def largest(question: Question, device: Gpu, variable: str) -> Largest:
    """The largest value of one variable, all else as asked, with which the step still fits.

    Found by bisection: a step never needs less memory for a larger batch, length or rank. `value` is None where not
    even the smallest fits: 1, the length of a sample's pictures, or of a traced model what was traced; `bounded_by` says
    whether memory or the range of the question ended the search.
    """
    values, traced = _values(question, variable), question.model.traced is not None
    high = len(values)
    low = 0

    def fits(place: int) -> bool:
        return fits_card(question.with_(variable, values[place - 1]), device)

    if not values or held_weights(question) > device.memory_bytes:
        pass
    elif fits(high):
        low = high
    else:
        # Gallop first: the answer is usually near the value asked for, and large values cost a new plan each.
        step = 1
        while step < high and fits(step):
            low, step = step, step * 2
        high = min(step, high)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
    result: Largest = {
        "value": values[low - 1] if low else None,
        "asked": question.get(variable),
        "bounded_by": "range" if low == len(values) or (not low and traced and values[0] > 1) else "memory",
    }
    if low:
        found = question.with_(variable, values[low - 1]).estimate()
        result["peak_allocated_bytes"] = found.allocated_bytes
        result["needed_bytes"] = found.overhead.needed[1]
    context = question.model.config.get("max_position_embeddings")
    if variable == "sequence_length" and isinstance(context, int):
        result["model_context"] = context
    return result


def _values(question: Question, variable: str) -> range:
    """From 1 upwards, or from the length of a sample's pictures; of a traced model, what its plans cover."""
    if question.model.traced is None:
        least = question.estimate().plan.least_length if variable == "sequence_length" else 1
        return range(least, _upper(question, variable) + 1)
    return covered(question.model.traced, question.method, question.recipe, variable)


def _upper(question: Question, variable: str) -> int:
    if variable == "rank":
        # A rank above the width of the matrix adds parameters, but nothing that a smaller one could not express.
        width = question.model.config.get("hidden_size")
        return min(LARGEST["rank"], width) if isinstance(width, int) and width > 0 else LARGEST["rank"]
    return LARGEST[variable]

"""`loralens plan`: the memory formula as coefficients."""

from __future__ import annotations

from loralens.cli.options import Body, Json, takes_recipe
from loralens.cli.render import line, print_json

EXAMPLES = (
    ("loralens plan 7B --json", "the coefficients, for a program of your own"),
    ("loralens plan 8B -m qlora --gradient-checkpointing --json", "of one method and one set-up"),
    ("loralens plan 7B", "how many terms the formula has"),
)


@takes_recipe
def command(body: Body, json: Json = False) -> None:
    """Coefficients with which a program computes answers itself, without asking again."""
    from loralens.core.answer.answers import plan_answer

    answer = plan_answer(body)
    if json:
        return print_json(answer)
    for plan in answer["plans"]:
        names = ", ".join(plan["variables"])
        line(f"{plan['method']}: {len(plan['monomials'])} monomials in {names}; {len(plan['moments'])} moments")
    line("The coefficients themselves are for programs: --json prints them.")

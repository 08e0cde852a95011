"""`loralens plan`: the memory formula as coefficients."""

from __future__ import annotations

from loralens.cli.options import Body, Json, takes_recipe
from loralens.cli.render import line, print_json


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

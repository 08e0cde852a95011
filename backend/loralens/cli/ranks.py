"""`loralens ranks`: what a published comparison says of a rank."""

from __future__ import annotations

from loralens.cli.options import Body, Json, takes_recipe
from loralens.cli.render import gib, line, print_json, table

EXAMPLES = (
    ("loralens ranks llama-3.2-3b --rank 32", "the runs that PEFT published, next to rank 32"),
    ("loralens ranks qwen3-8b --rank 16", "what was not measured is unknown"),
    ("loralens ranks llama-3.2-3b --rank 64 --json", "every run, as JSON"),
)


@takes_recipe
def command(body: Body, json: Json = False) -> None:
    """What is known of the quality of a rank: PEFT's comparison of its methods, with its limits."""
    from loralens.planner.ranks import ranks_answer

    answer = ranks_answer(body)
    if json:
        return print_json(answer)
    for said in answer["verdict"]:
        line(said["en"])
    rows = [
        (
            row["title"]["en"],
            f"{100 * row['accuracy']:.1f}%",
            f"{row['trainable_parameters']:,}",
            gib(row["reserved_bytes"]),
            f"{row['train_seconds']:.0f} s",
        )
        for row in answer["rows"]
        if row["peft_type"] in (None, "LORA")
    ]
    table([f"run on {answer['setting']['model_name']}", "right answers", "parameters", "memory", "time"], rows)
    for limit in answer["limits"]:
        line(limit["en"])
    line(f"source: {answer['source']}")
    return None

"""`loralens params`: exact parameter counts."""

from __future__ import annotations

from loralens.cli.options import Body, Json, takes_recipe
from loralens.cli.render import line, print_json, table

EXAMPLES = (
    ("loralens params 7B", "tensor by tensor, with LoRA on q_proj and v_proj"),
    (
        "loralens params 8B -m lora --rank 16 --target-modules all-linear",
        "what an adapter on every linear layer trains",
    ),
    ("loralens params --config config.json -m full", "a model of your own"),
)


@takes_recipe
def command(body: Body, json: Json = False) -> None:
    """Exact parameter counts, tensor by tensor, and which of them train."""
    from loralens.core.answer.answers import parameters_answer

    answer = parameters_answer(body)
    if json:
        return print_json(answer)
    counts = answer["parameters"]
    number = f"{answer['model']['parameters']:,}" if answer["exact"] else f"about {answer['model']['parameters']:.3g}"
    line(f"{answer['model']['name']}  {number} parameters")
    rows = [
        (
            row["name"],
            " × ".join(str(size) for size in row["shape"]),
            row["dtype"],
            str(row["count"]),
            f"{row['parameters']:,}",
            "yes" if row["trainable"] else "",
        )
        for row in answer["tensors"]
    ]
    if answer["note"]:
        line(answer["note"])
    if not rows:
        return None
    table(["tensor", "shape", "held as", "times", "parameters", "trains"], rows, left=3)
    line(f"trainable: {counts['trainable']:,} of {counts['total']:,} ({counts['trainable_percent']:.4g}%)")
    line(f"adapters can go to: {', '.join(answer['target_modules_available'])}")

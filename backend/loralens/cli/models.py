"""`loralens models`: the catalogue of models."""

from __future__ import annotations

from typing import Annotated

from loralens.cli.options import Json
from loralens.cli.render import line, print_json, table
from loralens.cli.words import Argument, Option
from loralens.core.answer.listings import families_answer, model_answer, models_answer

Name = Annotated[str | None, Argument("MODEL", help="Show one model: id, alias or Hugging Face id.")]
Family = Annotated[str | None, Option("--family", help="Only this model_type, such as llama.")]
Families = Annotated[bool, Option("--families", help="The model types that are understood from a config.json.")]
EXAMPLES = (
    ("loralens models", "all names"),
    ("loralens models unsloth/Qwen3-8B-bnb-4bit", "how a name is read, and the shapes behind it"),
    ("loralens models --family llama", "one model_type alone"),
)


def command(model: Name = None, family: Family = None, families: Families = False, json: Json = False) -> None:
    """Models that are known by name, each with the source of its numbers."""
    if families:
        return _families(json)
    if model is not None:
        row = model_answer(model)
        if json:
            return print_json(row)
        for name, value in row.items():
            if name != "config" and value is not None:
                line(f"{name}: {', '.join(value) if isinstance(value, list) else value}")
        for name, value in row["config"].items():
            line(f"  {name}: {value}")
        return None
    answer = models_answer(family)
    if json:
        return print_json(answer)
    rows = [(row["id"], row["hf_id"], row["family"], ", ".join(row["aliases"])) for row in answer["models"]]
    return table(["id", "on the Hub", "family", "aliases"], rows, left=4)


def _families(json: bool) -> None:
    answer = families_answer()
    if json:
        return print_json(answer)
    rows = [
        (row["model_type"], "memory and parameters" if row["memory"] else "parameters") for row in answer["families"]
    ]
    return table(["model_type", "understood"], rows, left=2)

"""`loralens export`: a recipe as a trainer's config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from loralens.cli.options import Body, Json, takes_recipe
from loralens.cli.render import print_json, wrapped
from loralens.cli.words import Option
from loralens.core.errors import InvalidInput

To = Annotated[
    str | None,
    Option(
        "--to",
        help="axolotl, llama-factory, trl, ms-swift, torchtune, litgpt, verl; or a script: trl-script, transformers, unsloth.",
        metavar="TEXT",
        common=True,
    ),
]
Output = Annotated[
    Path | None, Option("--output", short="-o", help="A file to write, which must not exist.", metavar="FILE")
]
EXAMPLES = (
    ("loralens export Qwen/Qwen3-8B -m qlora --to axolotl", "the config, with Axolotl's defaults in what is left open"),
    ("loralens export Qwen/Qwen3-8B -m lora --rank 32 --to trl -o train.yaml", "written to a file"),
    ("loralens export 8B -m qlora --to trl-script -o train.py", "a script that runs a step on random tokens"),
    ("loralens export 8B -m full --to llama-factory --json", "with the command that runs it, as JSON"),
)


@takes_recipe
def command(body: Body, to: To = None, output: Output = None, json: Json = False) -> None:
    """The recipe as a trainer's config or script, which reads back as the same recipe; and vLLM's line for the adapter.

    Words that the trainer cannot say are refused by name.
    """
    from loralens.trainers.export import export_answer

    answer = export_answer(body if to is None else {**body, "to": to})
    if output is not None:
        try:
            with output.open("x", encoding="utf-8") as file:
                file.write(answer["text"])
        except OSError as error:
            hint = "give another name" if isinstance(error, FileExistsError) else None
            raise InvalidInput(f"cannot write {output}: {error.strerror}", field="output", hint=hint) from None
    if json:
        return print_json(answer)
    serve = answer["serve"]["command"] or answer["serve"]["says"]
    said = [f"run it: {answer['command']}", *([f"serve it: {serve}"] if serve else [])]
    if output is None:
        print(answer["text"], end="")
        return print("\n".join(f"# {one}" for one in said))
    for one in said:
        wrapped(one)
    return None

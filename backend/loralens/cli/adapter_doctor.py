"""`loralens adapter doctor`: what is wrong with an adapter, why, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from loralens.cli.options import Json, read_json
from loralens.cli.render import line, print_json, table
from loralens.core.errors import InvalidInput
from loralens.installation.state import require
from loralens.settings import Settings

if TYPE_CHECKING:
    from loralens.lab.adapters.doctor.base import Base
    from loralens.lab.adapters.stream import Weights

EXAMPLES: Final = (
    ("loralens adapter doctor my-adapter --base llama-3.1-8b", "does it fit this base, and is it sound"),
    ("loralens adapter doctor my-adapter --base config.json --for vllm", "and what an engine will refuse"),
    (
        "loralens adapter doctor my-adapter --base llama-folder --base-packing nf4",
        "and what merging into 4 bits would cost",
    ),
    ("loralens adapter doctor my-adapter --json", "as JSON, without a base"),
)
_EXITS: Final = {"healthy": 0, "doubtful": 4, "broken": 5}


def doctor(
    folder: Annotated[Path, typer.Argument(help="Folder of the adapter.")],
    base: Annotated[
        str | None, typer.Option("--base", help="The base model: a name, a config.json, or a folder with one.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--for", help="Say what this engine refuses: peft, vllm, sglang, llama.cpp or mlx.")
    ] = None,
    packed: Annotated[
        str | None,
        typer.Option("--base-packing", help="nf4: the base is held so; --base is a folder with its weights, and the error of merging "
                     "into 4 and into 16 bits is measured, layer by layer."),
    ] = None,
    json: Json = False,
) -> int:  # fmt: skip
    """Say what is wrong with an adapter, why, and what to do; the gravest first.

    Exit code 0: healthy, 4: doubtful, 5: broken.
    """
    require(Settings().state_directory())
    from loralens.lab.adapters.doctor import diagnose

    against_base = None if base is None else base_named(base)
    answer = diagnose(folder, against_base, engine, packed=_weights(packed, base))
    if json:
        print_json(answer.to_dict())
        return _EXITS[answer.verdict]
    against = f" against {answer.base}" if answer.base else ""
    line(f"{answer.verdict}: {answer.modules} modules{against}" + (f", for {engine}" if engine else ""))
    for found in answer.findings:
        line(f"\n{found.severity}: {found.what}")
        for label, text in (
            ("why", found.cause),
            ("do", found.repair),
            ("where", ", ".join(found.modules)),
            ("source", found.source),
        ):
            if text:
                line(f"  {label}: {text}")
    if answer.merging:
        rows = [(one.module, f"{one.packed_again:.3g}", f"{one.sixteen_bits:.3g}", f"{one.into_the_original:.3g}")
                for one in sorted(answer.merging, key=lambda one: one.packed_again, reverse=True)[:20]]  # fmt: skip
        table(["error of merging, times the update", "into NF4", "into 16 bits", "into the base before packing"], rows)
    if not answer.findings:
        line("nothing to say against it" + ("" if base else "; --base says whether it fits"))
    return _EXITS[answer.verdict]


def _weights(packing: str | None, base: str | None) -> Weights | None:
    if packing is None:
        return None
    from loralens.lab.adapters.stream import Weights

    if packing != "nf4":
        raise InvalidInput(f"unknown packing {packing[:40]!r}", field="base_packing", hint="nf4")
    if base is None or not Path(base).is_dir():
        raise InvalidInput(
            "the base's weights are needed", field="base", hint="--base FOLDER, with config.json and safetensors"
        )
    return Weights(Path(base))


def base_named(text: str) -> Base:
    """The base that a word means: a file and a folder are looked for first."""
    from loralens.lab.adapters.doctor.base import base_of

    path = Path(text)
    if path.is_dir():
        path /= "config.json"
    return base_of(config=read_json(str(path))) if path.is_file() else base_of(text)

"""`loralens adapter convert` and `plain`: between tools' formats, and from PiSSA and its kin to LoRA of the published base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from loralens.cli.adapter_doctor import base_named
from loralens.cli.options import Json
from loralens.cli.render import line, print_json
from loralens.installation.state import require
from loralens.settings import Settings

EXAMPLES: Final = (
    ("loralens adapter convert my-adapter mlx-adapter --to mlx --base llama-3.1-8b", "PEFT to MLX (mlx_lm)"),
    ("loralens adapter convert style.safetensors diffusers-style --to diffusers", "kohya's file to diffusers"),
    ("loralens adapter convert tuned back --to peft --base llama-3.1-8b --alpha 16", "torchtune to PEFT"),
    ("loralens adapter plain my-pissa plain --base base", "PiSSA or OLoRA to LoRA of the published base"),
    ("loralens adapter plain my-corda plain --initial untrained", "by the adapter that was saved before training"),
    ("loralens adapter plain my-corda plain --initial untrained --json", "as JSON"),
)


def convert(
    source: Annotated[Path, typer.Argument(help="Folder of an adapter, or one safetensors file; its format is found out.")],
    output: Annotated[Path, typer.Argument(help="Folder to write; it must not exist, or hold only an adapter.")],
    target: Annotated[str, typer.Option("--to", help="peft, mlx, kohya, diffusers or torchtune.")],
    base: Annotated[
        str | None,
        typer.Option("--base", help="The base model: a name, a config.json, or a folder with one. torchtune needs its heads, "
                     "MLX its number of layers."),
    ] = None,
    alpha: Annotated[float | None, typer.Option("--alpha", help="lora_alpha, where the files do not say it (torchtune).")] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Convert an adapter into another tool's format, a tensor at a time; what was written is read back and compared."""
    require(Settings().state_directory())
    from loralens.lab.adapters.formats.torchtune import Heads
    from loralens.lab.adapters.formats.writing import convert as converted

    found = None if base is None else base_named(base)
    answer = converted(
        source,
        output,
        target,
        heads=None if found is None else Heads.known(found.config),
        alpha=alpha,
        layers=None if found is None else found.layers,
    )
    if json:
        return print_json(answer.to_dict())
    same = "bit for bit" if answer.exact else f"within {answer.largest_error:.1e} of each factor's largest number"
    line(f"{answer.source} to {answer.target}: {answer.modules} modules, {answer.file_bytes:,} bytes in {output}")
    line(f"read back: {same}")
    for note in answer.notes:
        line(note)
    return None


def plain(
    source: Annotated[Path, typer.Argument(help="Folder of an adapter that began as PiSSA, OLoRA, CorDA or LoRA-GA.")],
    output: Annotated[Path, typer.Argument(help="Folder to write; it must not exist, or hold only an adapter.")],
    initial: Annotated[
        Path | None,
        typer.Option("--initial", help="Folder of the same adapter from before training, as PEFT's "
                     "path_initial_model_for_weight_conversion."),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option("--base", help="Instead: the base's safetensors, a folder or one file. PiSSA's and OLoRA's first factors are "
                     "computed from them."),
    ] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Make such an adapter plain LoRA of the published base, of twice its rank, which any engine serves."""
    require(Settings().state_directory())
    from loralens.lab.adapters.files import read_adapter, write_adapter
    from loralens.lab.adapters.plain import plain_adapter
    from loralens.lab.adapters.stream import Weights

    result = plain_adapter(
        read_adapter(source),
        initial=None if initial is None else read_adapter(initial),
        base=None if base is None else Weights(base),
    )
    answer = result.to_dict(write_adapter(result.adapter, output))
    if json:
        return print_json(answer)
    line(
        f"{answer['began']} to plain LoRA: {answer['modules']} modules, rank {answer['rank']}, {answer['parameters']:,} parameters, "
        f"{answer['file_bytes']:,} bytes in {output}"
    )
    line(f"what was learned is {answer['moved']:.3g} times what the beginning took out of the base (norms)")
    if answer["rounding"]:
        line(
            f"left out: the rounding of the base that PEFT makes for the original, {answer['rounding']:.2g} of what was learned"
        )
    for note in answer["notes"]:
        line(note)
    return None

"""`loralens adapter merge`, `compare` and `extract`: adapters out of adapters, beside each other, and out of a full fine-tune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer

from loralens.cli.options import Json
from loralens.cli.render import line, print_json, table
from loralens.core.errors import InvalidInput
from loralens.installation.state import require
from loralens.settings import Settings

EXAMPLES: Final = (
    ("loralens adapter merge one two --into both", "the sum of two adapters, as near as the larger rank allows (svd)"),
    ("loralens adapter merge one two --into both --type cat --weights 0.7,0.3", "exactly; the ranks add up"),
    ("loralens adapter merge one two three --into all --type ties --density 0.2", "by TIES, as PEFT names it"),
    ("loralens adapter compare one two", "how far apart, in which modules, and in which directions"),
    ("loralens adapter compare one two --energy 0.9", "directions that carry another share"),
    ("loralens adapter compare one two --json", "as JSON"),
    ("loralens adapter extract base tuned my-adapter --rank 32", "a LoRA out of a full fine-tune, with its error"),
    ("loralens adapter extract base tuned my-adapter --rank 64 --json", "every layer's change and error as JSON"),
    ("loralens adapter extract base tuned my-adapter --seed 1", "another random start for large matrices"),
)
SHOWN: Final = 20


def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders of two or more adapters of one base.")],
    output: Annotated[Path, typer.Option("--into", help="Folder to write; it must not exist, or hold only an adapter.")],
    weights: Annotated[str | None, typer.Option("--weights", help="One for each, with commas; 1 for each by default.")] = None,
    combination: Annotated[
        str,
        typer.Option("--type", help="PEFT's combination_type: cat (exact), svd, linear, ties, dare_linear, dare_ties, "
                     "magnitude_prune, or one of these with _svd (dense: slow and large)."),
    ] = "svd",
    rank: Annotated[int | None, typer.Option("--rank", help="Rank of the result, for types with svd.")] = None,
    density: Annotated[float, typer.Option("--density", help="Share of the numbers that TIES, DARE and magnitude_prune keep.")] = 0.5,
    signs: Annotated[str, typer.Option("--signs", help="How TIES elects a sign: total or frequency.")] = "total",
    seed: Annotated[int, typer.Option("--seed", help="For what DARE drops.")] = 0,
    json: Json = False,
) -> None:  # fmt: skip
    """Merge adapters with weights, as PEFT's add_weighted_adapter does, and state how far the result is from their sum."""
    require(Settings().state_directory())
    from loralens.lab.adapters.files import read_adapter, write_adapter
    from loralens.lab.adapters.merging import merge_adapters
    from loralens.lab.adapters.weighing import Signs

    given = [1.0] * len(folders) if weights is None else [_number(text) for text in weights.split(",")]
    adapters = [read_adapter(folder) for folder in folders]
    result = merge_adapters(
        adapters, given, combination, rank=rank, density=density, signs=cast(Signs, signs), seed=seed
    )
    size = write_adapter(result.adapter, output)
    answer = result.to_dict(size)
    if json:
        return print_json(answer)
    line(
        f"{answer['modules']} modules of rank {answer['rank']}, {answer['parameters']:,} parameters, {size:,} bytes in {output}"
    )
    line(f"relative error {answer['relative_error']:.3g} against the weighted sum of the updates (Frobenius norm)")
    for note in answer["notes"]:
        line(note)


def compare(
    first: Annotated[Path, typer.Argument(help="Folder of an adapter.")],
    second: Annotated[Path, typer.Argument(help="Folder of another adapter of the same base.")],
    energy: Annotated[
        float, typer.Option("--energy", help="Share of the squared norm that the compared directions carry.")
    ] = 0.99,
    json: Json = False,
) -> None:
    """Compare two adapters: cosine and difference of their updates, and angles between the directions they use."""
    require(Settings().state_directory())
    from loralens.lab.adapters.comparing import compare_adapters
    from loralens.lab.adapters.files import read_adapter

    answer = compare_adapters(read_adapter(first), read_adapter(second), energy).to_dict()
    if json:
        return print_json(answer)
    line(f"cosine of the updates {answer['cosine']:.4f}, relative difference {answer['relative_difference']:.4f}")
    for name, alone in (("first", answer["only_first"]), ("second", answer["only_second"])):
        if alone:
            line(f"only the {name} has {len(alone)} modules: {', '.join(alone)[:200]}")
    rows = [
        (
            one["module"],
            f"{one['norms'][0]:.4g}",
            f"{one['norms'][1]:.4g}",
            f"{one['cosine']:.4f}",
            f"{one['relative_difference']:.4f}",
            _angle(one["input_angles"]),
            _angle(one["output_angles"]),
            f"{one['similarity']:.3f}",
        )
        for one in answer["modules"][:SHOWN]
    ]
    table(["module", "norm", "norm", "cosine", "difference", "read at", "written at", "similarity"], rows)
    if len(answer["modules"]) > SHOWN:
        line(f"and {len(answer['modules']) - SHOWN} modules that differ less; --json has them all")


def extract(
    base: Annotated[Path, typer.Argument(help="Folder of the base: safetensors, in shards or one file.")],
    tuned: Annotated[Path, typer.Argument(help="Folder of the model that was fine-tuned from it in full.")],
    output: Annotated[Path, typer.Argument(help="Folder to write; it must not exist, or hold only an adapter.")],
    rank: Annotated[int, typer.Option("--rank", help="Rank of the adapter.")] = 16,
    seed: Annotated[int, typer.Option("--seed", help="For the random range of large matrices.")] = 0,
    json: Json = False,
) -> None:
    """Extract a LoRA from a full fine-tune, a tensor at a time, with the error and the energy kept of each layer."""
    require(Settings().state_directory())
    from loralens.lab.adapters.extracting import extract_adapter
    from loralens.lab.adapters.files import write_adapter

    result = extract_adapter(base, tuned, rank, seed=seed)
    size = write_adapter(result.adapter, output)
    answer: dict[str, Any] = result.to_dict() | {"file_bytes": size}
    if json:
        return print_json(answer)
    line(f"rank {rank}: {answer['energy_kept']:.4%} of the change kept, relative error {answer['relative_error']:.3g}")
    line(f"{answer['parameters']:,} parameters, {size:,} bytes written to {output}")
    if answer["left_out"]:
        line(
            f"left out: {len(answer['left_out'])} changed tensors that no factor carries, "
            f"{answer['left_out_share']:.3%} of the squared change: {', '.join(answer['left_out'])[:200]}"
        )
    rows = [
        (
            one["module"],
            f"{one['relative_change']:.4g}",
            str(one["rank"]),
            f"{one['energy_kept']:.4f}",
            f"{one['relative_error']:.3g}",
        )
        for one in sorted(answer["layers"], key=lambda one: one["relative_error"], reverse=True)[:SHOWN]
    ]
    return table(["module", "change", "rank", "energy kept", "error"], rows)


def _angle(angles: list[float]) -> str:
    return f"{angles[0]:.0f}° … {angles[-1]:.0f}°" if angles else "none"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"{text[:40]!r} is not a number", field="weights", hint="--weights 0.7,0.3") from None

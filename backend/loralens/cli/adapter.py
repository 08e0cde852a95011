"""`loralens adapter`: look into a PEFT adapter, say what is wrong with it, and make others out of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loralens.cli.adapter_convert import EXAMPLES as CONVERT_EXAMPLES
from loralens.cli.adapter_convert import convert, plain
from loralens.cli.adapter_doctor import EXAMPLES as DOCTOR_EXAMPLES
from loralens.cli.adapter_doctor import doctor
from loralens.cli.adapter_merge import EXAMPLES as MERGE_EXAMPLES
from loralens.cli.adapter_merge import compare, extract, merge
from loralens.cli.options import Json
from loralens.cli.render import line, print_json, table
from loralens.installation.state import require
from loralens.settings import Settings

if TYPE_CHECKING:
    from loralens.lab.adapters.kinds import Identified

app = typer.Typer(no_args_is_help=True)
app.command()(doctor)
for verb in (merge, compare, extract, plain, convert):
    app.command()(verb)

Folder = Annotated[Path, typer.Argument(help="Folder with adapter_config.json and adapter_model.safetensors.")]
Energy = Annotated[float, typer.Option("--energy", help="Share of the squared norm that a smaller rank must keep.")]
EXAMPLES = (
    ("loralens adapter inspect my-adapter", "rank, targets, bytes, and the rank that would do"),
    ("loralens adapter inspect my-adapter --energy 0.9", "with another share to keep"),
    ("loralens adapter inspect my-adapter --json", "as JSON"),
    *DOCTOR_EXAMPLES,
    ("loralens adapter resize my-adapter smaller --rank 4", "another rank, by truncated SVD"),
    ("loralens adapter resize my-adapter smaller --energy 0.99", "the smallest rank that keeps a share"),
    ("loralens adapter resize my-adapter smaller --energy 0.99 --mixed", "a rank for each module"),
    *MERGE_EXAMPLES,
    *CONVERT_EXAMPLES,
)


@app.command()
def inspect(folder: Folder, energy: Energy = 0.99, json: Json = False) -> None:
    """Rank, alpha, targets, parameters, bytes and spectrum of an adapter, and the rank that would do.

    Types of PEFT other than LoRA are named, explained and counted.
    """
    require(Settings().state_directory())
    from loralens.lab.adapters.files import read_adapter
    from loralens.lab.adapters.folder import CONFIG_FILE, WEIGHTS_FILE, stored_bytes
    from loralens.lab.adapters.inspect import inspect_adapter
    from loralens.lab.adapters.kinds import without_spectrum

    other = without_spectrum(folder / CONFIG_FILE, folder / WEIGHTS_FILE)
    if other is not None:
        return print_json(other.to_dict()) if json else _of_another_kind(other)
    answer = inspect_adapter(read_adapter(folder), energy).to_dict() | {"file_bytes": stored_bytes(folder)}
    if json:
        return print_json(answer)
    ranks = ", ".join(str(rank) for rank in answer["ranks"])
    targets = answer["target_modules"]
    line(f"rank {ranks}  alpha {answer['alpha']:g}  {answer['dtype']}" + ("  DoRA" if answer["use_dora"] else ""))
    line(f"targets: {targets if isinstance(targets, str) else ', '.join(targets)}")
    line(f"{answer['parameters']:,} parameters, {answer['file_bytes']:,} bytes on disk")
    rows = [
        (
            module["module"],
            f"{module['out_features']} × {module['in_features']}",
            str(module["rank"]),
            f"{module['norm']:.4g}",
            f"{module['effective_rank']:.2f}",
            str(module["rank_for_energy"]),
            _bars(module["singular_values"]),
        )
        for module in answer["modules"]
    ]
    table(["module", "shape", "rank", "norm", "effective rank", f"rank at {energy:g}", "singular values"], rows)
    shrink = answer["shrink"]
    line(
        f"could be rank {shrink['rank']} at {energy:.4g} of the energy: {shrink['parameters']:,} parameters, "
        f"{shrink['bytes']:,} bytes; with a rank for each module {shrink['mixed_bytes']:,} bytes"
    )
    for note in answer["notes"]:
        line(note)


def _of_another_kind(found: Identified) -> None:
    """An adapter that has no LoRA spectrum: what it is and how large."""
    line(f"{found.peft_type}. {found.says}.")
    if found.besides:
        line(f"with {', '.join(found.besides)}, which this version counts and does not resize")
    how = "trained, as PEFT counts" if found.counted else "stored; how many of them PEFT trains is not checked here"
    line(f"{found.parameters:,} parameters {how}; {found.frozen_parameters:,} numbers besides (fixed, or places)")
    line(
        f"{found.tensors:,} tensors, {found.tensor_bytes:,} bytes, {', '.join(found.dtypes)}; base {found.base_model or 'not named'}"
    )


@app.command()
def resize(
    folder: Folder,
    output: Annotated[Path, typer.Argument(help="Folder to write; it must not exist, or hold only an adapter.")],
    rank: Annotated[int | None, typer.Option("--rank", help="The new rank.")] = None,
    energy: Annotated[
        float | None, typer.Option("--energy", help="Smallest rank that keeps this share instead.")
    ] = None,
    mixed: Annotated[bool, typer.Option("--mixed", help="A rank for each module (PEFT's rank_pattern).")] = False,
    json: Json = False,
) -> None:
    """Resize an adapter by truncated SVD, the best approximation of its rank, and state the error."""
    require(Settings().state_directory())
    from loralens.lab.adapters.files import read_adapter, write_adapter
    from loralens.lab.adapters.resize import resize_adapter

    result = resize_adapter(read_adapter(folder), rank=rank, energy=energy, mixed=mixed)
    size = write_adapter(result.adapter, output)
    answer: dict[str, Any] = result.to_dict() | {"file_bytes": size}
    if json:
        return print_json(answer)
    line(f"rank {answer['rank']}, relative error of the update {answer['relative_error']:.3g} (Frobenius norm)")
    line(f"{answer['parameters_before']:,} → {answer['parameters']:,} parameters, {size:,} bytes written to {output}")
    for note in answer["notes"]:
        line(note)


def _bars(values: list[float], columns: int = 24) -> str:
    """Singular values as a row of blocks, the largest one full height."""
    top = max(values) or 1.0
    blocks = "▁▂▃▄▅▆▇█"
    return "".join(blocks[min(7, int(8 * value / top))] for value in values[:columns]) + (
        "…" if len(values) > columns else ""
    )

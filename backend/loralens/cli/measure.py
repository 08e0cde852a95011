"""`loralens measure`: real training steps on this machine's device, next to what is computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from loralens.cli.options import Body, Json, takes_recipe
from loralens.cli.render import gib, line, print_json, table
from loralens.cli.words import Option
from loralens.core.question.model import Model
from loralens.core.question.recipe import Recipe
from loralens.settings import Settings

Device = Annotated[str | None, Option("--device", help="cpu or cuda; left out: cuda where there is one.")]
Grid = Annotated[Path | None, Option("--grid", help="Measure many cases and append their rows to this file.")]
Seconds = Annotated[float, Option("--seconds", help="With --grid: stop beginning new cases after this time.")]
EXAMPLES = (
    ("loralens measure gpt2 -m lora --sequence-length 256", "real steps, next to what is computed"),
    ("loralens measure gpt2 -m full --device cpu --json", "on the processor, as JSON"),
    ("loralens measure --grid runs.jsonl", "many cases; loralens validate reads the file"),
)


@takes_recipe
def command(body: Body, device: Device = None, grid: Grid = None, seconds: Seconds = 480, json: Json = False) -> None:
    r"""Run a real step (random weights, real optimizer) and compare torch's own figures with the computed ones.

    The real libraries must be there: `LORALENS_EXTRAS=trace ./start.sh lab`. `--grid rows.jsonl` measures what fits the
    device and goes on where it was.
    """
    from loralens.core.answer.answers import read_body
    from loralens.extras import needing

    with needing("trace", "measuring"):
        from loralens.lab.measure import measure
    if grid is not None:
        return _grid(grid, device, seconds)

    model, methods, recipe, _ = read_body(body)
    found = [measure(model, method, recipe, device) for method in methods]
    times = _times(model, methods, recipe, found[0].row["gpu"])
    if json:
        return print_json(
            {
                "measured": [
                    {
                        **item.row,
                        "computed_bytes": item.predicted_bytes,
                        "computed_phases": item.predicted_phases,
                        "step_seconds": time,
                    }
                    for item, time in zip(found, times, strict=True)
                ]
            }
        )
    rows: list[tuple[Any, ...]] = []
    for item in found:
        for phase, size in item.row["phases"].items():
            computed = item.predicted_phases[phase]
            rows.append((item.row["method"], phase, gib(computed), gib(size), f"{100 * (computed / size - 1):+.2f}%"))
    line(f"{model.name} on {found[0].row['gpu']}")
    table(["method", "phase", "computed", "measured", "off by"], rows, left=2)
    for item, time in zip(found, times, strict=True):
        if time is not None:
            off = f"{100 * (time['computed'] / time['measured'] - 1):+.1f}%"
            line(
                f"{item.row['method']}: a step takes {time['measured']:.3g} s, computed {time['computed']:.3g} s ({off})"
            )
    if not any(times):
        line("`loralens bench --calibrate` times this device once; then a step's time stands beside the computed one.")
    if found[0].row["gpu"].startswith("CPU"):
        line("The computed figures are those of CUDA's kernels; the CPU's attention kernel differs in float32.")
        scratch = max(item.row["scratch_bytes"] for item in found)
        if scratch >= 1024:
            line(f"Tensors only: kernels of this CPU took up to {gib(scratch)} more for themselves.")


def _times(model: Model, methods: Sequence[str], recipe: Recipe, card: str) -> list[dict[str, float] | None]:
    """Seconds of a step, measured and computed, where this device is calibrated in the recipe's dtype."""
    from loralens.calibrations import calibration_of
    from loralens.lab.measure.calibrate import timed

    name = "cpu" if card.startswith("CPU") else card
    kept = calibration_of(Settings().state_directory(), name, recipe.autocast or recipe.weights_dtype)
    if kept is None:
        return [None] * len(methods)
    pairs = (timed(model, method, recipe, kept) for method in methods)
    return [{"measured": measured, "computed": computed} for measured, computed in pairs]


def _grid(path: Path, device: str | None, seconds: float) -> None:
    from loralens.lab.measure.grid import run

    count = 0
    for row in run(path, device=device, seconds=seconds):
        if "skipped" in row:
            line(f"skipped {row['id']}: {row['skipped']}")
        else:
            count += 1
            line(f"{gib(row['peak_bytes'])}  {row['id']}")
    line(f"{count} rows written to {path}; next: loralens validate {path}")

"""`loralens validate`: the estimator against measured runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from loralens.cli.options import Json
from loralens.cli.render import line, print_json, table
from loralens.cli.words import Argument, Option
from loralens.core.errors import InvalidInput

Runs = Annotated[Path, Argument("RUNS", help="Rows of runs, one JSON object a line (see docs/accuracy).")]
Markdown = Annotated[bool, Option("--markdown", help="Print the whole page docs/accuracy.md.")]
EXAMPLES = (
    ("loralens validate runs.jsonl", "computed against measured, row by row"),
    ("loralens validate runs.jsonl --json", "as JSON"),
    ("loralens validate runs.jsonl --markdown", "as a page"),
)


def command(runs: Runs, markdown: Markdown = False, json: Json = False) -> None:
    """Error table of computed against measured memory: median, p90, worst and bias by group."""
    from loralens.validation import report
    from loralens.validation.rows import judge, read_rows

    try:
        lines = runs.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {runs}: {error}", field="runs", hint="give a file of JSON lines") from error
    outcomes = [judge(row) for row in read_rows(lines)]
    if not outcomes:
        raise InvalidInput(f"{runs} contains no rows", field="runs", hint="one JSON object per line")
    if json:
        return print_json(report.as_json(outcomes))
    if markdown:
        return print(report.markdown(outcomes, runs.name), end="")
    rows = [
        (g["metric"], g["stack"], g["strategy"], g["confidence"], str(g["rows"]), *(f"{100 * g[name]:.2f}%" for name in ("median", "p90", "worst")),
         f"{100 * g['bias']:+.1f}%", "" if g["in_band"] is None else f"{100 * g['in_band']:.0f}%")
        for g in report.groups(outcomes)
    ]  # fmt: skip
    table(
        ["metric", "code", "strategy", "confidence", "runs", "median", "p90", "worst", "bias", "in band"], rows, left=4
    )
    refused = sum(outcome.refused is not None for outcome in outcomes)
    if refused:
        line(f"{refused} runs have no estimate; --json says why.")

"""Entry point: finds the verb, imports its module alone, and turns every error into one line and an exit code.

Exit codes: 2 for input, 3 for missing hardware or packages, 1 otherwise, 130 after Ctrl-C; verdicts of `fit`,
`check` and `memory --gpu`: 0 fits, 4 tight, 5 does not fit; of `adapter doctor`: 0 healthy, 4 doubtful, 5 broken.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import loralens
from loralens.cli.render import fail
from loralens.cli.words import Option, for_typer, read
from loralens.core.errors import LoraLensError

if TYPE_CHECKING:
    import typer

VERBS = {
    "memory": "Memory of one training step, byte by byte.",
    "params": "Exact parameter counts, tensor by tensor.",
    "models": "Models that are known by name.",
    "gpus": "GPUs that are known by name.",
    "plan": "Coefficients with which a program computes answers itself.",
    "fit": "What fits a GPU, and what makes it fit.",
    "ranks": "What is known of the quality of a rank.",
    "check": "A trainer's file, judged: Axolotl, LLaMA-Factory, TRL, ms-swift, torchtune, LitGPT, Unsloth, verl, Megatron.",
    "explain": "Which tensor an out-of-memory message is about.",
    "export": "A recipe as a trainer's config.",
    "adapter": "PEFT adapters: inspect, repair, merge, convert.",
    "forgetting": "What full fine-tuning and LoRA forget, measured on this machine.",
    "bench": "Time LoRA's product on this machine.",
    "trace": "The real model on fake tensors, next to what is computed.",
    "measure": "Real steps on this machine's device, next to what is computed.",
    "validate": "Computed against measured, for published or own runs.",
    "serve": "Serve the page and the API.",
    "mcp": "The same for programs, over stdio (MCP).",
}
"""Verb to one line of help. `loralens.cli.VERB` has a function `command`, or a typer `app` with subcommands."""

HELP = ("--help", "-h")


def build(verb: str | None) -> typer.Typer:
    """The command line with one verb, or with all of them for `--help`."""
    import typer

    app = typer.Typer(name="loralens", add_completion=False, context_settings={"help_option_names": list(HELP)})
    app.callback()(for_typer(_options))
    for name in [verb] if verb in VERBS else VERBS:
        module = import_module(f"loralens.cli.{name}")
        if hasattr(module, "app"):
            for entry in module.app.registered_commands:
                entry.callback = entry.callback and for_typer(entry.callback)
            app.add_typer(module.app, name=name, help=VERBS[name])
        else:
            app.command(name, help=module.command.__doc__, short_help=VERBS[name])(for_typer(module.command))
    return app


def _options(version: Annotated[bool, Option("--version", help="Print the version.")] = False) -> None:
    """Options before the verb."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(arguments) or ["--help"]
    if arguments == ["--version"]:
        print(f"loralens {loralens.__version__}")
        return 0
    verb = next((word for word in arguments if not word.startswith("-")), None)
    try:
        result = 0 if _helped(arguments, verb) else _quickly(arguments)
        if result is None:
            result = build(verb)(args=arguments, prog_name="loralens", standalone_mode=False)
        sys.stdout.flush()
    except LoraLensError as error:
        return fail(error.message, error.hint, error.exit_code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, less) is gone. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _outermost(error, verb)
    return result if isinstance(result, int) else 0


def _helped(arguments: Sequence[str], verb: str | None) -> bool:
    """Whether help was asked for, and printed."""
    words = [word for word in arguments if word not in HELP]
    if len(words) == len(arguments):
        return False
    from loralens.cli import help as manual

    if verb is None:
        manual.print_root(VERBS)
        return True
    if verb not in VERBS:
        return False
    import typer

    whole: Any = typer.main.get_command(build(verb))
    found = whole.commands[verb]
    examples = getattr(import_module(f"loralens.cli.{verb}"), "EXAMPLES", ())
    below = next((word for word in words[1:] if word in getattr(found, "commands", {})), None)
    if below is not None:
        own = [row for row in examples if row[0].startswith(f"loralens {verb} {below}")]
        manual.print_command(f"{verb} {below}", found.commands[below], own)
    elif hasattr(found, "commands"):
        manual.print_group(verb, found, examples)
    else:
        manual.print_command(verb, found, examples)
    return True


def _quickly(arguments: Sequence[str]) -> int | None:
    """Run a plain command line without typer; None if it is not plain."""
    verb, *words = arguments
    if verb not in VERBS:
        return None
    command = getattr(import_module(f"loralens.cli.{verb}"), "command", None)
    values = None if command is None else read(command, words)
    if command is None or values is None:
        return None
    result = command(**values)
    return result if isinstance(result, int) else 0


def _outermost(error: Exception, verb: str | None) -> int:
    """Usage errors, and the last stop for a fault of our own: no traceback reaches a user unasked."""
    format_message = getattr(error, "format_message", None)
    if format_message is not None:  # click's exceptions, which typer does not export by name
        usage = f"loralens {verb} --help" if verb in VERBS else "loralens --help"
        return fail(str(format_message()).rstrip("."), f"{usage} lists what is possible", 2)
    if os.environ.get("LORALENS_DEBUG"):
        raise error
    return fail(f"internal error: {type(error).__name__}: {error}", "set LORALENS_DEBUG=1 to see where", 1)

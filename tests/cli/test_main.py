"""Starting, failing, helping."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest
from cli.conftest import ENVIRONMENT

import loralens
from loralens.cli.main import VERBS
from loralens.core import errors

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "fastapi",
    "starlette",
    "pydantic",
    "typer",
    "rich",
    "numpy",
    "uvicorn",
    "sqlite3",
    "httpx",
)


@pytest.mark.parametrize(
    "words",
    [
        ["memory", "7B"],
        ["memory", "7B", "--json"],
        ["params", "7B"],
        ["models"],
        ["gpus"],
        ["plan", "7B", "--json"],
    ],
    ids=" ".join,
)
def test_a_calculation_imports_nothing_heavy(words):
    code = (
        "import sys\n"
        "from loralens.cli.main import run\n"
        "code = run(sys.argv[1:])\n"
        f"print(code, [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stderr.splitlines()[-1] == "0 []", done.stderr


def test_every_verb_has_a_module_and_help(run):
    for verb in VERBS:
        code, out, _ = run(verb, "--help")
        assert code == 0, verb
        assert "Usage" in out
        module = import_module(f"loralens.cli.{verb}")
        assert hasattr(module, "app") or module.command.__doc__
    code, out, _ = run()
    assert all(verb in out for verb in VERBS)
    assert len(out.splitlines()) < 40


@pytest.mark.parametrize("columns", ["80", "60", "160"])
def test_help_cuts_nothing_at_any_width(run, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    for verb in ["", *VERBS, "adapter inspect", "adapter resize"]:
        _, out, _ = run(*verb.split(), "--help")
        assert "…" not in out.replace("Qwen3-8B, …", "").replace("24GiB,…", "").replace("] …", ""), verb
        for text in out.splitlines():
            too_long = len(text) > min(int(columns), 100)
            # A command or a flag is one word: it is kept whole, on a line of its own.
            assert not too_long or text.startswith(("  loralens", "  --", "Usage:")), (verb, text)


def test_help_shows_the_common_options_first_with_their_defaults(run):
    _, out, _ = run("memory", "--help")
    common, rest = out.split("All other options:")
    for flag in ("--method", "--gpu", "--micro-batch-size", "--sequence-length", "--rank", "--gradient-checkpointing"):
        assert flag in common.split("Common options:")[1]
        assert f"{flag} " not in rest
    assert "[default: 2048]" in " ".join(common.split())
    assert "--group-size" in rest
    fit = " ".join(run("fit", "--help")[1].split())
    assert "[default: qlora]" in fit
    assert "[default: all-linear]" in fit


EXAMPLES = [
    command.removeprefix("loralens ").partition(" && ")[0].split()
    for verb in VERBS
    for command, _ in import_module(f"loralens.cli.{verb}").EXAMPLES
]


def test_every_verb_teaches_by_three_examples():
    for verb in VERBS:
        examples = import_module(f"loralens.cli.{verb}").EXAMPLES
        assert len(examples) >= (1 if verb == "mcp" else 3)  # mcp has neither arguments nor options
        for command, meaning in examples:
            assert command.split()[:2] == ["loralens", verb]
            assert meaning
            assert len(command) <= 78  # with its indent, one line of a terminal


CALCULATED = [
    words for words in EXAMPLES
    if words[0] in ("memory", "params", "models", "gpus", "plan", "fit") and "--config" not in words
]  # fmt: skip


@pytest.mark.parametrize("words", CALCULATED, ids=" ".join)
def test_an_example_works(run, words):
    code, out, err = run(*words)
    assert code in (0, 4, 5), err
    assert out


def test_every_calculating_verb_has_json(run):
    for verb in set(VERBS) - {"serve", "mcp", "adapter", "lessons"}:
        assert "--json" in run(verb, "--help")[1], verb


def test_version(run):
    assert run("--version") == (0, f"loralens {loralens.__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        (["memory"], 2, "MODEL", "loralens memory 7B"),
        (["memory", "8X"], 2, "'8X'", "loralens models"),
        (["memory", "7B", "--rank", "0"], 2, "rank", "rank=8"),
        (["memory", "7B", "--rank", "1000000000"], 2, "rank", "rank=8"),
        (["memory", "7B", "--rank"], 2, "--rank", "loralens memory --help"),
        (["memory", "7B", "--rnk", "8"], 2, "--rnk", "loralens memory --help"),
        (["memory", "7B", "--method", "magic"], 2, "magic", ""),
        (["memory", "7B", "--request", "x"], 2, "--request", "leave out"),
        (["memory", "--request", "/nowhere/at/all"], 2, "cannot read", ""),
        (["memory", "--config", "/nowhere/at/all"], 2, "cannot read", ""),
        (["memroy", "7B"], 2, "memroy", "--help"),
        (["gpus", "abacus"], 2, "abacus", "loralens gpus"),
        (["serve", "--port", "99999"], 2, "65535", "--help"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_and_a_hint(run, words, code, message, hint):
    got, out, err = run(*words)
    assert got == code
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert hint in lines[-1]
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInput("a"), 2),
        (errors.UnknownModel("a"), 2),
        (errors.UnsupportedArchitecture("a"), 2),
        (errors.DeviceUnavailable("a"), 3),
        (errors.DependencyMissing("a"), 3),
        (errors.JobFailed("a"), 1),
        (RuntimeError("a\nb"), 1),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exit_codes(monkeypatch, capfd, error, code):
    from loralens.cli import main

    def fail(_):
        raise error

    monkeypatch.setattr(main, "_quickly", fail)
    monkeypatch.setattr(main.os, "dup2", lambda *_: None)
    assert main.run(["memory"]) == code
    assert "Traceback" not in capfd.readouterr().err


def test_a_fault_of_our_own_can_be_looked_into(monkeypatch):
    from loralens.cli import main

    def fail(_):
        raise RuntimeError("inside")

    monkeypatch.setattr(main, "_quickly", fail)
    monkeypatch.setenv("LORALENS_DEBUG", "1")
    with pytest.raises(RuntimeError, match="inside"):
        main.run(["memory"])


def test_a_reader_that_stops_reading_is_no_error(loralens_command):
    command = f"{sys.executable} -m loralens gpus --json | head -c 10"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_the_installed_command_is_this_one():
    assert find_spec("loralens.__main__") is not None

"""./start.sh as a program of functions: which Python it takes, what it installs again, and what it mends. No download."""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLAIN = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LANG": "C.UTF-8", "CI": "true"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what start.sh reads."""
    folder = tmp_path / "checkout"
    (folder / "backend").mkdir(parents=True)
    (folder / ".loralens" / "log").mkdir(parents=True)
    shutil.copy(ROOT / "start.sh", folder)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / "backend" / name, folder / "backend")
    return folder


def start(folder: Path, script: str = "", *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run start.sh, or a script that has its functions."""
    command = ["bash", "start.sh", *words] if words else ["bash", "-c", f"source start.sh help >/dev/null\n{script}"]
    return subprocess.run(
        command, cwd=folder, env={**PLAIN, **environment}, capture_output=True, text=True, timeout=60
    )  # fmt: skip


def interpreter(folder: Path, name: str, version: str) -> None:
    """A stand-in for an interpreter that knows its version alone."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{version}'\n")
    path.chmod(0o755)


def test_help_names_every_command_and_a_wrong_one_is_an_error(checkout):
    told = start(checkout, "", "help").stdout
    for word in ("./start.sh lab", "./start.sh test", "./start.sh dev", "LORALENS_LAB=no", "PYTHON"):
        assert word in told
    assert "set -euo" not in told and not told.startswith("#")
    done = start(checkout, "", "sevre")
    assert done.returncode == 1
    assert done.stderr.startswith("error: unknown command 'sevre'")


@pytest.mark.parametrize(
    ("found", "chosen", "fits"),
    [
        ({"python3": "3.12"}, "python3", "yes"),
        ({"python3": "3.15", "python3.13": "3.13"}, "python3.13", "yes"),
        ({"python3": "3.9", "python3.14": "3.14"}, "python3.14", "yes"),
        ({"python3": "3.14t", "python3.11": "3.11"}, "python3.11", "yes"),
        ({"python3": "3.14t"}, "python3", "no"),
    ],
)
def test_an_interpreter_with_a_build_of_pytorch_is_preferred(checkout, tmp_path, found, chosen, fits):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "sed"):
        (tools / name).symlink_to(shutil.which(name))
    for name, version in found.items():
        interpreter(tools, name, version)
    done = start(checkout, 'find_python; echo "${python##*/} $torch_fits"', PATH=str(tools))
    assert done.stdout.split() == [chosen, fits], done.stderr


def test_a_python_that_was_named_is_taken_or_refused(checkout, tmp_path):
    for version in ("3.10", "3.15"):
        interpreter(tmp_path, version, version)
        done = start(checkout, "find_python", PYTHON=str(tmp_path / version))
        assert done.returncode == 1
        assert f"is no Python 3.11 to 3.14 (found {version})" in done.stderr
    done = start(checkout, 'find_python; echo "$python"', PYTHON=sys.executable)
    assert done.stdout.strip() == sys.executable


def test_the_pinned_pytorch_is_built_for_the_versions_that_are_named():
    named = next(line for line in (ROOT / "start.sh").read_text().splitlines() if line.startswith("TORCH_PYTHONS="))
    assert named == 'TORCH_PYTHONS="3.11 3.12 3.13 3.14"'
    assert 'requires-python = ">=3.11,<3.15"' in (ROOT / "backend" / "pyproject.toml").read_text()
    assert "torch==2.13.0" in (ROOT / "backend" / "pyproject.toml").read_text()


def test_what_is_stamped_is_not_installed_again(checkout):
    script = f"""
python={sys.executable} torch_fits=yes
mkdir -p .venv
for level in base lab test; do has $level && echo "$level"; done
stamp base >>.venv/.stamp; has base && echo base; has lab || echo no lab
stamp test >>.venv/.stamp; has lab && has test && echo all
LORALENS_EXTRAS=cluster; has lab || echo not with other extras; has base && echo base
echo >>backend/constraints.txt; has base || echo not with other pins
"""
    assert start(checkout, script).stdout.splitlines() == [
        "base", "no lab", "all", "not with other extras", "base", "not with other pins",
    ]  # fmt: skip


def test_the_lab_is_left_out_on_request(checkout):
    script = f"python={sys.executable} torch_fits=yes; lab_command() {{ echo installs; exit; }}; lab_behind; wait"
    assert start(checkout, script, LORALENS_LAB="no").stdout == ""
    assert "installs" in start(checkout, script).stdout
    done = start(checkout, script, LORALENS_LAB="never")
    assert done.returncode == 1
    assert "yes or no, got 'never'" in done.stderr
    without = start(checkout, script.replace("fits=yes", "fits=no")).stdout
    assert "PyTorch is built for Python 3.11 3.12 3.13 3.14, not for" in without and "installs" not in without


def test_one_start_at_a_time_changes_the_environment(checkout):
    script = f"python={sys.executable}; lock {{}} && echo has it; read -r _"
    first = subprocess.Popen(
        ["bash", "-c", "source start.sh help >/dev/null\n" + script.format("try")],
        cwd=checkout, env=PLAIN, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert first.stdout.readline() == "has it\n"
    second = f"python={sys.executable}; lock try || echo taken"
    assert start(checkout, second).stdout == "taken\n"
    first.kill()
    first.communicate(timeout=30)
    assert start(checkout, second).stdout == ""


def test_an_environment_that_was_moved_works_where_it_is(checkout):
    venv.create(checkout / ".venv", with_pip=False)
    script = checkout / ".venv" / "bin" / "tool"
    script.write_text(f"#!{checkout}/.venv/bin/python\nprint('works')\n")
    script.chmod(0o755)
    site = next((checkout / ".venv").glob("lib/python*/site-packages"))
    (site / "_loralens.pth").write_text(f"{checkout}/backend\n")
    (checkout / ".venv" / ".folder").write_text(f"{checkout}\n")
    moved = checkout.with_name("another place")
    checkout.rename(moved)
    assert start(moved, f"python={sys.executable}; follow_move").returncode == 0
    site = moved / site.relative_to(checkout)
    assert (site / "_loralens.pth").read_text() == f"{moved}/backend\n"
    assert str(moved) in (moved / ".venv" / "bin" / "tool").read_text().splitlines()[0]
    assert (moved / ".venv" / ".folder").read_text() == f"{moved}\n"


def test_a_package_that_is_not_whole_is_installed_again(checkout):
    site = checkout / ".venv" / "lib" / "python3.11" / "site-packages"
    for name, files in {"whole-1.dist-info": ["METADATA", "RECORD"], "half-1.dist-info": ["METADATA"]}.items():
        (site / name).mkdir(parents=True)
        for file in files:
            (site / name / file).touch()
    assert start(checkout, "mend").returncode == 0
    assert [path.name for path in site.iterdir()] == ["whole-1.dist-info"]


@contextlib.contextmanager
def index(status: int) -> Iterator[tuple[str, list[str]]]:
    """A package index that answers every request with one status; its address and what it was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/cpu", asked
        server.shutdown()


TORCH = f"""python={sys.executable}
has_nvidia() {{ return 1; }}
TORCH_CPU_INDEX=$INDEX; pip_of lab; printf '%s\\n' "${{pip[@]}}" """


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the ordinary build is the small one")
def test_the_small_build_is_taken_where_its_index_answers():
    with index(200) as (url, asked):
        done = start(ROOT, TORCH, CI="", INDEX=url)
        assert asked == ["/cpu/torch/"]
    words = done.stdout.splitlines()
    assert words[words.index("--extra-index-url") + 1] == url
    with index(404) as (url, asked):
        assert "--extra-index-url" not in start(ROOT, TORCH, CI="", INDEX=url).stdout
        assert asked


def test_the_small_builds_index_is_not_asked_where_it_is_of_no_use():
    with index(200) as (url, asked):
        assert "--extra-index-url" not in start(ROOT, TORCH, INDEX=url).stdout  # CI
        card = TORCH.replace("return 1", "return 0")
        assert "--extra-index-url" not in start(ROOT, card, CI="", INDEX=url).stdout
        base = TORCH.replace("pip_of lab", "pip_of base")
        assert "--extra-index-url" not in start(ROOT, base, CI="", INDEX=url).stdout
        chosen = start(ROOT, TORCH, CI="", INDEX=url, LORALENS_TORCH_INDEX="http://mine.example/simple").stdout
        assert "http://mine.example/simple" in chosen
        assert asked == []


def test_the_lab_brings_what_the_lessons_need_and_the_tests_bring_everything():
    tool = f"python={sys.executable}; pip_of %s; printf '%%s\\n' \"${{pip[@]}}\""
    extras = {level: start(ROOT, tool % level).stdout.splitlines()[-1] for level in ("base", "lab", "test")}
    assert extras["base"] == "backend[gpu]"
    assert extras["lab"] == "backend[lab,gpu,course]"
    assert extras["test"] == "backend[lab,gpu,trace,course,cluster]"

"""Schemathesis against a server of its own, in a folder of its own: what the schema promises, and what it refuses.

    python tests/contract/run.py --schemathesis PATH [--seed 7] [--examples 10] [--phases coverage] [--only /api/check …]

Jobs are called off as soon as they are seen: what they are about is other tests' matter, and a stream of events lasts as long
as its job waits.

Schemathesis 4.32 lives in an environment of its own: `python -m venv contract && contract/bin/pip install schemathesis==4.32.5`.
The exit code is Schemathesis's: 0 where nothing failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def main() -> int:
    """Start, ask, stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemathesis", default="schemathesis")
    parser.add_argument("--seed", default="7")
    parser.add_argument("--examples", default="10", help="most cases per operation and kind")
    parser.add_argument("--phases", default="examples,coverage,fuzzing", help="which of them")
    parser.add_argument("--only", nargs="*", default=[], metavar="PATH", help="these paths alone")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LORALENS_")}
        variables = kept | {"LORALENS_STATE_DIR": state, "LORALENS_HUB": "off", "LORALENS_LOG_LEVEL": "warning"}
        variables["PYTHONPATH"] = str(ROOT / "backend")
        serve = [sys.executable, "-m", "loralens", "serve", "--port", "0"]
        over = threading.Event()
        with subprocess.Popen(serve, env=variables, cwd=state, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                first = server.stdout.readline()
                address = "http://127.0.0.1:" + first.split("localhost:")[1].split("/")[0].strip()
                urllib.request.urlopen(
                    f"{address}/api/openapi.json", timeout=300
                ).close()  # Schemathesis waits 10 s for it
                command = [given.schemathesis, "--config-file", str(HERE / "schemathesis.toml"), "run"]
                command += [f"{address}/api/openapi.json", "--wait-for-schema", "60", "--request-timeout", "120"]
                command += ["--phases", given.phases, "--seed", given.seed, "-n", given.examples]
                command += [word for path in given.only for word in ("--include-path", path)]
                threading.Thread(target=_call_off_jobs, args=(address, over), daemon=True).start()
                return subprocess.run([*command, "--no-color"], cwd=state, env=kept, check=False).returncode
            finally:
                over.set()
                server.terminate()


def _call_off_jobs(address: str, over: threading.Event) -> None:
    while not over.wait(1):
        try:
            with urllib.request.urlopen(f"{address}/api/jobs?limit=100", timeout=60) as answer:
                jobs = json.load(answer)["jobs"]
            for job in jobs:
                if job["status"] in ("queued", "running"):
                    asked = urllib.request.Request(f"{address}/api/jobs/{job['id']}", method="DELETE")
                    urllib.request.urlopen(asked, timeout=60).close()
        except (urllib.error.URLError, TimeoutError):  # it is busy, or the job is over
            continue


if __name__ == "__main__":
    sys.exit(main())

"""The compose files and the Dockerfile say what they should; no engine is needed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
GPU = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_the_page_is_on_the_same_port_and_on_this_machine_only():
    (port,) = COMPOSE["services"]["loralens"]["ports"]
    assert port == "${BIND:-127.0.0.1}:${PORT:-5173}:5173"


def test_one_service_with_few_rights():
    (service,) = COMPOSE["services"].values()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    assert not any("docker.sock" in volume for volume in service["volumes"])


def test_memory_and_processes_are_bounded_and_the_small_build_is_the_default():
    (service,) = COMPOSE["services"].values()
    assert service["mem_limit"] == "${MEMORY:-8g}"
    assert service["pids_limit"] == 512
    assert service["build"]["args"]["LAB"] == "${LAB:-cpu}"
    assert GPU["services"]["loralens"]["build"]["args"]["LAB"] == "cuda"
    assert "ARG LAB=cpu" in DOCKERFILE


def test_what_must_last_is_in_a_volume():
    assert "data:/data" in COMPOSE["services"]["loralens"]["volumes"]
    assert "LORALENS_STATE_DIR=/data" in DOCKERFILE


def test_only_the_override_asks_for_a_gpu():
    assert "devices" not in str(COMPOSE)
    (device,) = GPU["services"]["loralens"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"


def test_the_image_runs_as_a_plain_user_with_pinned_packages_and_a_health_check():
    assert "USER 10001" in DOCKERFILE
    assert "HEALTHCHECK" in DOCKERFILE
    assert DOCKERFILE.count("pip install") == DOCKERFILE.count("-c backend/constraints.txt")
    assert "npm ci" in DOCKERFILE
    assert not DOCKERFILE.startswith("# syntax=")  # would fetch a frontend image at each build


def test_everything_that_is_copied_is_sent_to_the_engine():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word.split("/")[0]
        for line in DOCKERFILE.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("files", [["docker-compose.yml"], ["docker-compose.yml", "docker-compose.gpu.yml"]])
def test_compose_understands_the_files(files):
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    arguments = [argument for file in files for argument in ("-f", file)]
    done = subprocess.run(["docker", "compose", *arguments, "config", "-q"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

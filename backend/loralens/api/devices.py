"""Which devices this machine has, for jobs that name one."""

from __future__ import annotations

from loralens import host
from loralens.core.errors import DeviceUnavailable


def check_device(device: str) -> None:
    """Raises `DeviceUnavailable` (503) where the machine has no such device."""
    known = [row["id"] for row in host.system_answer()["devices"]]
    if device not in known:
        raise DeviceUnavailable(
            f"this machine has no {device}", field="device", hint=f"devices here: {', '.join(known)}"
        )

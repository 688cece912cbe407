"""What every speed figure is written with: the machine that it was measured on. Run by itself, it shows that."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

__all__ = ["report"]


def report(found: Mapping[str, Mapping[str, float]], out: Path | None, load_before: float) -> None:
    """Prints a line a setting and, where asked to, writes all of them with the machine.

    Args:
        found: figures by setting.
        out: JSON file.
        load_before: the machine's load before the measurement, which says how idle it was.
    """
    for name, line in found.items():
        print(name, {key: round(value, 2) for key, value in line.items()})
    if out:
        written: dict[str, Any] = {"machine": machine(load_before), "settings": found}
        out.write_text(json.dumps(written, indent=1) + "\n")


def machine(load_before: float) -> dict[str, Any]:
    """Cores, load and device."""
    return {"cores": os.cpu_count(), "load_before": load_before, "device": jax.devices()[0].device_kind}


if __name__ == "__main__":
    print(machine(os.getloadavg()[0]))

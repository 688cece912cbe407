"""Shields against adversaries: what must not happen, counted by robustness on the recorded traces; sizes and speed.

    python benchmarks/shield.py [--steps 100000000] [--seed 0] [--out benchmarks/results/shield.json]

The games, adversaries and counts are those of ``tests/stl/test_shield.py``; steps are spread evenly over games and
adversaries. Permissiveness is the share of verdicts that the shield allows of those that the exhaustive games over
histories do. Ends with 1 where a mask was empty, something preventable happened or was told wrongly, or the share is
below .95.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from machine import machine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from stl.shield_oracle import ADVERSARIES, brute_force, faults, player
from stl.test_shield import GAMES, MODELS, built

_LANES, _LENGTH = 500, 10_000
_NEVER = ("empty", "shieldable", "unexplained", "invented")


def sizes(game: str) -> dict[str, Any]:
    """Tables, and times: to build them, and of a mask and a step together without an adversary."""
    specs, _ = GAMES[game]
    begun = time.perf_counter()
    shield = built(specs)
    build_s = time.perf_counter() - begun
    lanes, steps = 4096, 200
    drawn = {
        name: jax.random.uniform(jax.random.key(at), (steps, lanes)) for at, name in enumerate(shield.signals)
    }

    @jax.jit
    def run(inputs: Any) -> Any:
        def advance(state: Any, each: Any) -> Any:
            verdict = jnp.argmax(shield.mask(state, each), axis=-1)
            state, violated = shield.step(state, each, verdict)
            return state, violated.sum()

        return jax.lax.scan(advance, shield.init(lanes), inputs)[1]

    run(drawn).block_until_ready()
    begun = time.perf_counter()
    run(drawn).block_until_ready()
    return {
        "together": shield.together,
        "apart": shield.apart,
        "states": shield.table_states,
        "table_bytes": shield.table_bytes,
        "build_s": build_s,
        "mask_and_step_per_s": lanes * steps / (time.perf_counter() - begun),
    }


def attacked(game: str, adversary: str, steps: int, seed: int) -> dict[str, Any]:
    """Counts over at least so many steps, in episodes of a fixed length."""
    specs, values = GAMES[game]
    run = player(built(specs), values, adversary, _LENGTH, _LANES)
    total: dict[str, Any] = {}
    n_steps, played_s = _LENGTH * _LANES, 0.0
    for part in range(-(-steps // n_steps)):
        begun = time.perf_counter()
        played = run(seed + part)
        played_s = time.perf_counter() - begun  # of the last part, for the first one compiles
        for name, count in faults(specs, played).items():
            total[name] = total.get(name, 0) + count
    return total | {"steps_per_s": n_steps / played_s}


def main() -> int:
    """Plays all games and prints a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    load_before = os.getloadavg()[0]
    result: dict[str, Any] = {"games": {}, "attacks": {}, "permissiveness": {}}
    for model, (specs, values) in MODELS.items():
        counts = brute_force(specs, values)
        found = counts | {"share": counts["allowed_by_shield"] / counts["allowed_by_game"]}
        result["permissiveness"][model] = found
        print(model, json.dumps(found), flush=True)
    each = -(-asked.steps // (len(GAMES) * len(ADVERSARIES)))
    for game in GAMES:
        result["games"][game] = sizes(game)
        print(game, json.dumps(result["games"][game]), flush=True)
        for adversary in ADVERSARIES:
            found = attacked(game, adversary, each, asked.seed)
            result["attacks"][f"{game}, {adversary}"] = found
            print(f"{game}, {adversary}", json.dumps(found), flush=True)
    attacks = result["attacks"].values()
    total = {name: int(sum(each[name] for each in attacks)) for name in ("steps", *_NEVER)}
    share = float(np.min([each["share"] for each in result["permissiveness"].values()]))
    only = sum(each["only_by_shield"] for each in result["permissiveness"].values())
    print(json.dumps({"total": total, "least share": share}), flush=True)
    if asked.out:
        result |= {"machine": machine(load_before), "total": total, "least_share": share}
        asked.out.write_text(json.dumps(result, indent=1) + "\n")
    return int(any(total[name] for name in _NEVER) or share < 0.95 or only > 0)


if __name__ == "__main__":
    sys.exit(main())

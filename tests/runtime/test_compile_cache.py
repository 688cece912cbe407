"""The compilation cache: where it lies, that it is used, and that it gives way to the user's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from phalanx.runtime.compile_cache import cache_folder, use_compile_cache

_PROGRAM = """
import jax, jax.numpy as jnp
from phalanx.runtime.compile_cache import use_compile_cache
use_compile_cache()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.jit(lambda x: x + 1)(jnp.ones(3)).block_until_ready()
"""


@pytest.mark.parametrize("base", ["/elsewhere", "not/absolute", ""])
def test_the_folder_follows_the_xdg_rule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", base)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = Path("/elsewhere") if base == "/elsewhere" else tmp_path / ".cache"
    assert cache_folder() == expected / "phalanx" / "jax"


def test_a_folder_chosen_before_is_kept() -> None:
    import jax

    before = jax.config.values["jax_compilation_cache_dir"]
    assert before is not None  # the tests' own
    use_compile_cache()
    assert jax.config.values["jax_compilation_cache_dir"] == before


@pytest.mark.parametrize("own", [False, True])
def test_compiled_steps_are_kept_where_they_should(tmp_path: Path, own: bool) -> None:
    unset = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "xdg")
    if own:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "own")
    subprocess.run([sys.executable, "-c", _PROGRAM], check=True, env=environment, timeout=60)
    assert bool(list(tmp_path.glob("xdg/phalanx/jax/*"))) is not own
    assert bool(list(tmp_path.glob("own/*"))) is own

"""Compiled steps kept between commands, so that only the first one waits for the compiler."""

import os
from pathlib import Path

__all__ = ["cache_folder", "use_compile_cache"]


def cache_folder() -> Path:
    """Where they are kept: ``phalanx/jax`` in ``$XDG_CACHE_HOME``, by default ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "phalanx" / "jax"


def use_compile_cache() -> None:
    """Turns JAX's persistent compilation cache on, unless it has a folder already.

    JAX's own variable ``JAX_COMPILATION_CACHE_DIR`` names another folder;
    ``JAX_ENABLE_COMPILATION_CACHE=false`` turns it off.
    """
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

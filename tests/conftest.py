"""What all tests share: a strict JAX, lean Hypothesis, and the things a machine may lack."""

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# Most of the time of a clean run goes into compiling: here nothing is optimised, and kernels are made by XLA's plainer
# emitters, which can change the last bits of results. ``scripts/check`` runs what must agree to the bit with the code
# that users run, too. Before JAX starts.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)

import jax
import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Compiled steps are kept between runs in the project's own folder, which git ignores.
jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

settings.register_profile(
    "phalanx",
    deadline=None,  # the first example of a jitted function compiles
    max_examples=int(os.environ.get("PHALANX_EXAMPLES", "25")),
    derandomize="PHALANX_EXAMPLES"
    not in os.environ,  # a check repeats itself; asking for more examples looks anew
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
settings.load_profile("phalanx")


def _shared_data() -> Path:
    return Path(os.environ.get("PHALANX_SHARED", ROOT.parent / "shared" / "data"))


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("PHALANX_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with real networks first: they wait much, and last of all one process would be alone with them."""
    first = {item.path for item in items if item.get_closest_marker("network")}
    items.sort(key=lambda item: item.path not in first)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips, with its reason, a test whose marker names something that this machine lacks."""
    if item.get_closest_marker("gpu") and jax.default_backend() != "gpu":
        pytest.skip("JAX finds no GPU")
    if item.get_closest_marker("shared") and not _shared_data().is_dir():
        pytest.skip(f"no recorded data at {_shared_data()}; set PHALANX_SHARED")
    if item.get_closest_marker("network"):
        _need_an_engine()
    if item.get_closest_marker("browser") and _chromium() is None:
        reason = "no Chromium on PATH; set PHALANX_CHROMIUM"
        if os.environ.get("PHALANX_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)


def _need_an_engine() -> None:
    from phalanx.errors import UsageError
    from phalanx.service.consensus import engine

    try:
        engine.find()
    except UsageError as problem:
        if os.environ.get("PHALANX_REQUIRE_ENGINE"):
            pytest.fail(str(problem))
        pytest.skip(str(problem))


@pytest.fixture(scope="module", autouse=True)
def _compiled_programs_do_not_pile_up() -> Iterator[None]:
    """Each compiled program maps memory of its own, and a process may hold 65,530 such maps: beyond them it dies."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded data; skips where it is absent (mark such tests ``shared``)."""
    path = _shared_data()
    if not path.is_dir():
        pytest.skip(f"no recorded data at {path}; set PHALANX_SHARED")
    return path


@pytest.fixture(scope="session")
def chromium() -> str:
    """The command that starts Chromium (mark such tests ``browser``)."""
    command = _chromium()
    if command is None:
        pytest.skip("no Chromium on PATH; set PHALANX_CHROMIUM")
    return command

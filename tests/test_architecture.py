"""The house's plan: imports run down its stairs, none in a circle, and importing does no work."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from test_public_names import all_of

SOURCE = Path(__file__).resolve().parent.parent / "src" / "phalanx"

GROUND = {"types", "verdicts", "errors", "files"}
BELOW_RUNTIME = GROUND | {"agents", "analysis", "envs", "data", "committee", "stl"}
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "verdicts": set(),
    "types": {"errors", "verdicts"},
    "data": GROUND,
    "committee": GROUND,
    "stl": GROUND,
    "agents": GROUND | {"committee"},
    "analysis": GROUND,
    "envs": GROUND | {"data", "committee", "stl"},
    "runtime": BELOW_RUNTIME,
    "service": BELOW_RUNTIME | {"runtime"},
    "cli": BELOW_RUNTIME | {"runtime", "service"},
}
"""Room -> the rooms that it may import, itself aside."""

INSIDE_FUNCTIONS_ONLY = {
    "fastapi",
    "matplotlib",
    "mlflow",
    "onnx",
    "pettingzoo",
    "plotly",
    "ray",
    "requests",
    "sklearn",
    "tensorboardX",
    "uvicorn",
    "wandb",
}
"""Heavy or optional packages: importing phalanx must need none of them."""


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The room of a module: its first name below phalanx; all of the command line is one room."""
    name = module.split(".")[1] if "." in module else ""
    return "cli" if name in ("cli", "__main__") or name.startswith("cli_") else name


def imports_of(tree: ast.AST, modules: set[str]) -> set[str]:
    """Every module that a tree imports, at any depth; names of phalanx resolved to the module they come from."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            base = node.module or ""
            found |= {name if (name := f"{base}.{alias.name}") in modules else base for alias in node.names}
    return found


def outside_functions(tree: ast.Module) -> ast.Module:
    """The tree without the bodies of its functions: what runs at import."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            return None

    return Strip().visit(tree)


FILES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}
MODULES = set(FILES)
by_module = pytest.mark.parametrize("module", sorted(MODULES))


def tree_of(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(), filename=str(FILES[module]))


@by_module
def test_imports_run_down_the_stairs(module: str) -> None:
    room = room_of(module)
    if not room:
        return
    assert room in MAY_IMPORT, (
        f"{module}: a room that the plan does not know; add it to docs/architecture.md and here"
    )
    reached = {room_of(name) for name in imports_of(tree_of(module), MODULES) if name.startswith("phalanx.")}
    assert reached - {room} <= MAY_IMPORT[room], (
        f"{module} imports from {reached - {room} - MAY_IMPORT[room]}"
    )


def test_no_import_runs_in_a_circle() -> None:
    # CycleError shows the circle
    graph = {module: (imports_of(tree_of(module), MODULES) & MODULES) - {module} for module in MODULES}
    tuple(TopologicalSorter(graph).static_order())


def test_the_plan_itself_has_no_circle() -> None:
    tuple(TopologicalSorter(MAY_IMPORT).static_order())


@by_module
def test_heavy_packages_are_imported_inside_functions(module: str) -> None:
    names = {name.split(".")[0] for name in imports_of(outside_functions(tree_of(module)), MODULES)}
    assert not names & INSIDE_FUNCTIONS_ONLY


@by_module
def test_public_names_are_listed_and_there(module: str) -> None:
    tree = tree_of(module)
    if not [node for node in tree.body if not isinstance(node, ast.Expr)]:
        return  # a package that holds a docstring only
    listed = all_of(tree)
    assert listed is not None, f"{module} has no __all__"
    assert len(listed) == len(set(listed))
    assert not [name for name in listed if name.startswith("_")]


@by_module
def test_every_module_and_public_object_says_what_it_is(module: str) -> None:
    tree = tree_of(module)
    assert ast.get_docstring(tree), f"{module} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{module}.{node.name} has no docstring"


def test_importing_everything_starts_no_device_and_loads_nothing_heavy() -> None:
    # In a process of its own: in this one a backend runs already.
    program = f"""
import importlib, sys
for name in {sorted(MODULES)!r}:
    module = importlib.import_module(name)
    missing = [public for public in getattr(module, "__all__", []) if not hasattr(module, public)]
    assert not missing, f"{{name}}.__all__ names what is not there: {{missing}}"
from jax._src import xla_bridge
assert not xla_bridge._backends, "importing phalanx started a device"
heavy = {sorted(INSIDE_FUNCTIONS_ONLY)!r}
loaded = [name for name in heavy if name in sys.modules]
assert not loaded, f"importing phalanx loaded {{loaded}}"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_help_needs_no_array_library() -> None:
    program = """
import sys
from phalanx.cli import main
assert main(["--help"]) == 0
assert "jax" not in sys.modules and "numpy" not in sys.modules and "polars" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "usage: phalanx" in done.stdout


def test_what_a_node_is_made_of_loads_no_jax() -> None:
    # a node that was killed is back as soon as it is loaded; JAX alone takes longer than everything else of it
    program = """
import sys
from phalanx import cli_ledger, cli_network, cli_up
from phalanx.service.consensus import gateway, node
assert "jax" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", ["from phalanx.runtime import store", "def f():\n    import phalanx.cli"])
def test_the_check_sees_an_import_that_runs_up(line: str) -> None:
    names = imports_of(ast.parse(line), MODULES)
    assert {room_of(name) for name in names} & {"runtime", "cli"}

"""The public names of every module, pinned: none appears, goes or is renamed unnoticed.

After a wanted change: ``make names``, look at the difference, commit it with a line in CHANGELOG.md.
"""

import ast
import json
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"
PINNED = Path(__file__).with_name("public_names.json")


def all_of(tree: ast.Module) -> list[str] | None:
    """What a module's ``__all__`` lists, None where it has none."""
    for node in tree.body:
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        named = isinstance(target, ast.Name) and target.id == "__all__"
        if named and isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            return ast.literal_eval(node.value)
    return None


def public_names() -> dict[str, list[str]]:
    """Module -> the names in its ``__all__``, sorted; modules whose name starts with an underscore are private."""
    found = {}
    for path in sorted((SOURCE / "phalanx").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if any(part.startswith("_") and part != "__init__" for part in parts):
            continue
        listed = all_of(ast.parse(path.read_text()))
        if listed:
            found[".".join(part for part in parts if part != "__init__")] = sorted(listed)
    return found


def test_public_names_are_those_pinned() -> None:
    assert public_names() == json.loads(PINNED.read_text()), "if this change is wanted: make names"


if __name__ == "__main__":
    PINNED.write_text(json.dumps(public_names(), indent=1) + "\n")

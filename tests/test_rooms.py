"""Imports run one way: restorer <- training <- export, restorer <- plugins; the runtime knows no torch."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "restorer": ("torch", "pedalboard", "onnx", "restorer.training", "restorer.export", "restorer.plugins"),
    "training": ("restorer.export", "restorer.plugins", "pedalboard", "onnx"),
    "training/rendering": ("torch", "restorer.export", "restorer.plugins", "onnx"),
    "export": ("restorer.plugins", "pedalboard"),
    "plugins": ("torch", "onnx", "restorer.training", "restorer.export"),
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files_of(room: str) -> list[Path]:
    """Those of rooms inside it are theirs."""
    inner = [ROOT / other for other in FORBIDDEN if other.startswith(f"{room}/")]
    return [path for path in (ROOT / room).rglob("*.py") if not set(inner) & set(path.parents)]


@pytest.mark.parametrize("room", FORBIDDEN)
def test_room_imports_only_what_it_may(room):
    files = files_of(room)
    assert files
    for path in files:
        for name in imported(path):
            bad = [f for f in FORBIDDEN[room] if name == f or name.startswith(f + ".")]
            assert not bad, f"{path.relative_to(ROOT)} imports {name}"


def test_nothing_is_unpickled():
    for room in FORBIDDEN:
        for path in (ROOT / room).rglob("*.py"):
            names = imported(path)
            assert not names & {"pickle", "dill", "joblib", "shelve"}, path
            assert "torch.load(" not in path.read_text(), path
            assert "allow_pickle=True" not in path.read_text(), path

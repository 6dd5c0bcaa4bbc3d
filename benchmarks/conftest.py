"""Which models the benchmarks measure: the bundled one, or those that RESTORER_MODEL names.

Several paths in RESTORER_MODEL are separated as in PATH.
"""

import os
from pathlib import Path

import pytest

from restorer.bundled import find_model


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "model" in metafunc.fixturenames:
        named = os.environ.get("RESTORER_MODEL")
        models = [Path(name) for name in named.split(os.pathsep)] if named else [find_model(None)]
        metafunc.parametrize("model", models, ids=[path.stem for path in models])


def setting(name: str, default: float) -> float:
    """A number from the environment, for shorter or longer runs."""
    return float(os.environ.get(name, default))

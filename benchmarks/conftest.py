"""Which models the benchmarks measure: the bundled ones, or those that RESTORER_MODEL names.

Several paths in RESTORER_MODEL are separated as in PATH. Bars are for the bundled models; others are only measured.
"""

import os
from pathlib import Path

import pytest

from restorer.bundled import bundled_models, find_model, is_bundled


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "model" in metafunc.fixturenames:
        named = os.environ.get("RESTORER_MODEL")
        models = [find_model(name) for name in named.split(os.pathsep)] if named else list(bundled_models().values())
        metafunc.parametrize("model", models, ids=[path.stem for path in models])


def has_bars(model: Path) -> bool:
    """Whether a model must reach the speeds that the README promises."""
    return is_bundled(model)


def setting(name: str, default: float) -> float:
    """A number from the environment, for shorter or longer runs."""
    return float(os.environ.get(name, default))

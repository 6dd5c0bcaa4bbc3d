"""What is installed beside the package: lower bounds for users, a lock for the tests, and a line on how to check it."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TESTED = ("mp3", "test", "bench")  # what the README's command for the tests installs
INSTALLERS = ("setuptools",)  # which pip freeze leaves out


def named(extra: str | None) -> list[Requirement]:
    """What an extra asks for, those of the extras that it names included; None: what everyone gets."""
    texts = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    found = []
    for requirement in map(Requirement, texts):
        if requirement.name == PROJECT["name"]:
            found += [inner for other in requirement.extras for inner in named(other)]
        else:
            found.append(requirement)
    return found


def locked() -> dict[str, Version]:
    rows = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pins = [Requirement(row) for row in rows]
    assert all(re.fullmatch(r"==[^*,]+", str(pin.specifier)) for pin in pins)
    return {canonicalize_name(pin.name): Version(str(pin.specifier).removeprefix("==")) for pin in pins}


def test_dependencies_have_lower_bounds_only() -> None:
    for extra in (None, *PROJECT["optional-dependencies"]):
        for requirement in named(extra):
            assert [part.operator for part in requirement.specifier] == [">="], requirement
            assert requirement.url is None


def test_the_lock_file_pins_all_that_the_tests_need() -> None:
    pins = locked()
    for extra in (None, *TESTED):
        for requirement in (wanted for wanted in named(extra) if wanted.name not in INSTALLERS):
            version = pins.get(canonicalize_name(requirement.name))
            assert version is not None and version in requirement.specifier, requirement


def test_checksums_of_the_weights_are_shipped_and_the_readme_says_what_is_trusted() -> None:
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["restorer"]
    assert "weights/*" in shipped and (ROOT / "restorer" / "weights" / "SHA256SUMS").is_file()
    security = (ROOT / "README.md").read_text().split("\n## Security\n")[1].split("\n## ")[0]
    for words in ("not trusted", "SHA256SUMS", "pip-audit", "constraints.txt"):
        assert words in security

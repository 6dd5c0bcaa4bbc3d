"""SHA256SUMS: a folder's models with their checksums, as `sha256sum --check SHA256SUMS` reads them.

python -m restorer.checksums FOLDER    writes it for the ONNX files of FOLDER
"""

import hashlib
import sys
from pathlib import Path

from restorer.errors import ModelError
from restorer.whole_file import whole_file

NAME = "SHA256SUMS"


def write_sums(folder: Path) -> Path:
    """Write the checksums of all ONNX files of a folder into its SHA256SUMS, and return its path."""
    lines = [f"{_sum(file)}  {file.name}\n" for file in sorted(folder.glob("*.onnx"))]
    with whole_file(folder / NAME) as partial:
        partial.write_text("".join(lines), encoding="ascii")
    return folder / NAME


def check_sums(folder: Path) -> None:
    """Compare the files of a folder with its SHA256SUMS.

    Raises
    ------
    ModelError : a file has another checksum, or is not listed; or there is no list, or it is damaged.
    """
    told = _read_sums(folder)
    for file in sorted({*folder.glob("*.onnx"), *(folder / name for name in told)}):
        _compare(_sum(file) if file.is_file() else "", told, file)


def check_data(data: bytes, file: Path) -> None:
    """Compare what was read from a file with the SHA256SUMS of its folder.

    Raises
    ------
    ModelError : as `check_sums`.
    """
    _compare(hashlib.sha256(data).hexdigest(), _read_sums(file.parent), file)


def _read_sums(folder: Path) -> dict[str, str]:
    """Name -> checksum."""
    again = f"python -m restorer.checksums {folder}"
    try:
        rows = [line.split() for line in (folder / NAME).read_text(encoding="ascii").splitlines()]
        return {name: said for said, name in rows}
    except FileNotFoundError:
        raise ModelError(f"{folder / NAME} does not exist; reinstall restorer, or make it: {again}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / NAME} is no list of checksums; reinstall restorer, or run: {again}") from error


def _compare(found: str, told: dict[str, str], file: Path) -> None:
    if told.get(file.name) != found:
        raise ModelError(
            f"{file}: is not the file whose checksum {NAME} holds; reinstall restorer, or after an export of "
            f"new weights run: python -m restorer.checksums {file.parent}"
        )


def _sum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python -m restorer.checksums FOLDER, a folder of ONNX models")
    print(write_sums(Path(sys.argv[1])))

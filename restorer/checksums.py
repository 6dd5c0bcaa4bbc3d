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
    ModelError : a file has another checksum, or is not listed; or there is no list.
    """
    if not (folder / NAME).is_file():
        raise ModelError(f"{folder / NAME} does not exist; make it: python -m restorer.checksums {folder}")
    rows = (line.split() for line in (folder / NAME).read_text(encoding="ascii").splitlines())
    told = {name: said for said, name in rows}
    for file in sorted({*folder.glob("*.onnx"), *(folder / name for name in told)}):
        if not file.is_file() or told.get(file.name) != _sum(file):
            raise ModelError(
                f"{file}: is not the file whose checksum {NAME} holds; reinstall restorer, or after an export of "
                f"new weights run: python -m restorer.checksums {folder}"
            )


def _sum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


if __name__ == "__main__":
    print(write_sums(Path(sys.argv[1])))

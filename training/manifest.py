"""A manifest: which files of a folder of music belong to which split, as CSV."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from restorer.errors import ConfigError
from restorer.model_checks import shown
from restorer.whole_file import whole_file

REQUIRED = ("file", "split")
COLUMNS = ("file", "split", "bandwidth_hz", "artist", "title", "licence")  # of those that are written here


def read_manifest(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a CSV file with the columns file and split, and any others, by their file.

    Raises
    ------
    ConfigError
        It cannot be read, is no CSV, lacks a column, or a row is incomplete; the message names the line.
    """
    rows: dict[str, dict[str, str]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            if not set(REQUIRED) <= set(reader.fieldnames or ()):
                raise ConfigError(f"manifest '{path}' needs the columns file, split; has {shown(reader.fieldnames)}")
            for row in reader:
                _check_row(row, f"manifest '{path}', line {reader.line_num}")
                rows[row["file"]] = row
    except OSError as error:
        raise ConfigError(f"manifest '{path}' cannot be read: {error.strerror or error}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"manifest '{path}' is no CSV file in UTF-8: {error}") from None
    return rows


def write_manifest(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write rows of `COLUMNS`, in place of what was there: readers find the old manifest or the new one."""
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8", errors="replace") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def _check_row(row: dict[str, str], where: str) -> None:
    if None in row or None in row.values():
        raise ConfigError(f"{where}: has more or fewer fields than the first line")
    if not row["file"] or not row["file"].isprintable():
        raise ConfigError(f"{where}: the file is named {shown(row['file'])}; give its path below the folder of music")
    bandwidth = row.get("bandwidth_hz")
    try:
        good = not bandwidth or 0 < float(bandwidth) < 1e6
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"{where}: bandwidth_hz must be a frequency in Hz or empty and not {shown(bandwidth)}")

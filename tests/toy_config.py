"""A training config as the TOML file that a user would write."""

import json
from pathlib import Path
from typing import Any


def write_config(config: Any, path: Path) -> Path:
    """Write all tables of a `Config` but those that are None."""
    values = config.to_dict()
    tables = (
        f"[{name}]\n" + "\n".join(f"{key} = {json.dumps(v)}" for key, v in values[name].items() if v is not None)
        for name in ("generator", "critic", "loss", "schedule", "data")
    )
    path.write_text(f'name = "{values["name"]}"\n' + "\n".join(tables))
    return path

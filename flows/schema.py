"""The JSON schema of the models' YAML files, for editors to complete and check them."""

import json
import sys
from pathlib import Path
from typing import Final

from pipeline.config import Settings
from pipeline.errors import ConfigError

SCHEMA: Final = Path("conf/schema.json")


def schema(*, write: bool) -> None:
    """Print the schema, or write it to `SCHEMA`.

    Raises
    ------
    ConfigError
        If it is to be written, and the current folder has no `conf/`.
    """
    text = json.dumps(Settings.model_json_schema(), indent=1) + "\n"
    if not write:
        sys.stdout.write(text)
    elif SCHEMA.parent.is_dir():
        SCHEMA.write_text(text, encoding="utf-8")
    else:
        message = f"{SCHEMA} is written in a folder that has conf/. Got {Path.cwd()}."
        raise ConfigError(message)

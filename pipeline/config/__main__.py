"""Prints the JSON schema of a model's file: `python -m pipeline.config > conf/schema.json`."""

import json
import sys

from pipeline.config import Settings

if __name__ == "__main__":
    sys.stdout.write(json.dumps(Settings.model_json_schema(), indent=1) + "\n")

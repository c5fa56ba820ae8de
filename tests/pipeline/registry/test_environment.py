import hashlib
import json
from pathlib import Path

import numpy as np

from pipeline.registry import environment

LOCK = Path(__file__).parents[3] / "uv.lock"


def test_the_lock_file_of_the_checkout_is_found_and_hashed():
    assert environment.lock() == LOCK
    assert environment.describe()["lock_sha256"] == hashlib.sha256(LOCK.read_bytes()).hexdigest()


def test_requirements_name_the_installed_versions():
    assert f"numpy=={np.__version__}" in environment.requirements()
    assert json.loads(environment.describe()["packages"])["numpy"] == np.__version__

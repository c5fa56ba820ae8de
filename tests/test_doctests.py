import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for folder in ("pipeline", "flows", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if ">>>" in path.read_text()
]
"""Only they are imported; pytest's own collection imports every module, MLflow with them."""


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_show_what_really_comes_out(module):
    found = doctest.testmod(import_module(module), optionflags=doctest.ELLIPSIS)

    assert found.attempted > 0
    assert found.failed == 0

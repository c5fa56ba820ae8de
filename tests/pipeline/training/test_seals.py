import json
import os
import re

import numpy as np
import pytest

from pipeline.errors import RegistryError
from pipeline.training.seals import SEAL, check_seal, files_of, seal


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "estimator.ubj").write_bytes(b"abc" * 100)
    (tmp_path / "manifest.json").write_text('{"name": "a"}')
    seal(tmp_path)
    return tmp_path


def test_a_sealed_folder_is_whole(folder):
    check_seal(folder)
    seal(folder)
    check_seal(folder)


def test_any_changed_byte_is_noticed(folder):
    random = np.random.default_rng(0)
    names = files_of(folder)
    for _ in range(500):
        file = folder / names[random.integers(len(names))]
        whole = file.read_bytes()
        place = random.integers(len(whole))
        file.write_bytes(
            whole[:place] + bytes([whole[place] ^ 1 << random.integers(8)]) + whole[place + 1 :]
        )
        with pytest.raises(RegistryError, match=r"Export the model again"):
            check_seal(folder)
        file.write_bytes(whole)
    check_seal(folder)


@pytest.mark.parametrize(
    ("name", "kind"), [("model/estimator.ubj", "removed"), ("model/other.skops", "added")]
)
def test_removed_and_added_files_are_named(folder, name, kind):
    (folder / name).unlink() if kind == "removed" else (folder / name).write_text("")

    with pytest.raises(RegistryError, match=re.escape(f"{kind}: {name}. Export")):
        check_seal(folder)


def test_other_files_may_stand_beside_the_sealed_ones(folder):
    (folder / "captures.db").write_text("a")
    check_seal(folder)
    seal(folder)
    (folder / "captures.db").write_text("b")
    check_seal(folder)


@pytest.mark.parametrize("target", ["/etc/hostname", "manifest.json", "nowhere", "."])
def test_links_are_refused(folder, target):
    (folder / "model" / "link").symlink_to(target)

    for call in (check_seal, seal, files_of):
        with pytest.raises(RegistryError, match=r"must be a plain file\. Got a link"):
            call(folder)


def test_devices_are_refused(folder):
    os.mkfifo(folder / "model" / "pipe")

    with pytest.raises(RegistryError, match="must be a plain file"):
        check_seal(folder)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "5", '{"a": 5}', "\udcff", json.dumps({"../x": "a"})]
)
def test_a_seal_that_is_nonsense_is_refused(folder, content):
    (folder / SEAL).write_bytes(content.encode("utf-8", "surrogateescape"))

    with pytest.raises(RegistryError):
        check_seal(folder)

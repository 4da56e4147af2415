"""The state store on a local folder: what opens it, what does not, and what is left of it."""

import base64
import json
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deid.errors import ConfigError, DeidError
from deid.privacy import vault, wrapping
from deid.privacy.vault import StateError, Vault
from deid.shards import storage

NAMES = st.text("abcdefgh0123456789-_", min_size=1, max_size=12)


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "state.key"
    wrapping.new_key_file(path)
    return str(path)


@pytest.fixture
def store(tmp_path: Path) -> Vault:
    return vault.create(str(tmp_path / "state" / "run"), None)


@given(name=NAMES, data=st.binary(max_size=4096), folder=NAMES)
def test_what_is_put_comes_back(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes, folder: str
) -> None:
    store = vault.create(str(tmp_path_factory.mktemp("state")), None)
    store.put(f"{folder}/{name}", data)
    assert store.get(f"{folder}/{name}") == data
    assert store.names() == store.names(f"{folder}/") == [f"{folder}/{name}"]


def test_nothing_of_the_content_lies_there_and_no_encryption_repeats(store: Vault) -> None:
    canary = b"canary-7f31 " * 100
    for name in ("a", "b", "c"):
        store.put(name, canary)
    written = [Path(store.uri, name).read_bytes() for name in ("a", "b", "c")]
    assert not any(b"canary" in data for data in written)
    assert len({data[:12] for data in written}) == 3
    assert all(len(data) == 12 + len(canary) + 16 for data in written)
    assert store.key not in b"".join(written)
    assert store.key.hex() not in repr(store)
    assert str(store.key) not in repr(store)


def test_an_object_stays_what_it_is_unless_asked(store: Vault) -> None:
    store.put("a", b"first")
    with pytest.raises(storage.AlreadyThere):
        store.put("a", b"second")
    assert store.get("a") == b"first"
    store.put("a", b"third", overwrite=True)
    assert store.get("a") == b"third"


@given(position=st.integers(0, 12 + 5 + 15), bit=st.integers(0, 7))
def test_one_flipped_bit_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, position: int, bit: int
) -> None:
    store = vault.create(str(tmp_path_factory.mktemp("state")), None)
    store.put("a", b"state")
    path = Path(store.uri, "a")
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(StateError, match="a is damaged"):
        store.get("a")


@pytest.mark.parametrize("length", [0, 5, 12, 20])
def test_a_cut_object_is_noticed(store: Vault, length: int) -> None:
    store.put("a", b"state")
    path = Path(store.uri, "a")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StateError, match="damaged"):
        store.get("a")


def test_swapped_missing_and_foreign_objects_are_refused(store: Vault, tmp_path: Path) -> None:
    store.put("a", b"one")
    store.put("b", b"two")
    Path(store.uri, "a").rename(tmp_path / "held")
    Path(store.uri, "b").rename(Path(store.uri, "a"))
    with pytest.raises(StateError, match="damaged or of another run key"):
        store.get("a")
    with pytest.raises(StateError, match="b is missing"):
        store.get("b")
    other = vault.create(store.uri, None)
    (tmp_path / "held").rename(Path(store.uri, "a"))
    with pytest.raises(StateError, match="another run key"):
        other.get("a")
    assert store.get("a") == b"one"


@pytest.mark.parametrize("name", ["", "key.json", "/a", "a/", "a//b", "../a", "a/../../b", "./a"])
def test_names_that_lead_elsewhere_are_refused(store: Vault, name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        store.put(name, b"")


def test_names_by_prefix(store: Vault) -> None:
    for name in ("faces/1", "faces/2", "faces-old", "commits/1"):
        store.put(name, b"")
    assert store.names() == ["commits/1", "faces-old", "faces/1", "faces/2"]
    assert store.names("faces") == ["faces-old", "faces/1", "faces/2"]
    assert store.names("faces/") == ["faces/1", "faces/2"]
    assert store.names("faces/2") == ["faces/2"]
    assert store.names("none/") == []


def test_one_object_can_be_deleted(store: Vault) -> None:
    for name in ("a", "b"):
        store.put(name, b"")
    store.delete("a")
    store.delete("a")
    assert store.names() == ["b"]


def test_a_worker_gets_it_by_pickle(store: Vault) -> None:
    store.put("a", b"x")
    assert pickle.loads(pickle.dumps(store)).get("a") == b"x"


def test_a_key_file_opens_it_again(tmp_path: Path, key_file: str) -> None:
    store = vault.create(str(tmp_path / "state"), key_file)
    store.put("a", b"x")
    again = vault.open(str(tmp_path / "state"), key_file)
    assert again == store
    assert again.get("a") == b"x"
    assert again.names() == ["a"]
    entry = json.loads((tmp_path / "state" / "key.json").read_bytes())
    assert entry["kind"] == "file"
    assert base64.b64encode(store.key).decode() not in json.dumps(entry)
    assert key_file not in json.dumps(entry)
    with pytest.raises(storage.AlreadyThere):
        vault.create(str(tmp_path / "state"), key_file)


def test_a_key_in_memory_opens_nothing_later(tmp_path: Path, key_file: str) -> None:
    store = vault.create(str(tmp_path / "state"), None)
    store.put("a", b"x")
    with pytest.raises(ConfigError, match="in memory alone"):
        vault.open(store.uri, None)
    with pytest.raises(StateError, match="no wrapped key"):
        vault.open(store.uri, key_file)


def test_another_key_file_and_a_damaged_wrapped_key_are_refused(tmp_path: Path, key_file: str) -> None:
    uri = str(tmp_path / "state")
    vault.create(uri, key_file)
    other = tmp_path / "other.key"
    wrapping.new_key_file(other)
    with pytest.raises(ConfigError, match="not the key file that the run began with"):
        vault.open(uri, str(other))
    with pytest.raises(ConfigError, match="wrapped with file"):
        vault.open(uri, "aws-kms://alias/x")
    for damaged in (
        b"",
        b"{}",
        b"[]",
        b'{"kind": "file", "wrapped": "?"}',
        b'{"kind": "file", "wrapped": 3}',
    ):
        (tmp_path / "state" / "key.json").write_bytes(damaged)
        with pytest.raises(DeidError, match=r"key\.json is damaged"):
            vault.open(uri, key_file)


def test_a_new_key_file_is_for_its_owner_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "state.key"
    wrapping.new_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(base64.b64decode(path.read_bytes())) == 32
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="not overwritten"):
        wrapping.new_key_file(path)
    assert path.read_bytes() == before
    with pytest.raises(ConfigError, match="cannot be written"):
        wrapping.new_key_file(tmp_path / "none" / "state.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, key_file: str, mode: int) -> None:
    os.chmod(key_file, mode)
    with pytest.raises(ConfigError, match=r"state_key: .*chmod 600"):
        vault.create(str(tmp_path / "state"), key_file)


@pytest.mark.parametrize("content", [b"", b"short", base64.b64encode(bytes(31)), bytes(32), b"\xff" * 44])
def test_what_is_no_key_file_is_refused(tmp_path: Path, key_file: str, content: bytes) -> None:
    Path(key_file).write_bytes(content)
    with pytest.raises(ConfigError, match="deid keys new"):
        vault.create(str(tmp_path / "state"), key_file)


def test_settings_that_are_no_key_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        vault.create(str(tmp_path / "state"), str(tmp_path / "absent"))
    for setting in ("aws-kms://", "gcp-kms://x"):
        with pytest.raises(ConfigError, match="aws-kms://KEY_ID"):
            vault.create(str(tmp_path / "state"), setting)
    assert not (tmp_path / "state").exists()


def test_destroyed_is_gone_and_the_record_says_what_was_done(tmp_path: Path, key_file: str) -> None:
    uri = str(tmp_path / "state" / "run")
    store = vault.create(uri, key_file)
    store.put("faces/1", b"x" * 100)
    store.put("commits/1", b"")
    Path(uri, "faces", ".deid-part-0123").write_bytes(b"half")  # of a worker that died
    Path(uri, "link").symlink_to(key_file)
    size = sum(path.lstat().st_size for path in Path(uri).rglob("*") if path.is_symlink() or path.is_file())
    record = store.destroy()
    assert not Path(uri).exists()
    assert Path(key_file).exists()
    assert (record["key"], record["order"]) == ("file", ["wrapped run key", "objects"])
    assert (record["objects"], record["bytes"], record["left"]) == (5, size, 0)
    assert any("key file stays" in line for line in record["not_promised"])
    assert any("unlinked" in line for line in record["not_promised"])
    json.dumps(record)
    assert str(tmp_path) not in json.dumps(record)
    with pytest.raises(StateError, match="missing"):
        store.get("faces/1")
    with pytest.raises(StateError, match="no wrapped key"):
        vault.open(uri, key_file)


def test_the_wrapped_key_goes_first(tmp_path: Path, key_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = vault.create(str(tmp_path / "state"), key_file)
    store.put("a", b"x")
    gone = list[str]()
    real = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, **more: (gone.append(path.name), real(path, **more))[1])
    store.destroy()
    assert gone == ["key.json", "a"]


def test_a_store_that_cannot_be_deleted_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = vault.create(str(tmp_path / "state"), None)
    store.put("a", b"x")
    monkeypatch.setattr(Path, "unlink", lambda path, **more: None)
    with pytest.raises(DeidError, match="1 objects are left"):
        store.destroy()


def test_an_empty_store_is_destroyed_too(tmp_path: Path) -> None:
    record = vault.create(str(tmp_path / "state"), None).destroy()
    assert (record["key"], record["order"], record["objects"], record["bytes"]) == (
        "memory",
        ["objects"],
        0,
        0,
    )

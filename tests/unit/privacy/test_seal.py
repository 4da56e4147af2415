"""The Merkle root against RFC 6962's own construction, and signatures that hold for one manifest and one key."""

import copy
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from deid.errors import ConfigError
from deid.privacy import seal

OBJECTS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.text(min_size=1, max_size=8),
            "bytes": st.integers(0, 99),
            "sha256": st.text("0a", max_size=4),
        }
    ),
    max_size=40,
    unique_by=lambda entry: entry["name"],
)
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def leaf(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(b"\x00" + text.encode()).digest()


def merged(leaves: list[bytes]) -> bytes:
    """The same tree from its leaves up: neighbours are joined, a last one without a neighbour rises as it is."""
    while len(leaves) > 1:
        pairs = [leaves[n : n + 2] for n in range(0, len(leaves), 2)]
        leaves = [
            hashlib.sha256(b"\x01" + b"".join(pair)).digest() if len(pair) == 2 else pair[0] for pair in pairs
        ]
    return leaves[0]


@given(OBJECTS)
def test_the_root_is_that_of_rfc_6962(objects: list[dict[str, Any]]) -> None:
    ordered = sorted(objects, key=lambda entry: entry["name"])
    expected = merged([leaf(entry) for entry in ordered]) if objects else hashlib.sha256().digest()
    assert seal.merkle_root(objects) == expected.hex()
    assert seal.merkle_root(reversed(objects)) == expected.hex()


@pytest.mark.parametrize(
    ("count", "root"),
    [
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
        (7, "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
        (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
    ],
)
def test_the_tree_is_that_of_certificate_transparency(
    count: int, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known roots of the reference implementation's test leaves."""
    values = [
        b"", b"\0", b"\x10", b"\x20\x21", b"\x30\x31", b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57", bytes(range(0x60, 0x70)),
    ]  # fmt: skip
    monkeypatch.setattr(seal, "canonical", lambda entry: values[int(entry["name"])])
    objects = [{"name": str(n), "bytes": 0, "sha256": ""} for n in range(count)]
    assert seal.merkle_root(objects) == root


@given(OBJECTS.filter(bool), st.data())
def test_any_change_of_an_object_changes_the_root(objects: list[dict[str, Any]], data: st.DataObject) -> None:
    root = seal.merkle_root(objects)
    number = data.draw(st.integers(0, len(objects) - 1))
    for change in ({"name": "another name"}, {"bytes": 100}, {"sha256": "f"}):
        changed = copy.deepcopy(objects)
        changed[number] |= change
        assert seal.merkle_root(changed) != root
    assert seal.merkle_root(objects[:number] + objects[number + 1 :]) != root
    assert seal.merkle_root([*objects, {"name": "another name", "bytes": 0, "sha256": ""}]) != root


def test_one_name_twice_is_refused() -> None:
    entry = {"name": "a", "bytes": 0, "sha256": ""}
    with pytest.raises(ValueError, match="one name"):
        seal.merkle_root([entry, {**entry, "bytes": 1}])


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_a_signature_survives_the_file_and_no_change(manifest: dict[str, Any]) -> None:
    key = seal.new_key()
    signed = seal.sign(manifest, key)
    read = json.loads(json.dumps(signed, indent=2))
    assert seal.signed_by(read, key.public_key())
    assert not seal.signed_by(read, seal.new_key().public_key())
    assert not seal.signed_by({**read, "one more": 1}, key.public_key())
    assert not seal.signed_by(manifest | {"signature": 3}, key.public_key())


def test_every_part_of_the_signature_counts() -> None:
    key = seal.new_key()
    signed = seal.sign({"a": 1}, key)
    assert signed["signature"]["algorithm"] == "Ed25519"
    assert signed["signature"]["public_key"] == seal.public_hex(key.public_key())
    value = signed["signature"]["value"]
    changes: list[dict[str, Any]] = [
        {"algorithm": "none"}, {"public_key": seal.public_hex(seal.new_key().public_key())}, {"more": 1},
        {"value": ""}, {"value": "zz"}, {"value": None}, {"value": value[:-2]}, {"value": "00" * 64},
        {"value": value.upper()}, {"value": f" {value}"}, {"value": f"{value}\n"},
        {"value": f"{value[:2]} {value[2:]}"},
    ]  # fmt: skip
    for change in changes:
        assert not seal.signed_by({**signed, "signature": signed["signature"] | change}, key.public_key())
    assert not seal.signed_by({"a": 1}, key.public_key())
    for change in changes[:3]:  # signed by the right key, under another's name
        named = {n: v for n, v in signed["signature"].items() if n != "value"} | change
        forged = key.sign(seal.canonical({"a": 1, "signature": named})).hex()
        assert not seal.signed_by({"a": 1, "signature": named | {"value": forged}}, key.public_key())


def test_what_json_cannot_hold_is_not_signed() -> None:
    for value in (float("nan"), "\ud800"):
        with pytest.raises(ValueError):
            seal.sign({"a": value}, seal.new_key())


def test_key_files_are_written_once_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "sign.pem"
    public = seal.new_key_files(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert seal.public_hex(seal.load_private(path).public_key()) == public
    for given_key in (public, public.upper(), f"{path}.pub"):
        assert seal.public_hex(seal.load_public(given_key)) == public
    before = path.read_bytes()
    for removed in (None, path):  # both are there, then the public one alone
        if removed:
            removed.unlink()
        with pytest.raises(ConfigError, match="not overwritten"):
            seal.new_key_files(path)
    path.write_bytes(before)
    Path(f"{path}.pub").unlink()
    with pytest.raises(ConfigError, match="not overwritten"):
        seal.new_key_files(path)
    assert path.read_bytes() == before
    assert not Path(f"{path}.pub").exists()


def test_openssl_agrees(tmp_path: Path) -> None:
    """The signature is an ordinary one: another program checks it with the public file."""
    path = tmp_path / "sign.pem"
    seal.new_key_files(path)
    signed = seal.sign({"a": [1, "ü"]}, seal.load_private(path))
    value = bytes.fromhex(signed["signature"].pop("value"))
    (tmp_path / "text").write_bytes(seal.canonical(signed))
    (tmp_path / "value").write_bytes(value)
    command = f"openssl pkeyutl -verify -pubin -inkey {path}.pub -rawin -in {tmp_path}/text -sigfile {tmp_path}/value"
    try:
        done = subprocess.run(command.split(), capture_output=True, check=False, timeout=60)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    assert b"Verified Successfully" in done.stdout, done.stderr


def test_what_is_no_key_is_refused_in_words(tmp_path: Path) -> None:
    absent, text, curve, locked = (tmp_path / name for name in ("absent", "text", "curve", "locked"))
    text.write_text("hello")
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    elliptic = ec.generate_private_key(ec.SECP256R1())
    curve.write_bytes(elliptic.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    phrase = serialization.BestAvailableEncryption(b"x")
    locked.write_bytes(seal.new_key().private_bytes(pem, pkcs8, phrase))
    for path, words in (
        (absent, "No such file"), (text, "deid keys signing"), (curve, "no Ed25519 key"), (locked, "passphrase"),
    ):  # fmt: skip
        if path.exists():
            os.chmod(path, 0o600)
        with pytest.raises(ConfigError, match=rf"signing\.key: .*{words}"):
            seal.load_private(path)
    curve.write_bytes(
        elliptic.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    for given_key, words in (
        (str(absent), "64 hex"), ("ab" * 31, "64 hex"), (str(text), "no public key"), (str(curve), "no Ed25519"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            seal.load_public(given_key)


def test_a_signing_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sign.pem"
    seal.new_key_files(path)
    os.chmod(path, 0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        seal.load_private(path)

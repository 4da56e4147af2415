"""The seal of a release: a Merkle root over its objects, and an Ed25519 signature of the manifest that names them."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from deid.errors import ConfigError
from deid.privacy import wrapping

ALGORITHM = "Ed25519"
_VALUE = re.compile("[0-9a-f]{128}")  # a signature as `sign` writes it
_RAW = serialization.Encoding.Raw, serialization.PublicFormat.Raw
_PEM = serialization.Encoding.PEM


def canonical(value: Any) -> bytes:
    """JSON that is the same for the same value: sorted keys, no spaces, UTF-8, numbers as Python writes them.

    Raises:
        ValueError: not a finite number, or text that UTF-8 cannot hold.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def merkle_root(objects: Iterable[Mapping[str, Any]]) -> str:
    """Root (hex) of the Merkle tree over objects {name, bytes, sha256}, sorted by name (RFC 6962, section 2.1).

    A leaf is SHA-256 of 0x00 and the canonical JSON of the three, a node SHA-256 of 0x01 and both its children;
    no object gives SHA-256 of nothing.

    Raises:
        ValueError: a name is there twice.
    """
    entries = sorted(
        ({"name": entry["name"], "bytes": entry["bytes"], "sha256": entry["sha256"]} for entry in objects),
        key=lambda entry: str(entry["name"]),
    )
    if len({entry["name"] for entry in entries}) != len(entries):
        raise ValueError("two objects have one name")
    leaves = [hashlib.sha256(b"\0" + canonical(entry)).digest() for entry in entries]
    return (_tree(leaves) if leaves else hashlib.sha256(b"").digest()).hex()


def _tree(leaves: Sequence[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    left = 1 << (len(leaves) - 1).bit_length() - 1  # the largest power of two below the number of leaves
    return hashlib.sha256(b"\x01" + _tree(leaves[:left]) + _tree(leaves[left:])).digest()


def new_key() -> Ed25519PrivateKey:
    """A fresh signing key."""
    return Ed25519PrivateKey.generate()


def new_key_files(path: str | Path) -> str:
    """Write a signing key to `path` (PEM, for its owner alone) and its public half to `path`.pub (PEM).

    Returns:
        The public key, hex.

    Raises:
        ConfigError: one of the two is there already, or cannot be written.
    """
    key, public = new_key(), Path(f"{path}.pub")
    if public.exists():
        raise ConfigError(f"{public}: is there already and is not overwritten; give another name")
    private = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    wrapping.write_private(path, private)
    wrapping.write_private(
        public, key.public_key().public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo), 0o644
    )
    return public_hex(key.public_key())


def public_hex(key: Ed25519PublicKey) -> str:
    """The 32 bytes of a public key (RFC 8032), hex."""
    return key.public_bytes(*_RAW).hex()


def load_private(path: str | Path) -> Ed25519PrivateKey:
    """The signing key in a PEM file (PKCS #8, no passphrase).

    Raises:
        ConfigError: missing, open to group or others, or no Ed25519 key.
    """
    data = wrapping.read_private(path, "signing.key")
    hint = "make one with: deid keys signing FILE"
    try:
        key = serialization.load_pem_private_key(data, None)
    except TypeError:
        raise ConfigError(f"signing.key: {path} has a passphrase; give a key without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"signing.key: {path} is no private key in PEM; {hint}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"signing.key: {path} is no Ed25519 key; {hint}")
    return key


def load_public(given: str) -> Ed25519PublicKey:
    """The public key that a user gives: 64 hex characters, or a PEM file.

    Raises:
        ConfigError: neither.
    """
    if len(given) == 64 and not given.strip("0123456789abcdefABCDEF"):
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(given))
    try:
        key = serialization.load_pem_public_key(Path(given).read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{given}: {error.strerror}; give the public key as 64 hex characters or a PEM file"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(
            f"{given} is no public key in PEM; give FILE.pub of: deid keys signing FILE"
        ) from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{given} is no Ed25519 key; give FILE.pub of: deid keys signing FILE")
    return key


def sign(manifest: Mapping[str, Any], private: Ed25519PrivateKey) -> dict[str, Any]:
    """The manifest with its "signature": over the canonical JSON of everything but the signature's value."""
    signature = {"algorithm": ALGORITHM, "public_key": public_hex(private.public_key())}
    value = private.sign(canonical({**manifest, "signature": signature})).hex()
    return {**manifest, "signature": {**signature, "value": value}}


def signed_by(manifest: Mapping[str, Any], public: Ed25519PublicKey) -> bool:
    """Whether the manifest is as the owner of `public` signed it."""
    signature = manifest.get("signature")
    value = signature.get("value") if isinstance(signature, dict) else None
    if not isinstance(signature, dict) or not isinstance(value, str) or not _VALUE.fullmatch(value):
        return False
    named = {name: value for name, value in signature.items() if name != "value"}
    if named != {"algorithm": ALGORITHM, "public_key": public_hex(public)}:
        return False
    try:
        public.verify(bytes.fromhex(value), canonical({**manifest, "signature": named}))
    except (InvalidSignature, ValueError):
        return False
    return True

"""The encrypted state store of a run: objects that one random key opens, and that are gone once the key is.

Every object is encrypted with AES-256-GCM (NIST SP 800-38D) under the run key: a fresh random nonce of 96 bits, the
object's name as associated data, so that no object passes for another. The run key is wrapped with what `state_key`
names, and lies below the store as `key.json`; without `state_key` it is in memory alone.
"""

import base64
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from deid.errors import ConfigError, InputError
from deid.privacy import shred, wrapping
from deid.shards import storage

KEY_OBJECT = "key.json"  # the wrapped run key; no object of the store can have this name
_NONCE_BYTES = 12


class StateError(InputError):
    """An object of the state store is missing, damaged or of another run key."""


@dataclass(frozen=True)
class Vault:
    """The store below `uri`; may be pickled, and then holds the run key in plain.

    Args:
        uri: folder or s3:// prefix of one run, of this store alone.
        key: run key, 32 bytes.
        kind: what the run key is wrapped with: "memory" (nothing), "file" or "aws-kms".
    """

    uri: str
    key: bytes = field(repr=False)
    kind: str = "memory"

    def put(self, name: str, data: bytes, overwrite: bool = False) -> None:
        """Encrypt and write an object of less than 2 GiB.

        Raises:
            storage.AlreadyThere: the name is taken and `overwrite` is false.
        """
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + AESGCM(self.key).encrypt(nonce, data, name.encode())
        storage.write_bytes(self._place(name), sealed, overwrite)

    def get(self, name: str) -> bytes:
        """An object's content.

        Raises:
            StateError: it is missing, damaged, another object's or of another run key.
        """
        place = self._place(name)
        try:
            sealed = storage.read_bytes(place)
        except InputError:
            if storage.exists(place):
                raise
            raise StateError(f"the state's object {name} is missing; start the run anew") from None
        try:
            return AESGCM(self.key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError):
            raise StateError(
                f"the state's object {name} is damaged or of another run key; start the run anew"
            ) from None

    def has(self, name: str) -> bool:
        """Whether the object is there."""
        return storage.exists(self._place(name))

    def names(self, prefix: str = "") -> list[str]:
        """Names of the objects that begin with `prefix`, sorted."""
        folder = storage.join(self.uri, prefix.rpartition("/")[0]) if "/" in prefix else self.uri
        skip = len(self.uri.rstrip("/")) + 1
        found = [uri[skip:] for uri in storage.list_table(folder)["uri"].to_pylist()]
        return sorted(name for name in found if name.startswith(prefix) and name != KEY_OBJECT)

    def delete(self, name: str) -> None:
        """Delete an object; none there is no error."""
        storage.delete(self._place(name))

    def destroy(self) -> dict[str, Any]:
        """See the function `destroy`."""
        return _destroy(self.uri, self.kind)

    def _place(self, name: str) -> str:
        parts = name.split("/")
        if name == KEY_OBJECT or not all(parts) or {".", ".."} & set(parts):
            raise ValueError(f"{name!r} is no name for an object of the state store")
        return storage.join(self.uri, name)


_MEMORY = (
    "the run key in the memory of the job's processes, and where the system or Ray swapped or spilled that memory, "
    "is not overwritten"
)
_LIMITS = {
    "memory": [_MEMORY],
    "file": [
        "the key file stays: with it, a copy of key.json made before opens copies of the objects",
        _MEMORY,
    ],
    "aws-kms": [
        "the KMS key stays: with it, a copy of key.json made before opens copies of the objects",
        _MEMORY,
    ],
}


def destroy(uri: str, state_key: str | None) -> dict[str, Any]:
    """Delete the wrapped key first, then every object, and look that nothing is left; what is gone already is no error.

    Args:
        state_key: with which the store was created.

    Returns:
        What was destroyed, in which order and how, and what that does not promise.

    Raises:
        PromiseError: something is left.
    """
    return _destroy(uri, wrapping.kind(state_key))


def _destroy(uri: str, kind: str) -> dict[str, Any]:
    done = shred.everything(uri, KEY_OBJECT)
    order = (["wrapped run key"] if kind != "memory" else []) + ["objects"]
    return {
        "key": kind,
        "order": order,
        **done,
        "not_promised": [*_LIMITS[kind], *done["not_promised"]],
    }


def create(uri: str, state_key: str | None) -> Vault:
    """A new store with a fresh run key, wrapped with `state_key`: a key file, aws-kms://KEY, or None.

    Raises:
        ConfigError: `state_key` cannot be used.
        StorageError: KMS did not answer.
        storage.AlreadyThere: a store with a wrapped key is there already.
    """
    kind = wrapping.kind(state_key)
    if state_key is None:
        return Vault(uri, secrets.token_bytes(wrapping.KEY_BYTES), kind)
    key, wrapped = wrapping.wrap(state_key)
    entry = {"version": 1, "kind": kind, "wrapped": base64.b64encode(wrapped).decode()}
    storage.write_bytes(storage.join(uri, KEY_OBJECT), json.dumps(entry).encode())
    return Vault(uri, key, kind)


def open(uri: str, state_key: str | None) -> Vault:
    """The store that `create` made with the same `state_key`.

    Raises:
        ConfigError: without `state_key`, or it is another one, or it cannot be used.
        StateError: there is no wrapped key, or it is damaged.
        StorageError: KMS did not answer.
    """
    if state_key is None:
        raise ConfigError(
            "state_key: without one the run key was in memory alone and went with the process; "
            "what it encrypted cannot be read any more"
        )
    kind, (written, wrapped) = wrapping.kind(state_key), _read_wrapped(uri)
    if kind != written:
        raise ConfigError(
            f"state_key: the run key is wrapped with {written}, not with {kind}; give the same as then"
        )
    return Vault(uri, wrapping.unwrap(state_key, wrapped), kind)


def _read_wrapped(uri: str) -> tuple[str, bytes]:
    """Kind and wrapped run key."""
    place = storage.join(uri, KEY_OBJECT)
    if not storage.exists(place):
        raise StateError("the state has no wrapped key: the run has ended, or had none; start the run anew")
    try:
        entry = json.loads(storage.read_bytes(place))
        return str(entry["kind"]), base64.b64decode(entry["wrapped"], validate=True)
    except (ValueError, KeyError, TypeError):
        raise StateError("the state's key.json is damaged; start the run anew") from None

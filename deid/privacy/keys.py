"""Everything that is drawn under the run secret: ids, names, orders and random generators.

Each use has its own label in HMAC-SHA256 (RFC 2104, FIPS 198-1), so that no value tells anything of another,
and nobody without the secret can compute or invert one.
"""

import hashlib
import hmac
import unicodedata

import numpy as np
from numpy.typing import NDArray

ID_BYTES = 16
Scalar = str | int | float | bool


def _derive(secret: bytes, label: str, message: bytes = b"") -> bytes:
    """32 bytes, keyed. Labels hold no NUL, so (label, message) has one encoding only."""
    if not secret:
        raise ValueError("the run secret is empty")
    return hmac.new(secret, label.encode() + b"\0" + message, hashlib.sha256).digest()


def _numbers(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "big", signed=False) for value in values)


def output_id(secret: bytes, unit: int, position: int) -> str:
    """Key of an output sample: 32 hex characters."""
    return _derive(secret, "deid/output-id", _numbers(unit, position))[:ID_BYTES].hex()


def face_id(secret: bytes, unit: int, position: int, face: int) -> str:
    """Id of the `face`-th face of an output sample: 32 hex characters."""
    return _derive(secret, "deid/face-id", _numbers(unit, position, face))[:ID_BYTES].hex()


def shard_name(secret: bytes, unit: int, content: bytes) -> str:
    """Base name of a unit's output shard with this hash of its content: 32 hex characters, without an extension."""
    return _derive(secret, "deid/shard-name", _numbers(unit) + content)[:ID_BYTES].hex()


def surrogate_id(secret: bytes, identities: NDArray[np.integer]) -> int:
    """Number of a set of gallery identities, 0 to 2^63 - 1."""
    return (
        int.from_bytes(_derive(secret, "deid/surrogate", _numbers(*sorted(identities.tolist())))[:8], "big")
        >> 1
    )


def subject(secret: bytes, value: Scalar) -> bytes:
    """What stands for a person's name in a run: 16 bytes.

    17, 17.0, "17" and " 17 " are one person, and so are the composed and decomposed forms of a letter (Unicode, NFC):
    one person taken for two would count twice towards k, two taken for one only cost a surrogate.
    """
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, float):
        text = str(int(value)) if value.is_integer() else repr(value)
    else:
        text = unicodedata.normalize("NFC", str(value)).strip()
    return _derive(secret, "deid/subject", text.encode("utf-8", "surrogatepass"))[:ID_BYTES]


def rng_for(secret: bytes, face_id: bytes) -> np.random.Generator:
    """Random generator of one face: the same for the same secret and id, unrelated to any other's."""
    seed = _derive(secret, "deid/face-rng", face_id)
    return np.random.default_rng(np.frombuffer(seed, "<u4"))


def permutation(secret: bytes, n: int) -> NDArray[np.int64]:
    """Keyed shuffle of 0..n-1, int64 [n]: the order of 64-bit keys from SHAKE-256 (FIPS 202).

    Equal keys (chance below n^2 / 2^65) keep their order. Needs 16 bytes a record.
    """
    if n < 0:
        raise ValueError("a permutation has no negative length")
    stream = hashlib.shake_256(_derive(secret, "deid/permutation")).digest(8 * n)
    return np.argsort(np.frombuffer(stream, "<u8"), kind="stable").astype(np.int64)

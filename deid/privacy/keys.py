"""Everything that is drawn under the run secret: ids, names, orders and random generators.

Each use has its own label in HMAC-SHA256 (RFC 2104, FIPS 198-1), so that no value tells anything of another,
and nobody without the secret can compute or invert one.
"""

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

ID_BYTES = 16
_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?(e[+-]?[0-9]{1,2})?", re.ASCII)
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


def video_id(secret: bytes, unit: int) -> str:
    """Id of an output video by the first of its units: 32 hex characters."""
    return _derive(secret, "deid/video-id", _numbers(unit))[:ID_BYTES].hex()


def face_id(secret: bytes, unit: int, position: int, face: int) -> str:
    """Id of the `face`-th face of an output sample: 32 hex characters."""
    return _derive(secret, "deid/face-id", _numbers(unit, position, face))[:ID_BYTES].hex()


def shard_name(secret: bytes, unit: int, content: bytes) -> str:
    """Base name of a unit's output shard with this hash of its content: 32 hex characters, without an extension."""
    return _derive(secret, "deid/shard-name", _numbers(unit) + content)[:ID_BYTES].hex()


def surrogate_id(secret: bytes, group: int, identities: Sequence[int]) -> int:
    """Number of a group's surrogate, 0 to 2^63 - 1. Two groups may have drawn the same gallery identities, and do not
    share what else their surrogates are steered to."""
    message = _numbers(group, *sorted(identities))
    return int.from_bytes(_derive(secret, "deid/surrogate", message)[:8], "big") >> 1


def subject(secret: bytes, value: Scalar) -> bytes:
    """What stands for a person's name in a run: 16 bytes.

    Spellings are one person: 17, 17.0, "017" and " 17 "; upper and lower case; widths, spaces, composed letters and
    invisible characters (Unicode, NFKC). One person taken for two would count twice towards k, two taken for one only
    cost a surrogate.
    """
    shown = unicodedata.normalize("NFKC", str(value)).casefold()
    shown = "".join(letter for letter in shown if unicodedata.category(letter) != "Cf")
    text = unicodedata.normalize("NFKC", " ".join(shown.split()))
    if _NUMBER.fullmatch(text):
        text = f"{Decimal(text).normalize() + 0:f}"
    return _derive(secret, "deid/subject", text.encode("utf-8", "surrogatepass"))[:ID_BYTES]


def rng_for(secret: bytes, face_id: bytes) -> np.random.Generator:
    """Random generator of one face: the same for the same secret and id, unrelated to any other's."""
    seed = _derive(secret, "deid/face-rng", face_id)
    return np.random.default_rng(np.frombuffer(seed, "<u4"))


def permutation(secret: bytes, n: int, of: bytes = b"") -> NDArray[np.int64]:
    """Keyed shuffle of 0..n-1, int64 [n]: the order of 64-bit keys from SHAKE-256 (FIPS 202).

    `of` tells one draw from another. Equal keys (chance below n^2 / 2^65) keep their order. Needs 16 bytes a record.
    """
    if n < 0:
        raise ValueError("a permutation has no negative length")
    stream = hashlib.shake_256(_derive(secret, "deid/permutation", of)).digest(8 * n)
    return np.argsort(np.frombuffer(stream, "<u8"), kind="stable").astype(np.int64)

"""Apparent sex and age of a face from its dlib embedding: two linear heads of the project's own, about a kilobyte.

They only choose which gallery identities may stand for a person, and are never written to any output in clear. How they
were made, how far they can be trusted and for whom: `docs/models/attributes.md`.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from deid.errors import ModelError

Floats = NDArray[np.floating[Any]]
DIM = 128  # of the dlib embedding
MAX_AGE = 100.0  # years
MALE, FEMALE, UNKNOWN = 1, 0, -1
_SHAPES = {"sex_weight": (DIM,), "sex_bias": (1,), "age_weight": (DIM,), "age_bias": (1,), "sex_band": (2,)}


@dataclass(frozen=True)
class AttributeHeads:
    """Linear heads on dlib embeddings.

    sex_weight: float32 [128], sex_bias: float32 [1], log odds of male, calibrated.
    age_weight: float32 [128], age_bias: float32 [1], years.
    sex_band: float32 [2], P(male) between these is no answer.
    """

    sex_weight: Floats
    sex_bias: Floats
    age_weight: Floats
    age_bias: Floats
    sex_band: Floats

    @classmethod
    def load(cls, path: str | Path | None = None) -> "AttributeHeads":
        """The heads in a safetensors file; None: those in the package.

        Raises:
            ModelError: the file cannot be read, or holds something else.
        """
        file = Path(path) if path else Path(__file__).parent / "data" / "attributes.safetensors"
        try:
            tensors = load_file(file)
        except (OSError, SafetensorError):
            raise ModelError(f"{file.name}: cannot be read as attribute heads; install deid again") from None
        if {name: tensor.shape for name, tensor in tensors.items()} != _SHAPES:
            raise ModelError(f"{file.name}: holds no attribute heads for {DIM}-d embeddings")
        return cls(**tensors)

    def save(self, path: str | Path) -> None:
        """Write the heads as float32; the same heads give the same bytes."""
        tensors = {
            name: np.asarray(getattr(self, name), np.float32).reshape(_SHAPES[name]) for name in _SHAPES
        }
        Path(path).write_bytes(save(tensors))

    def predict(self, embeddings: Floats) -> dict[str, NDArray[np.float32]]:
        """Attributes of dlib embeddings [N, 128].

        Returns:
            "sex": P(male), float32 [N], 0..1; "age": float32 [N], years, 0..100. NaN where the embedding is not finite.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != DIM:
            raise ValueError(f"dlib embeddings [N, {DIM}] wanted, not {list(embeddings.shape)}")
        known = np.asarray(np.isfinite(embeddings).all(axis=1))
        vectors = np.where(known[:, None], embeddings, 0).astype(np.float64)
        log_odds = vectors @ self.sex_weight + self.sex_bias
        age = np.clip(vectors @ self.age_weight + self.age_bias, 0, MAX_AGE)
        sex = 0.5 * (1 + np.tanh(0.5 * log_odds))  # the logistic function, without overflow
        return {
            name: np.where(known, values, np.nan).astype(np.float32)
            for name, values in (("sex", sex), ("age", age))
        }


def sex_class(probability: Floats, band: Floats | None = None) -> NDArray[np.int8]:
    """Apparent sex, int8 [N], of P(male) [N]: 1 male, 0 female, -1 inside the uncertain band, or NaN.

    `band` is [2], the lowest and highest P(male) that is no answer; None: that of the packaged heads.
    """
    low, high = _default().sex_band if band is None else band
    probability = np.asarray(probability)
    decided = np.where(probability > high, MALE, np.where(probability < low, FEMALE, UNKNOWN))
    return decided.astype(np.int8)


@cache
def _default() -> AttributeHeads:
    return AttributeHeads.load()

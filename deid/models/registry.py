"""The model registry, `registry.yaml`: source, version, hashes and licence of each; what a run accepts."""

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from typing import Annotated, Literal

import pydantic
import yaml
from pydantic import Field, StringConstraints

from deid.config import LicenceClass, Section
from deid.errors import ModelError
from deid.models import lineage
from deid.models.lineage import Origin, Use

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class Archive(Section):
    """One file of the package registry."""

    package: str
    version: str
    file: str
    sha256: Sha256
    size: int  # bytes


class Member(Section):
    """One file inside an archive."""

    path: str
    size: int  # bytes
    sha256: Sha256

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


class Model(Section):
    archive: str
    used_for: str
    licence: str
    licence_class: LicenceClass
    reason: str  # of the class, one line
    commercial_use: str
    source: str
    made_from: dict[str, Use] = Field(default_factory=dict)  # by name, of the registry or of its origins
    members: tuple[Member, ...]


class Packaged(Section):
    """Weights and galleries that this project's own recipes made, and its package brings along."""

    file: str  # below the package
    role: Literal["attributes", "segmenter"] | None = (
        None  # in which it may take the place of others; see `choose`
    )
    used_for: str
    licence: str
    licence_class: LicenceClass
    reason: str  # of the class, one line
    commercial_use: str
    source: str  # model card
    made_from: dict[str, Use]  # by name, of the registry or of its origins

    @property
    def sha256(self) -> str:
        return hashlib.sha256((resources.files("deid") / self.file).read_bytes()).hexdigest()


class Registry(Section):
    archives: dict[str, Archive]
    models: dict[str, Model]
    packaged: dict[str, Packaged] = Field(default_factory=dict)
    origins: dict[str, Origin] = Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _descended(self) -> "Registry":
        if faults := lineage.faults(self.packaged, self.models, self.origins):
            raise ValueError("; ".join(faults))
        return self

    def of_role(self, role: str) -> list[str]:
        """Names of the packaged models for a role, the one to be preferred first."""
        return [name for name, one in self.packaged.items() if one.role == role]

    def choose(self, role: str, accept: Iterable[str]) -> str:
        """The packaged model for a role: the first whose licence class is accepted; where none is, the first."""
        accept, names = tuple(accept), self.of_role(role)
        return next((name for name in names if self.packaged[name].licence_class in accept), names[0])

    def described(self, name: str) -> Model | Packaged:
        """The fetched or packaged model called `name`; ModelError when there is none."""
        return self.packaged[name] if name in self.packaged else self.model(name)

    def model(self, name: str) -> Model:
        """The model called `name`; ModelError with the known names when there is none."""
        if name not in self.models:
            raise ModelError(f"no model {name!r} in the registry; there are: {', '.join(self.models)}")
        return self.models[name]

    def archive(self, name: str) -> Archive:
        """The archive that holds the model called `name`."""
        return self.archives[self.model(name).archive]

    def siblings(self, name: str) -> list[Member]:
        """Members of every model in the same archive, those of `name` among them."""
        archive = self.model(name).archive
        return [
            member for model in self.models.values() if model.archive == archive for member in model.members
        ]


@cache
def load() -> Registry:
    """The packaged registry."""
    text = resources.files("deid.models").joinpath("registry.yaml").read_text(encoding="utf-8")
    return Registry.model_validate(yaml.safe_load(text))


def check_accepted(names: Iterable[str], accept: Iterable[str], registry: Registry | None = None) -> None:
    """Stop unless the licence class of each named model is among `accept`.

    Raises:
        ModelError: one line with each refused model, its class and reason, and the setting that accepts it.
    """
    registry, accept = registry or load(), tuple(accept)
    models = {name: registry.described(name) for name in names}
    refused = {name: model for name, model in models.items() if model.licence_class not in accept}
    if not refused:
        return
    why = "; ".join(f"{name} is {model.licence_class} ({model.reason})" for name, model in refused.items())
    classes = dict.fromkeys([*accept, *(model.licence_class for model in refused.values())])
    raise ModelError(f"licence not accepted: {why}; to accept, set models.accept: [{', '.join(classes)}]")

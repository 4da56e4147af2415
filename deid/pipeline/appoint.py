"""Pass 2: what the index holds of a unit's faces, and the identities that the assignment appoints to each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from deid.config import Config
from deid.faces.appearance import LOOKS
from deid.interfaces import Face
from deid.pipeline import rows
from deid.pipeline.index import faces_name, gallery_of, index_name, persons_name
from deid.pipeline.rows import Row
from deid.pipeline.shield import shielded
from deid.privacy import assign, keys
from deid.privacy.assign import Surrogate
from deid.privacy.vault import Vault
from deid.shards import tables
from deid.surrogates import match

OF_A_PERSON = np.array(
    [not name.startswith(("back_", "light_")) for name in LOOKS]
)  # the rest is of the picture
Person = dict[str, Any]  # a row of `people.PERSONS`


@dataclass(frozen=True)
class Appointed:
    """What the assignment settles of a face."""

    group: int  # who shares it: number of a surrogate, or of a person
    identities: tuple[int, ...]  # of the gallery; none: no surrogate can be had
    sex: int  # 1 male, 0 female, -1 not known
    age: float  # years; NaN: not known
    looks: tuple[float, ...] | None = None  # of `LOOKS`, in place of the face's own where they are a person's


class Appointer(Protocol):
    def of(self, person: Person) -> Appointed: ...


class KSame:
    """The surrogate of a person's group of cells."""

    def __init__(self, surrogates: Sequence[Surrogate], config: Config) -> None:
        self.bands, self.shared_looks = config.assignment.age_bands, config.shared_looks
        self.of_key = {
            key: (n, surrogate) for n, surrogate in enumerate(surrogates) for key in surrogate.keys
        }

    def of(self, person: Person) -> Appointed:
        own = assign.key(person["cell"], person["male"], person["age"], self.bands)
        group, found = self.of_key[own]
        if not self.shared_looks:
            return Appointed(group, found.identities, own.sex, person["age"])
        return Appointed(group, found.identities, found.sex, found.age, found.looks)


class KeyedRandom:
    """A draw of his own for each person: by the run secret, his attributes and the mean of his faces."""

    def __init__(self, config: Config, secret: bytes) -> None:
        self.config, self.secret = config, secret
        self.drawn: dict[int, tuple[int, ...]] = {}

    def of(self, person: Person) -> Appointed:
        number = int(person["person"])
        if number not in self.drawn:
            self.drawn[number] = self.draw(number, person)
        return Appointed(number, self.drawn[number], assign.key(0, person["male"], 0, ()).sex, person["age"])

    def draw(self, number: int, person: Person) -> tuple[int, ...]:
        options, gallery = self.config, gallery_of(self.config.gallery, self.config.generator.name)
        male, age = person["male"], person["age"]
        return assign.draw(
            match.distances(np.asarray(person["mean"], np.float32), gallery),
            gallery,
            options.match,
            options.assignment.apart,
            keys.rng_for(self.secret, f"person {number}".encode()),
            assign.key(0, male, age, ()).sex,
            age,
            None,  # looks are of the picture, and steered there
        ).identities


class Recall:
    """Gives the rows of a unit what pass 1 saw, and their faces what is appointed to them.

    Args:
        appointer: None: nothing is appointed, the faces alone are recalled.
        withheld: surrogates (`keys.surrogate_id`) that too few people share: they are appointed to nobody.
    """

    def __init__(
        self, vault: Vault, appointer: Appointer | None, secret: bytes, withheld: Collection[int] = ()
    ) -> None:
        self.vault, self.appointer, self.secret, self.withheld = vault, appointer, secret, withheld

    @shielded("recall")
    def __call__(self, unit: int, items: Sequence[Row]) -> None:
        seen = rows.from_table(tables.from_bytes(self.vault.get(index_name(unit))))
        by_position = {row.position: row for row in seen}
        for row in items:
            before = by_position[row.position]
            row.faces, row.width, row.height = before.faces, before.width, before.height
            if row.reason or before.reason:
                row.fail(row.reason or before.reason)
        if self.appointer is None:
            return
        faces = tables.from_bytes(self.vault.get(faces_name(unit))).select(["position", "number"])
        persons = tables.from_bytes(self.vault.get(persons_name(unit)))
        at = {row.position: row for row in items}
        for place, person in zip(faces.to_pylist(), persons.to_pylist(), strict=True):
            row = at[place["position"]]
            if not row.reason:
                self.appoint(row.faces[place["number"]], self.appointer.of(person))

    def appoint(self, face: Face, appointed: Appointed) -> None:
        if appointed.identities:
            number = keys.surrogate_id(self.secret, appointed.group, appointed.identities)
            if number not in self.withheld:
                face.identities, face.surrogate_id = np.array(appointed.identities, np.int32), number
        face.sex, face.age = appointed.sex, float(appointed.age)
        if face.looks is not None and appointed.looks is not None:
            face.looks = np.where(OF_A_PERSON, appointed.looks, face.looks).astype(np.float32)

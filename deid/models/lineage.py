"""What models were made from, and the classes that follow; `docs/decisions/0014-lineage.md` has the rule and why."""

from collections.abc import Mapping
from typing import Literal, Protocol

from deid.config import LicenceClass, Section

# weights: copied, tuned or distilled. pictures: learned from. labels: its answers were what was to be learned.
# measures: it only told where things are in those pictures, or described them for the model's input.
Use = Literal["weights", "pictures", "labels", "measures"]
MadeFrom = Mapping[str, Use]
ORDER: tuple[LicenceClass, ...] = ("clean", "permissive", "restricted")  # from best to worst


class Origin(Section):
    """A data set, or somebody's model, that models of the registry were made from and that cannot be fetched."""

    kind: Literal["data", "model"]
    licence: str
    licence_class: LicenceClass
    reason: str  # of the class, one line
    source: str


class Made(Protocol):
    """What the rule looks at, of a model of the registry."""

    @property
    def licence_class(self) -> LicenceClass: ...

    @property
    def made_from(self) -> MadeFrom: ...


def faults(made: Mapping[str, Made], others: Mapping[str, Made], origins: Mapping[str, Origin]) -> list[str]:
    """Where stated classes or lineages cannot be, one line each.

    Args:
        made: what this project made, by name: everything it was made from binds.
        others: what others made and licensed: data keep it from `clean` alone, since `permissive` says just that.
        origins: what is in no archive and no package.
    """
    every, found = {**made, **others}, []
    for name, model in every.items():
        if model.licence_class == "clean" and not model.made_from:
            found.append(f"{name} is clean and does not say what it was made from")
        for source, use in model.made_from.items():
            known = every.get(source) or origins.get(source)
            if known is None:
                found.append(f"{name} was made from {source}, which is not in the registry")
                continue
            collected = name in others and source in origins and origins[source].kind == "data"
            least = bound(known.licence_class, use)
            if collected and model.licence_class != "clean":
                continue
            if ORDER.index(model.licence_class) < ORDER.index(least):
                found.append(f"{name} is {model.licence_class}, but {least} by its {use} from {source}")
    return found + [f"{name} was made from itself" for name in every if name in ancestors(name, every)]


def bound(licence_class: LicenceClass, use: Use) -> LicenceClass:
    """The best class of what was made with something of a class in this way."""
    return "clean" if use == "measures" and licence_class == "permissive" else licence_class


def ancestors(name: str, every: Mapping[str, Made]) -> set[str]:
    """Everything that a model was made from, however indirectly."""
    found: set[str] = set()
    ahead = [name]
    while ahead:
        model = every.get(ahead.pop())
        fresh = set(model.made_from) - found if model else set()
        found |= fresh
        ahead.extend(fresh)
    return found

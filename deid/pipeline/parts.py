"""The replaceable parts that a configuration names, built on the machine that uses them."""

import hashlib
import importlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deid.config import Config, LicenceClass, Part, Stage
from deid.errors import ConfigError
from deid.faces.attributes import AttributeHeads
from deid.gallery import store as gallery_store
from deid.models import registry
from deid.models.store import Store

if TYPE_CHECKING:
    from deid.faces.segmenter import HeadSegmenter


@dataclass(frozen=True)
class Builtin:
    path: str  # module:Class
    models: tuple[str, ...] = ()  # names in the model registry; their files have different base names


BUILTIN: dict[str, dict[str, Builtin]] = {
    "detector": {
        "centerface": Builtin("deid.faces.detect:CenterFaceDetector", ("centerface",)),
        "strict": Builtin("deid.faces.strict:StrictDetector", ("centerface", "blazeface", "mtcnn")),
    },
    "mesher": {"facemesh": Builtin("deid.faces.mesh:FaceMesher", ("facemesh",))},
    "embedder": {
        "dlib": Builtin("deid.faces.embed:DlibEmbedder", ("dlib_resnet",)),
        "vggface": Builtin("deid.models.vgg_face:VGGFaceEmbedder"),
    },
    "generator": {
        "mobilestylegan": Builtin("deid.surrogates.generator:MobileStyleGANGenerator", ("mobilestylegan",)),
        "ksame_mesh": Builtin("deid.surrogates.ksame_mesh:KSameMesh"),
        "ksame_net": Builtin("deid.surrogates.ksame_net:KSameNet"),
    },
}
KINDS = tuple(BUILTIN)


def _builtin(kind: str, part: Part) -> Builtin:
    if part.name in BUILTIN[kind]:
        return BUILTIN[kind][part.name]
    if ":" not in part.name:
        names = ", ".join(BUILTIN[kind])
        raise ConfigError(
            f"{kind}.name: {part.name!r} is unknown; use {names}, or a class path package.module:Class"
        )
    return Builtin(part.name)


def part_of(config: Config, kind: str) -> Part:
    part: Part = getattr(config, kind)
    return part


def models_of(config: Config) -> list[str]:
    """Names in the model registry of what the run will load."""
    return [model for kind in KINDS for model in _builtin(kind, part_of(config, kind)).models]


def _load(path: str, kind: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"{kind}.name: {path!r} cannot be loaded: {error}") from None


def check(config: Config) -> None:
    """Every part can be found and its licence is accepted; nothing is loaded.

    Raises:
        ConfigError, ModelError: with the setting to change.
    """
    for kind in KINDS:
        _load(_builtin(kind, part_of(config, kind)).path, kind)
    Store(config.models).check_accepted([*models_of(config), *packaged_of(config)])


def packaged_of(config: Config) -> list[str]:
    """Names in the model registry of the packaged weights, and of the gallery, that the run will load."""
    matched = config.anonymizer in ("surrogate", "ksame-pixel")
    used = {
        chosen(config, "attributes"): matched and config.embedder.name == "dlib",
        chosen(config, "segmenter"): uses_segmenter(config),
        "image_heads": matched and config.generator.name == "mobilestylegan",
        "ksame_net": matched and config.generator.name == "ksame_net",
        # thresholds come from it, whatever the anonymizer
        gallery_store.packaged(config.generator.name): config.gallery is None,
    }
    return [name for name, wanted in used.items() if wanted]


def classes_of(config: Config) -> dict[str, LicenceClass]:
    """Licence class of everything that the run will load, by its name in the model registry."""
    known = registry.load()
    return {name: known.described(name).licence_class for name in (*models_of(config), *packaged_of(config))}


def chosen(config: Config, role: Literal["attributes", "segmenter"]) -> str:
    """Name in the model registry of the packaged network for a role: as configured, else as `models.accept` allows.

    Raises:
        ConfigError: the configured one is unknown, or has another role.
    """
    known, named = registry.load(), getattr(config, role)
    if named is None:
        return known.choose(role, config.models.accept)
    if named not in known.of_role(role):
        raise ConfigError(f"{role}: {named!r} is unknown; use {', '.join(known.of_role(role))}")
    return str(named)


def _packaged_file(name: str) -> Path:
    return Path(str(resources.files("deid") / registry.load().packaged[name].file))


def foreign(config: Config) -> dict[str, str]:
    """SHA-256 (hex) of the files of parts that are named by class path, by kind; of those that have a file."""
    found = {}
    for kind in KINDS:
        path = part_of(config, kind).name
        if path not in BUILTIN[kind]:
            file = getattr(importlib.import_module(path.partition(":")[0]), "__file__", None)
            if file is not None:
                found[kind] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return found


def build(config: Config, kind: str, stage: Stage) -> Any:
    """The part of this kind (detector, mesher, embedder, generator), with its model files, on the stage's device.

    Raises:
        ConfigError: unknown name or wrong options.
        ModelError: a model file is missing or is not the expected one.
    """
    part = part_of(config, kind)
    builtin = _builtin(kind, part)
    store = Store(config.models)
    files: dict[str, Path] = {}
    for model in builtin.models:
        files |= store.files(model)
    device = "cuda" if stage.gpus else "cpu"
    try:
        return _load(builtin.path, kind)(files, threads=stage.threads, device=device, **part.options)
    except TypeError as error:
        raise ConfigError(f"{kind}.options: {error}") from None


def attributes(config: Config) -> AttributeHeads | None:
    """The packaged heads of apparent sex and age; None where the configuration has no use for them, so that nothing is
    loaded whose licence was not looked at."""
    name = chosen(config, "attributes")
    return AttributeHeads.load(_packaged_file(name)) if name in packaged_of(config) else None


def segmenter(config: Config, stage: Stage) -> "HeadSegmenter | None":
    """The packaged network that takes heads apart; None where the configuration has no use for it."""
    from deid.faces.segmenter import HeadSegmenter  # PyTorch: not for those who only check a configuration

    if not uses_segmenter(config):
        return None
    file = _packaged_file(chosen(config, "segmenter"))
    return HeadSegmenter(file, threads=stage.threads, device="cuda" if stage.gpus else "cpu")


def uses_segmenter(config: Config) -> bool:
    return config.anonymizer == "surrogate" and config.region.kind == "head"

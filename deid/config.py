"""The run configuration: the one place that knows every knob, its unit and its default."""

import difflib
import hashlib
import json
import os
import posixpath
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field

from deid.errors import ConfigError

Options = dict[str, Any]
FieldType = Literal["int", "float", "bool", "str", "numbers", "points", "boxes"]
_MEMBERS = {"cls": "int", "txt": "free"}
# No number; not longer than a tar member KEY.NAME.EXT allows.
PictureName = Annotated[str, Field(pattern=r"^[A-Za-z_-][A-Za-z0-9_-]{0,58}$")]
MaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,59}\.png$")]
LicenceClass = Literal["clean", "permissive", "restricted"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(Section):
    uri: str  # folder or s3:// prefix that holds the shards
    format: Literal["webdataset", "parquet", "folder", "video"] = "webdataset"
    pattern: str | None = (
        None  # names of shards at any depth, several with | between; None: the format's, as *.tar
    )
    image_columns: tuple[str, ...] = ()  # parquet: columns with pictures; none: found by their types
    metadata_table: str | None = (
        None  # folder: name of the table with its pictures' fields; None: metadata.csv, ...
    )
    # Shards that have changed since a run took them; new ones are always taken, where a state_key keeps the ledger.
    changed: Literal["report", "take"] = "report"
    window_gib: float = Field(4, gt=0)  # shards of about so many GiB are mixed with each other
    mixed: int = Field(512, ge=1)  # parquet: at least so many samples, of whole row groups, are mixed


class Output(Section):
    uri: str  # empty or missing folder or prefix; one sub-folder a run
    # of the shards; same: as the input. video goes with an input of video alone
    format: Literal["same", "webdataset", "parquet", "folder", "video"] = "same"
    image_struct: bool = (
        True  # parquet: pictures as struct{bytes, path}, as Hugging Face has them; else plain binary
    )
    row_group: int = Field(64, ge=1)  # parquet: rows in one row group
    class_field: str | None = None  # folder: field that passes and names the class folder; None: all in one
    image_format: Literal["same", "jpg", "png", "webp"] = (
        "same"  # same: JPEG, PNG and WebP stay, others become PNG
    )
    quality: int = Field(95, ge=1, le=100)  # JPEG and WebP
    crf: int = Field(18, ge=0, le=51)  # video: quality of H.264, less is better and larger
    # video: copy takes over the sound track as it is: voices identify people, and words name them
    audio: Literal["drop", "copy"] = "drop"


class Models(Section):
    accept: tuple[LicenceClass, ...] = (
        "clean",
        "permissive",
    )  # classes of model licence that the user accepts
    cache: str | None = None  # folder; default: DEID_MODEL_CACHE, else the user's cache folder
    mirror: str | None = None  # folder or s3:// prefix looked in before the package registry


class Part(Section):
    """A replaceable part: a built-in name, or a class path `package.module:Class`, and its options."""

    name: str
    options: Options = {}

    @pydantic.model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        """A name alone will do: `detector: strict`."""
        return {"name": given} if isinstance(given, str) else given


class Match(Section):
    method: Literal["distant", "nearest"] = "distant"
    k: int = Field(5, ge=1)  # gallery identities averaged, weights 1/k
    margin: float = Field(
        0.85, ge=0
    )  # distant: least embedding distance (Euclidean) of each identity from the person
    same_sex: bool = True  # distant: among identities of the person's apparent sex where it is known
    age_band: float = Field(12, ge=0)  # distant: years; among identities of about the person's apparent age
    alike: int = Field(
        24, ge=0
    )  # distant, with region.kind head: of these, among so many that look most alike
    corrections: int = Field(
        1, ge=0, le=4
    )  # trial renderings after which pose, expression and looks are corrected


class Assignment(Section):
    """Which faces share a surrogate, and how many people must; see docs/concepts.md."""

    # k-same: at least k people share each surrogate. keyed-random: one surrogate a person. per-face: a draw a face.
    mode: Literal["k-same", "keyed-random", "per-face"] = "k-same"
    k: int = Field(
        5, ge=2, le=1000
    )  # k-same: least number of distinct people behind a surrogate; the audit's k too
    # k-same: whether who shares a surrogate also shares its skin, hair, apparent sex and age, or each keeps his own.
    # Pose and expression are always of the picture.
    looks: Literal["shared", "own"] = "shared"
    subject: str | None = Field(
        None, min_length=1
    )  # field of the sample's .json that names its person; None: people are told apart by their faces
    false_match_rate: float = Field(
        0.003, gt=0, le=0.1
    )  # how often two people of one sex count as one: it gives `same`, on the gallery (.465 on the default one)
    same: float | None = Field(
        None, gt=0
    )  # embedding distance up to which pictures are one person's; null: calibrated
    apart: float = Field(
        0.6, gt=0
    )  # embedding distance from which two people count as two towards k: beyond what one person's pictures differ by
    smallest: float = Field(40, ge=0)  # px of face height; a smaller face never counts towards k
    age_bands: tuple[int, ...] = (
        18,
        30,
        45,
        60,
    )  # years: bounds of the age bands of the match and of the audit

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> "Assignment":
        if self.same is not None and self.same > self.apart:
            raise ValueError("same is more than apart: what counts as one person would count as two")
        if list(self.age_bands) != sorted(set(self.age_bands)):
            raise ValueError("age_bands are not in ascending order")
        return self


class Signing(Section):
    """How the manifest is signed (Ed25519)."""

    key: str | None = (
        None  # PEM file with the private key; None: a key made for this run, its public half is printed
    )


class Region(Section):
    # head: face, ears, hair and jaw, as they are segmented; face: the face outline, scaled. A head that cannot be
    # segmented, and every face below the first rung of the ladder, is replaced as a face.
    kind: Literal["head", "face"] = "head"
    scale: float = Field(1.3, ge=1, le=3)  # face: replaced region as a multiple of the face outline
    feather: float = Field(
        0.08, ge=0, le=0.5
    )  # face: width of the soft border, in face heights, outside the region


class Tracking(Section):
    """Video: how faces of consecutive frames become tracks; see docs/video.md."""

    gap_s: float = Field(1.0, ge=0, le=60)  # seconds without a sighting after which a track ends, at most
    extend_s: float = Field(
        0.25, ge=0, le=10
    )  # seconds before the first and after the last sighting in which the face is replaced, too
    smooth: int = Field(3, ge=0, le=25)  # frames on each side over which places are smoothed; 0: none


class Classic(Section):
    """The classic anonymizers. Blur and pixelate are baselines that may leave people recognizable."""

    blur_sigma: float = Field(0.15, gt=0, le=1)  # standard deviation of the Gaussian, in face heights
    pixelate_blocks: int = Field(8, ge=1, le=64)  # square blocks over the height of the face


class Ladder(Section):
    """Where faces start on the ladder of `deid.surrogates.ladder` when `anonymizer` is surrogate."""

    smallest: float = Field(8, ge=0)  # px of face height; smaller faces are covered
    simple_below: float = Field(24, ge=0)  # px of face height; smaller faces get a simple surrogate
    turned: float = Field(45, gt=0, le=90)  # degrees of yaw or pitch; beyond it the average of gallery faces


class Gate(Section):
    """The second look, at the result (`deid.privacy.gate`)."""

    enabled: bool = True
    # How often two different people of one apparent sex may lie below the margin: it is calibrated on the gallery.
    false_match_rate: float = Field(0.01, gt=0, le=0.5)
    margin: float | None = Field(
        None, ge=0
    )  # least embedding distance (Euclidean) of a result from its person; null: calibrated
    score: float = Field(
        0, ge=0, le=1
    )  # least score of a face that only the result shows; 0: what the detector itself asks for


class Limits(Section):
    max_pixels: int = Field(50_000_000, ge=1)  # larger pictures are quarantined before they are decoded
    # encoded bytes of a picture (default: more than 50 million pixels of four bytes need) or of what lies beside it;
    # larger pictures are quarantined before they are read, other larger things are not read
    max_bytes: int = Field(256 << 20, ge=1, le=1 << 30)
    max_damaged_shards: int | None = Field(
        None, ge=0
    )  # more ends the run likewise; None: only the fraction counts
    max_quarantine_fraction: float = Field(0.5, ge=0, le=1)  # more ends the run: exit code 6, no manifest


class SidecarField(Section):
    """A field of the sample's .json that passes, and in what shape; `label: int` is short for `label: {type: int}`."""

    # numbers: finite numbers in lists; points: the same, positions in the picture; boxes: the same, four by four
    # (x0, y0, x1, y1, or as the field's users have it)
    type: FieldType
    round: float | None = Field(
        None, gt=0, allow_inf_nan=False
    )  # int, float, numbers: the step; the nearest multiple of it passes. None: the number as it is
    values: tuple[str, ...] | None = Field(None, min_length=1)  # str: these pass, others do not
    free: bool = False  # str: any text passes as it is, also one that names a person
    # numbers, points, boxes: how deep lists lie in one another; 1 is a list of numbers. None: 1, 2 and 2. A value of
    # fewer levels gets outer ones, so that one box becomes a list of one box.
    depth: int | None = Field(None, ge=1, le=4)

    @property
    def levels(self) -> int:
        """Lists in one another; 0 for what is no list."""
        return self.depth or {"numbers": 1, "points": 2, "boxes": 2}.get(self.type, 0)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _typed(cls, given: Any) -> Any:
        return {"type": given} if isinstance(given, str) else given

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "SidecarField":
        if self.round is not None and self.type in ("bool", "str"):
            raise ValueError("round is for int, float, numbers, points and boxes")
        if self.round is not None and self.type == "int" and not self.round.is_integer():
            raise ValueError("round of an int is a whole number")
        if self.type != "str" and (self.values is not None or self.free):
            raise ValueError("values and free are for str")
        if self.type == "str" and (self.values is not None) == self.free:
            raise ValueError("a str may hold a name: list the values that pass, or set free: true, not both")
        if self.depth is not None and self.type not in ("numbers", "points", "boxes"):
            raise ValueError("depth is for numbers, points and boxes")
        return self


class Metadata(Section):
    """What passes beside the pixels; everything else is dropped."""

    sidecar_fields: dict[str, SidecarField] = {}  # fields of the sample's .json that pass
    # text members that pass: {cls: int}, the class label; {txt: free}, any text, also one that names a person
    members: dict[Literal["cls", "txt"], Literal["int", "free"]] = {}
    pictures: tuple[PictureName, ...] = ()  # names of a sample's pictures that pass; others are numbered
    masks: tuple[MaskName, ...] = ()  # members, columns or files that are label maps, as mask.png
    mask_values: int = Field(64, ge=2, le=256)  # a label map of more values is dropped

    @pydantic.model_validator(mode="after")
    def _apart(self) -> "Metadata":
        """A mask must not have the name that a picture of its sample may get."""
        names = [mask.removesuffix(".png").lower() for mask in self.masks]
        if any(name.isdigit() for name in names):
            raise ValueError(
                "masks: a number is the name of a further picture; rename the mask in the source"
            )
        if {*names} & {name.lower() for name in self.pictures}:
            raise ValueError("masks, pictures: one name stands in both; rename one of them in the source")
        if len({*names}) < len(names):
            raise ValueError("masks: one name stands there twice")
        return self

    @pydantic.field_validator("sidecar_fields")
    @classmethod
    def _no_member(cls, given: dict[str, SidecarField]) -> dict[str, SidecarField]:
        for name, kind in _MEMBERS.items():
            if name in given:
                raise ValueError(
                    f"{name} is the name of a member; set metadata.members to {{{name}: {kind}}}, or rename the field"
                )
        return given

    @pydantic.field_validator("members")
    @classmethod
    def _typed(cls, given: dict[str, str]) -> dict[str, str]:
        for name, kind in given.items():
            if kind != _MEMBERS[name]:
                raise ValueError(f"{name} passes as {_MEMBERS[name]}: {{{name}: {_MEMBERS[name]}}}")
        return given


class Stage(Section):
    actors: int = Field(1, ge=1)
    max_actors: int | None = Field(None, ge=1)  # the pool grows up to this
    cpus: float = Field(1, gt=0)  # reserved in Ray for one actor; fractions only below 1
    gpus: float = Field(0, ge=0)
    threads: int = Field(1, ge=1)  # threads of one actor's networks
    batch_size: int = Field(8, ge=1)  # pictures (analyse) or faces (generate) in one call of a network

    @pydantic.model_validator(mode="after")
    def _pool(self) -> "Stage":
        if self.max_actors is not None and self.max_actors < self.actors:
            raise ValueError("max_actors is less than actors")
        return self


class Stages(Section):
    analyse: Stage = Stage(cpus=0.6)
    generate: Stage = Stage(cpus=0.7)
    compose: Stage = Stage(cpus=0.5)  # with the gate's networks
    io_cpus: float = Field(0.1, gt=0)  # reserved for one reading or writing task


class Cluster(Section):
    address: str | None = None  # None: RAY_ADDRESS if it is set, else Ray is started on this machine
    wait_for_actors_s: float = Field(600, gt=0, le=86_400)  # actors that cannot be placed by then end the run
    # Without any progress for so long, as when machines are gone, a pass begins again with what is left of it; after
    # three times the run ends, and can be gone on with. More than the longest unit takes.
    stalled_s: float = Field(1800, gt=0, le=86_400)


class Config(Section):
    input: Input
    output: Output
    state: str  # folder or s3:// prefix, apart from the output: the run's own traces, encrypted, gone when it ends
    # What the run key of `state` is wrapped with: a key file (`deid keys new`) or aws-kms://KEY_ID. None: the run key
    # stays in memory, and what it encrypts can be read by this one process alone.
    state_key: str | None = None
    signing: Signing = Signing()
    models: Models = Models()
    detector: Part = Part(name="centerface")
    mesher: Part = Part(name="facemesh")
    embedder: Part = Part(name="dlib")
    generator: Part = Part(name="mobilestylegan")
    # Packaged networks by their names in `deid models list`; None: the first that models.accept allows.
    segmenter: str | None = None  # takes heads apart
    attributes: str | None = None  # apparent sex and age
    gallery: str | None = None  # Parquet file; None: the default gallery in the package
    anonymizer: Literal["surrogate", "solid", "blur", "pixelate", "ksame-pixel"] = "surrogate"
    classic: Classic = Classic()
    ladder: Ladder = Ladder()
    assignment: Assignment = Assignment()
    match: Match = Match()
    region: Region = Region()
    gate: Gate = Gate()
    limits: Limits = Limits()
    metadata: Metadata = Metadata()
    unit_size: int = Field(64, ge=1)  # samples in one output shard; video: frames that are processed at once
    tracking: Tracking = Tracking()
    stages: Stages = Stages()
    cluster: Cluster = Cluster()
    seed: int | None = (
        None  # None: a fresh secret a run. A number makes ids and draws repeatable, so linkable:
    )
    # for tests and measurements only

    @property
    def two_passes(self) -> bool:
        """Faces share surrogates, so all are looked at before any is replaced."""
        return self.assignment.mode != "per-face" and self.anonymizer in ("surrogate", "ksame-pixel")

    @property
    def video(self) -> bool:
        """The input is video: frames of a file are looked at together before any is replaced."""
        return self.input.format == "video"

    @property
    def shared_looks(self) -> bool:
        """Who shares a surrogate shares its looks."""
        return self.two_passes and self.assignment.mode == "k-same" and self.assignment.looks == "shared"

    def digest(self) -> str:
        """SHA-256 (hex) of the whole configuration, defaults included."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def load(path: str | Path) -> Config:
    """The configuration in a YAML file.

    Raises:
        ConfigError: no such file, no YAML, or settings that are wrong, each named with what is allowed there.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give a run configuration (YAML)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: cannot be read as a configuration ({type(error).__name__}); give a YAML file"
        ) from None
    try:
        raw = yaml.safe_load(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a configuration is a mapping with at least input, output and state")
    return parse(raw, str(path))


def parse(raw: dict[str, Any], where: str = "configuration") -> Config:
    """The configuration in a mapping; `where` names it in errors."""
    try:
        config = _located(Config.model_validate(raw), where)
    except pydantic.ValidationError as error:
        raise ConfigError("; ".join(_line(e, where) for e in error.errors())) from None
    below = [_real(config.output.uri) + "/", _real(config.input.uri) + "/"]
    state = _real(config.state) + "/"
    if any(state.startswith(other) or other.startswith(state) for other in below):
        raise ConfigError(
            f"{where}: state must lie apart from input and output, so that it can have other permissions"
        )
    if below[0].startswith(below[1]) or below[1].startswith(below[0]):
        raise ConfigError(f"{where}: output must lie apart from input")
    if config.assignment.subject in config.metadata.sidecar_fields:
        raise ConfigError(
            f"{where}: assignment.subject names the person, so metadata.sidecar_fields cannot let it pass: "
            f"{config.assignment.subject}"
        )
    _check_video(config, where)
    return config


def _real(uri: str) -> str:
    """Where a local path leads; an S3 prefix as it is."""
    return uri if uri.startswith("s3://") else os.path.realpath(uri)


def _check_video(config: Config, where: str) -> None:
    """What cannot go with video, or without."""
    out = config.input.format if config.output.format == "same" else config.output.format
    if config.video != (out == "video"):
        raise ConfigError(
            f"{where}: output.format: {config.input.format} cannot become {out}; video becomes video, and pictures "
            "pictures"
        )
    if not config.video:
        return
    if config.assignment.mode == "per-face" and config.anonymizer in ("surrogate", "ksame-pixel"):
        raise ConfigError(
            f"{where}: assignment.mode: per-face draws anew in each frame, so that faces of a video flicker; set "
            "k-same or keyed-random"
        )
    if config.assignment.subject is not None:
        raise ConfigError(
            f"{where}: assignment.subject: a video has no .json that names its people; remove it, people are told "
            "apart by their faces"
        )


def _located(config: Config, where: str) -> Config:
    """With every local path absolute, since the job's processes may run in other folders."""

    def place(name: str, uri: str) -> str:
        scheme, mark, rest = uri.partition("://")
        if not uri or (mark and (scheme not in ("s3", "file") or not rest.strip("/"))):
            raise ConfigError(f"{where}: {name}: {uri!r} is no place; give a folder or s3://bucket/prefix")
        if mark and scheme == "s3":
            return f"s3://{posixpath.normpath(rest)}"
        return os.path.abspath(rest if mark else os.path.expanduser(uri))

    def optional(name: str, uri: str | None) -> str | None:
        return None if uri is None else place(name, uri)

    def key(given: str | None) -> str | None:
        return given if given is None or "://" in given else os.path.abspath(os.path.expanduser(given))

    models = {name: optional(f"models.{name}", getattr(config.models, name)) for name in ("cache", "mirror")}
    return config.model_copy(
        update={
            "input": config.input.model_copy(update={"uri": place("input.uri", config.input.uri)}),
            "output": config.output.model_copy(update={"uri": place("output.uri", config.output.uri)}),
            "state": place("state", config.state),
            "state_key": key(config.state_key),
            "signing": config.signing.model_copy(update={"key": key(config.signing.key)}),
            "gallery": optional("gallery", config.gallery),
            "models": config.models.model_copy(update=models),
        }
    )


def _line(error: Any, where: str) -> str:
    names = [str(part) for part in error["loc"]]
    name = ".".join(names)
    if error["type"] != "extra_forbidden":
        return f"{where}: {name}: {error['msg']}"
    near = difflib.get_close_matches(names[-1], _known(names[:-1]), n=1, cutoff=0)
    return f"{where}: {name} is no setting; did you mean {'.'.join([*names[:-1], *near])}?"


def _known(path: list[str]) -> list[str]:
    model: Any = Config
    for name in path:
        section = hasattr(model, "model_fields")  # else a dict of sections
        model = model.model_fields[name].annotation if section else get_args(model)[-1]
    return list(model.model_fields)

"""The rows that pass between stages, as Arrow schemas, and the closed codes that they carry.

One row is one picture. Encoded bytes travel, not pixels. Arrays inside a face are little-endian binary
(`float32` unless said otherwise), since nested Arrow lists cost far more to take apart.
"""

import pyarrow as pa

# Why a picture does not go out. It stays in the state store's quarantine table, for the operator alone.
QUARANTINE = {
    "empty": "the member has no bytes",
    "not_an_image": "the bytes are no picture of a known format",
    "truncated_image": "the picture ends too early or is damaged",
    "too_large": "more pixels than limits.max_pixels, or bytes than limits.max_bytes",
    "animated": "more than one frame",
    "no_image": "the sample has no picture member",
    "ambiguous": "a metadata table says different things of the file",
    "unsafe_member": "a link, a device, or a name that leads out of the archive",
    "shard_damaged": "the shard is cut short or damaged here; what stood behind is unknown",
    "record_changed": "the bytes are not those that were planned",
    "shard_changed": "the shard was changed or deleted after it was listed",
    "detector_failed": "the detector raised",
    "cover_failed": "a face could be neither replaced nor covered",
    "gate_failed": "the result could not be searched for faces",
    "encode_failed": "the result could not be encoded",
    "crashed": "processing it ended the process",
}

# Of these, what is no fault of the input: the job could not make the picture safe, and dropped it.
DROPPED = frozenset({"detector_failed", "cover_failed", "gate_failed", "encode_failed", "crashed"})

# What stands where a face was. The first four are the ladder, best first (`deid.surrogates.ladder`).
ANONYMIZERS = {
    "surrogate": "a generated face with the person's pose and expression",
    "simple": "a generated face at low resolution, as the generator gives it",
    "ksame-pixel": "the average of k gallery faces",
    "solid": "one grey shape",
    "blur": "blurred: a baseline, the person may be recognizable",
    "pixelate": "in blocks of mean colour: a baseline, the person may be recognizable",
}

# Why a face was covered, or got less than the first rung of the ladder.
COVER = {
    "mesh_failed": "no usable landmarks",
    "embed_failed": "the embedder raised",
    "match_failed": "no gallery identities could be chosen",
    "generate_failed": "the generator raised",
    "composite_failed": "the surrogate could not be put in place",
    "too_small": "too few pixels for more",
    "turned": "turned too far for the generator",
    "too_close": "the gate: the result is still too like the person",
    "gate_failed": "the gate: the result could not be compared with the person",
    "missed": "found on the result, and not before",
    "policy": "the configuration asks for it",
}

# What the gate (`deid.privacy.gate`) says of a face on the result.
GATE = {
    "passed": "found, and far enough from the person",
    "not_found": "replaced, and no longer found as a face",
    "lowered": "too close, or not to be compared: put further down the ladder",
    "missed": "first found on the result, and covered",
    "unchecked": "covered or a baseline, without an embedding, or the gate is off",
}

FACE = pa.struct(
    [
        ("box", pa.binary()),  # float32[4]: x0, y0, x1, y1 in pixels of the upright picture
        ("score", pa.float32()),  # detector's confidence, 0..1
        (
            "points",
            pa.binary(),
        ),  # float32[5, 2]: right eye, left eye, nose tip, right and left mouth corner (px)
        ("mesh", pa.binary()),  # float32[468, 3] in pixels of the picture; empty when the mesh failed
        ("mesh_score", pa.float32()),  # 0..1
        ("embedding", pa.binary()),  # float32[dim]; empty when the embedder failed
        ("segments", pa.binary()),  # uint8[128, 128, 5] parts of the head on its chip; empty without
        ("looks", pa.binary()),  # float32[len(LOOKS)]; empty without
        ("anonymizer", pa.string()),  # "" before generation, then a name of ANONYMIZERS
        ("failure", pa.string()),  # "" or a code of COVER
        ("surrogate", pa.large_binary()),  # uint8[size, size, 3] RGB, raw; empty before generation
        ("surrogate_size", pa.int32()),  # px
        ("surrogate_mesh", pa.binary()),  # float32[468, 3] in pixels of the surrogate
        ("surrogate_segments", pa.binary()),  # uint8[128, 128, 5] parts of the whole surrogate; empty without
        ("spare", pa.binary()),  # uint8[size, size, 3] RGB, raw; empty without
        ("spare_size", pa.int32()),  # px
        ("spare_mesh", pa.binary()),  # float32[468, 3] in pixels of the spare
        ("k", pa.int32()),  # gallery identities averaged
        ("wanted", pa.binary()),  # float32[5] expression of the surrogate; empty: as the mesh has it
        ("identities", pa.binary()),  # int32[k] of the gallery, as appointed; empty: none are
        ("surrogate_id", pa.int64()),  # number of the shared surrogate; -1: none is appointed
        ("sex", pa.int8()),  # apparent: 1 male, 0 female, -1 not known
        ("age", pa.float32()),  # apparent, years; NaN: not known
        ("expression", pa.string()),  # of the source: "", smiling, neutral, unknown
        ("gate", pa.string()),  # "" before `compose`, then a name of GATE
        ("status", pa.string()),  # "" before `compose`, then "replaced" or "covered"
    ]
)

# From the reader to the writer; every stage fills in more of it.
PICTURE = pa.schema(
    [
        ("unit", pa.int32()),  # index of the unit in the plan
        ("position", pa.int32()),  # position in the unit, after the shuffle
        ("planned", pa.int32()),  # pictures in the unit
        ("sample", pa.int32()),  # number of the sample in the unit: its pictures go out under one key
        ("name", pa.string()),  # of the picture in its sample, as it goes out; see `shards.index.Layout`
        ("reason", pa.string()),  # "" or a code of QUARANTINE
        (
            "image",
            pa.large_binary(),
        ),  # encoded source; cleared by `compose`, and as soon as the picture fails
        ("extension", pa.string()),  # of `image`
        ("sidecar", pa.string()),  # JSON object of the fields that the allow-list let pass
        (
            "dropped",
            pa.string(),
        ),  # JSON object: how many fields did not pass, by name where the schema has it
        (
            "masks",
            pa.map_(pa.string(), pa.large_binary()),
        ),  # label maps beside the picture, by member; as they came
        ("subject", pa.binary()),  # keyed hash of the subject's name; empty: not known
        ("width", pa.int32()),  # px, upright
        ("height", pa.int32()),  # px, upright
        ("faces", pa.list_(FACE)),
        (
            "result",
            pa.large_binary(),
        ),  # encoded result, empty before `compose`; the only pixels the writer reads
        ("result_extension", pa.string()),  # jpg, png, webp
    ]
)

# What pass 1 returns: one row a unit whose faces are in the index.
INDEXED = pa.schema(
    [
        ("unit", pa.int32()),
        *((name, pa.int64()) for name in ("pictures", "sound", "faces", "embedded")),
    ]
)

# What the writer returns: one row a committed unit.
COMMIT = pa.schema(
    [
        ("unit", pa.int32()),
        (
            "objects",  # names below the output, random
            pa.list_(pa.struct([("name", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string())])),
        ),
        ("pictures_in", pa.int64()),
        ("pictures_out", pa.int64()),
        ("pictures_quarantined", pa.int64()),  # bad input
        ("pictures_dropped", pa.int64()),  # could not be made safe
        ("faces", pa.int64()),
        ("replaced", pa.int64()),
        ("covered", pa.int64()),
        ("anonymizers", pa.list_(pa.struct([("name", pa.string()), ("faces", pa.int64())]))),
        ("gate", pa.list_(pa.struct([("name", pa.string()), ("faces", pa.int64())]))),
        ("fields", pa.list_(pa.struct([("name", pa.string()), ("dropped", pa.int64())]))),
        ("reasons", pa.list_(pa.struct([("name", pa.string()), ("pictures", pa.int64())]))),
    ]
)


def _texts(*names: str) -> list[pa.Field]:
    return [pa.field(name, pa.string(), nullable=False) for name in names]


# The public table: one row a face, and one a picture that was not let out, sorted by output_id. Nothing in it is a
# function of a source name, path, hash, time or position; "*" is a value that was taken out for the sake of k.
AUDIT_VERSION = "3"
AUDIT = pa.schema(
    _texts(
        "output_id",  # 128-bit keyed hash, hex: the key of the output sample
        "shard",  # output shard that holds it; "" where the picture was dropped
        "status",  # replaced | covered | dropped
        "anonymizer",  # a name of ANONYMIZERS
        "k_class",  # band of the number of people who share the surrogate, "none": a draw of its own, or no surrogate
        "sex",  # apparent: male | female | unknown
        "age_band",  # apparent, years: "<18", "18-29", ..., or unknown
        "expression",  # smiling | neutral | unknown
        "face_size",  # height in px: "<20", "20-39", "40-79", "80-159", ">=160"
    ),
    metadata={"deid.audit.version": AUDIT_VERSION},
)

# The same before anything is taken out, with what is never published: it stays in the encrypted state.
AUDIT_RAW = pa.schema(
    [
        *AUDIT,
        *_texts(
            "reason",  # "" or a code of COVER: why not the first rung of the ladder
            "gate",  # a name of GATE
        ),
        pa.field("position", pa.int32(), nullable=False),  # of the picture in its unit
        pa.field("number", pa.int32(), nullable=False),  # of the face in its picture; -1: a dropped picture
        pa.field(
            "surrogate_id", pa.int64(), nullable=False
        ),  # what replaced the face, -1: nothing that is shared
    ],
    metadata={"deid.audit_raw.version": AUDIT_VERSION},
)

# The public counts of a run, one row a value.
SUMMARY_VERSION = "1"
SUMMARY = pa.schema(
    [
        *_texts(
            "name",  # what is counted: a column of AUDIT, reason, gate, or counts, rows, suppressed
            "value",
        ),
        pa.field("faces", pa.int64(), nullable=False),  # faces, or what `value` says
    ],
    metadata={"deid.summary.version": SUMMARY_VERSION},
)

_BANDS = ((20, "<20"), (40, "20-39"), (80, "40-79"), (160, "80-159"))


def face_height_band(height: float) -> str:
    """Band of a face's height in pixels, as the audit gives it."""
    return next((name for limit, name in _BANDS if height < limit), ">=160")

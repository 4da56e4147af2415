"""A finished run, tampered with in every way: each is found and named, by someone who has the public key alone."""

import os
import random
import re
from pathlib import Path
from typing import Any

import pytest

from deid import records
from deid.errors import InputError
from deid.privacy import seal
from deid.privacy.verify import Finding, verify
from tests.unit.privacy.sealed import DROPPED, FACES, PICTURES, SHARDS, Sealed

OBJECTS = ("shards/", "audit/", "summary.parquet", "people.json")
EDITED = "its content is not what was signed"


@pytest.fixture
def run(tmp_path: Path) -> Sealed:
    return Sealed(tmp_path / "run").make()


def first(run: Sealed, kind: str) -> str:
    return next(name for name in sorted(run.objects) if name.startswith(kind))


@pytest.mark.parametrize("kind", ["parquet", "folder"])
def test_runs_of_other_formats_are_checked_as_well(tmp_path: Path, kind: str) -> None:
    run, lines = Sealed(tmp_path / "run").make(kind), list[str]()
    assert verify(str(run.folder), run.key.public_key(), lines.append) == []
    assert f" with {SHARDS * PICTURES} pictures" in "\n".join(lines)
    names = [name for name in run.objects if re.match("shards|images", name)]
    (other,) = names[:1] if kind == "parquet" else [name for name in names if name.endswith(".jpg")][:1]
    data = bytearray(run.objects[other])
    data[len(data) // 2] ^= 1
    (run.folder / other).write_bytes(data)
    assert EDITED in run.faults()[other]
    if kind == "parquet":
        run.reseal({other: bytes(data)})
        assert "cannot be read as Parquet" in run.faults()[other]
    else:
        lost = run.objects.pop(other)
        run.reseal()
        assert run.faults()[other] == ["is named by its table and not there"]
        run.reseal({other: lost, other.replace("images/", "masks/"): lost})
        assert run.faults()[other.replace("images/", "masks/")] == ["has no plain name"]


def test_a_run_as_it_was_made_has_no_fault_and_says_what_was_checked(run: Sealed) -> None:
    lines = list[str]()
    assert verify(str(run.folder), run.key.public_key(), lines.append) == []
    text = "\n".join(lines)
    size = sum(len(data) for data in run.objects.values())
    for part in (
        f"public key {seal.public_hex(run.key.public_key())}",
        f"version 2, Merkle root {run.manifest['merkle_root']}",
        f"objects: {len(run.objects)} with {size:,} bytes",
        f"shards: {SHARDS} with {SHARDS * PICTURES} pictures",
        f"audit: {SHARDS * PICTURES * FACES + DROPPED} rows; every combination of values has 5 or more",
        "people: 9 surrogates, at least 5 people each (k = 5)",
    ):
        assert part in text
    assert len(lines) == 7
    assert len(run.parts) > 1


def test_a_finding_is_one_line_whatever_the_name() -> None:
    assert str(Finding("a\nok\x1b[2J\udcff", "is missing")) == r"a\nok\x1b[2J\udcff: is missing"
    assert str(Finding("shards/ü.tar", "x")) == "shards/ü.tar: x"


@pytest.mark.parametrize("kind", OBJECTS)
def test_one_flipped_byte_of_an_object_is_found(run: Sealed, kind: str) -> None:
    rng = random.Random(kind)
    for name in (name for name in run.objects if name.startswith(kind)):
        data = run.objects[name]
        for position in {0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(8))}:
            flipped = bytearray(data)
            flipped[position] ^= 1 << rng.randrange(8)
            (run.folder / name).write_bytes(flipped)
            fault = EDITED + (": the audit was edited" if kind == "audit/" else "")
            assert fault in run.faults()[name]
        (run.folder / name).write_bytes(data)
    assert run.faults() == {}


def test_one_flipped_byte_of_the_manifest_is_found(run: Sealed) -> None:
    path, rng = run.folder / "manifest.json", random.Random(0)
    data = path.read_bytes()
    for position in {0, len(data) - 1, *rng.sample(range(len(data)), 150)}:
        flipped = bytearray(data)
        flipped[position] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        assert "manifest.json" in run.faults(), position
    for changed in (
        data + b"\n",
        data.replace(b": ", b":", 1),
        data[:-1],
        b"",
        b"[]",
        b'"x"',
        b"\xff",
        b"[" * 9999,
    ):
        path.write_bytes(changed)
        assert "manifest.json" in run.faults()


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_removed_object_is_found(run: Sealed, kind: str) -> None:
    name = first(run, kind)
    (run.folder / name).unlink()
    assert "is missing" in run.faults()[name]


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_renamed_object_is_found_under_its_other_name(run: Sealed, kind: str) -> None:
    name = first(run, kind)
    (run.folder / name).rename(run.folder / "elsewhere")
    assert run.faults() == {name: ["was renamed to elsewhere"]}


def test_swapped_objects_are_found(run: Sealed) -> None:
    for one, other in (run.shards[:2], run.parts[:2], (run.shards[0], run.parts[0])):
        (run.folder / one).write_bytes(run.objects[other])
        (run.folder / other).write_bytes(run.objects[one])
        assert run.faults() == {
            one: [f"its content is that of {other}"],
            other: [f"its content is that of {one}"],
        }
        run.write()


def test_an_object_put_in_another_s_place_is_found(run: Sealed) -> None:
    one, other = run.shards[:2]
    (run.folder / one).write_bytes(run.objects[other])
    found = run.faults()
    assert found[one] == [f"its content is that of {other}"]
    assert found["shards"] == ["have 24 pictures, the manifest counts 36"]


def covered(rows: list[dict[str, Any]]) -> None:
    """One more face counts as replaced."""
    next(row for row in rows if row["status"] == "covered")["status"] = "replaced"


def adapted(run: Sealed, objects: dict[str, bytes]) -> dict[str, Any]:
    """The manifest with hashes and root of other objects, and the old signature."""
    for name, data in objects.items():
        (run.folder / name).write_bytes(data)
    held, run.objects = run.objects, run.objects | objects
    entries, run.objects = run.entries(), held
    return run.read_manifest() | {"objects": entries, "merkle_root": seal.merkle_root(entries)}


def test_an_edited_audit_row_is_found_whoever_adapts_the_manifest(run: Sealed) -> None:
    name = next(part for part in run.parts if b"covered" in run.objects[part])
    edited = run.edited(name, covered)
    (run.folder / name).write_bytes(edited)
    found = run.faults()
    assert found[name] == [f"{EDITED}: the audit was edited"]
    counted = [fault for fault in found["audit"] if "covered, the manifest counts" in fault]
    assert counted

    made = adapted(run, {name: edited})
    run.put_manifest(made)  # the hash fits, the signature does not
    found = run.faults()
    assert found["manifest.json"] == ["was edited after it was signed: the signature does not hold"]
    assert set(counted) <= set(found["audit"])
    assert name not in found

    other = seal.new_key()
    run.sign(made, other)  # all fits, but the key
    found = run.faults()
    named = seal.public_hex(other.public_key())
    assert found["manifest.json"] == [f"is signed with another key: {named}"]
    assert set(counted) <= set(found["audit"])

    run.sign(made, run.key)  # by who made it: the contents contradict each other
    found = run.faults()
    assert "manifest.json" not in found
    assert set(counted) <= set(found["audit"])


def test_another_signature_is_found(run: Sealed) -> None:
    signed = run.read_manifest()
    other = seal.new_key()
    run.sign(signed, other)
    assert run.faults() == {
        "manifest.json": [f"is signed with another key: {seal.public_hex(other.public_key())}"]
    }
    theirs = seal.sign({n: v for n, v in signed.items() if n != "signature"}, other)["signature"]["value"]
    run.put_manifest(signed | {"signature": signed["signature"] | {"value": theirs}})
    assert run.faults() == {"manifest.json": ["was edited after it was signed: the signature does not hold"]}
    run.put_manifest({name: value for name, value in signed.items() if name != "signature"})
    assert run.faults() == {"manifest.json": ["is not signed"]}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [leaf for name, inner in items for leaf in leaves(inner, (*path, name))]
    return [path]


def test_every_edited_value_of_the_manifest_is_found(run: Sealed) -> None:
    whole = run.read_manifest()
    for name in run.objects:  # the manifest alone is at stake here
        (run.folder / name).unlink()
    for path in leaves(whole):
        made = run.read_manifest()
        holder = made
        for name in path[:-1]:
            holder = holder[name]
        value = holder[path[-1]]
        holder[path[-1]] = value + 1 if isinstance(value, int) and value is not True else f"{value}0"
        run.put_manifest(made)
        assert "manifest.json" in run.faults(), path
    run.put_manifest(whole)
    assert "manifest.json" not in run.faults()


def test_a_root_or_an_object_list_that_the_signer_got_wrong(run: Sealed) -> None:
    run.reseal(merkle_root="0" * 64)
    assert run.faults() == {"manifest.json": ["its merkle_root is not that of its objects"]}
    run.reseal(objects=[*run.entries(), run.entries()[0]])
    assert run.faults() == {"manifest.json": ["names an object twice, or itself"]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"manifest_version": 1}, "is of version 1, this deid checks version 2"),
        ({"objects": [{"name": "a", "bytes": -1, "sha256": "0" * 64}]}, r"objects\.0\.bytes"),
        ({"objects": [{"name": "a", "bytes": 1, "sha256": "xyz"}]}, r"objects\.0\.sha256"),
        ({"counts": {}}, r"counts\.pictures_out"),
        ({"config": {}}, r"config\.anonymizer"),
        ({"people": None}, "people"),
        ({"audit_version": "2"}, f"audit_version is 2, this deid checks {records.AUDIT_VERSION}"),
    ],
)
def test_a_manifest_that_is_none_is_refused_in_words(
    run: Sealed, changes: dict[str, Any], words: str
) -> None:
    run.reseal(**changes)
    assert re.match(words, run.faults()["manifest.json"][0])


def test_a_repeatable_run_is_not_for_release(run: Sealed) -> None:
    run.reseal(config=run.manifest["config"] | {"repeatable": True})
    fault = "the run was repeatable (seed was set): its ids and draws can be worked out again; it is not for release"
    assert run.faults() == {"manifest.json": [fault]}
    assert verify(str(run.folder), run.key.public_key(), allow_repeatable=True) == []
    settings = run.manifest["config"]
    for value in (1, "true", None):  # whoever leaves it open does not say no
        run.reseal(config=settings | {"repeatable": value})
        assert run.faults()["manifest.json"][0].startswith("config.repeatable: ")
    run.reseal(config={name: value for name, value in settings.items() if name != "repeatable"})
    assert run.faults()["manifest.json"] == ["config.repeatable: Field required"]


def test_no_manifest_and_no_run(run: Sealed, tmp_path: Path) -> None:
    (run.folder / "manifest.json").unlink()
    assert run.faults() == {"manifest.json": ["is missing: the run did not end, or it was removed"]}
    for empty in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(InputError, match="nothing is there"):
            verify(str(empty), run.key.public_key())
        os.makedirs(tmp_path / "empty", exist_ok=True)

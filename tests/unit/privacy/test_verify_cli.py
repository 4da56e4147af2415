"""`deid verify` and `deid keys` as a user types them."""

import base64
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives import serialization
from typer.testing import CliRunner

from deid import cli
from deid.errors import PromiseError
from deid.privacy import seal
from tests.unit.privacy.sealed import Sealed

DEID = [sys.executable, "-c", "from deid.cli import main; main()"]
Line = namedtuple("Line", "name value chance limit above note")


def deid(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"COLUMNS": "200"}
    return subprocess.run(
        [*DEID, *arguments], capture_output=True, text=True, check=False, timeout=120, env=env
    )


@pytest.fixture
def run(tmp_path: Path) -> Sealed:
    return Sealed(tmp_path / "run").make()


def public(run: Sealed) -> str:
    return seal.public_hex(run.key.public_key())


def test_a_sound_run(run: Sealed, tmp_path: Path) -> None:
    pem = tmp_path / "key.pub"
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    pem.write_bytes(run.key.public_key().public_bytes(*form))
    for key in (public(run), str(pem)):
        done = deid("verify", str(run.folder), "--key", key)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert all(line.startswith("ok     ") for line in lines)
        assert [line.split()[1] for line in lines] == [
            "signature:", "manifest:", "objects:", "shards:", "audit:", "summary:", "people:",
        ]  # fmt: skip


def test_a_tampered_run_ends_with_6_and_one_line_a_finding(run: Sealed) -> None:
    (run.folder / run.shards[0]).unlink()
    (run.folder / "new\nok     all").write_bytes(b"x")
    done = deid("verify", str(run.folder), "--key", public(run))
    assert done.returncode == 6
    lines = [line for line in done.stdout.splitlines() if line.startswith("FAULT  ")]
    assert f"FAULT  {run.shards[0]}: is missing" in lines
    assert r"FAULT  new\nok     all: is not in the manifest: it was added after the run" in lines
    assert "ok     all" not in [line[:10] for line in done.stdout.splitlines()]
    assert done.stderr.startswith(f"deid: {len(lines)} faults")
    assert "Traceback" not in done.stderr


def test_a_repeatable_run_ends_with_6_unless_it_is_allowed(run: Sealed) -> None:
    run.reseal(config=run.manifest["config"] | {"repeatable": True})
    arguments = "verify", str(run.folder), "--key", public(run)
    done = deid(*arguments)
    assert done.returncode == 6
    assert "FAULT  manifest.json: the run was repeatable (seed was set)" in done.stdout
    assert deid(*arguments, "--allow-repeatable").returncode == 0


def test_mistakes_have_their_code_and_line(run: Sealed, tmp_path: Path) -> None:
    for arguments, code, words in (
        ((str(run.folder), "--key", "no-such-file"), 2, "64 hex characters"),
        ((str(run.folder),), 2, "--key"),
        ((str(tmp_path / "none"), "--key", public(run)), 4, "nothing is there"),
    ):
        done = deid("verify", *arguments)
        assert done.returncode == code
        assert words in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("above", [False, True])
def test_linkage_is_attacked_when_asked(run: Sealed, above: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        Line("order", 0.01, 0.0, 0.1, False, "rank correlation"),
        Line("names", 0.5, 0.1, 0.2, above, "n-grams"),
    ]
    asked = list[tuple[str, str]]()

    def attack(raw: str, out: str) -> list[Line]:
        asked.append((raw, out))
        return lines

    monkeypatch.setitem(sys.modules, "deid.privacy.linkage", SimpleNamespace(attack=attack))
    monkeypatch.setenv("COLUMNS", "200")
    arguments = ["verify", str(run.folder), "--key", public(run), "--linkage", "s3://raw", "s3://out"]
    done = CliRunner().invoke(cli.app, arguments)
    assert asked == [("s3://raw", "s3://out")]
    for word in ("order", "names", "chance", "0.5", "n-grams"):
        assert word in done.output
    assert ("ABOVE" in done.output) == above
    assert isinstance(done.exception, PromiseError) == above
    assert (done.exit_code == 0) != above


def test_keys_are_made_once(tmp_path: Path) -> None:
    state, signing = tmp_path / "state.key", tmp_path / "sign.pem"
    done = deid("keys", "new", str(state))
    assert done.returncode == 0, done.stderr
    assert len(base64.b64decode(state.read_bytes())) == 32
    assert state.read_text().strip() not in done.stdout
    done = deid("keys", "signing", str(signing))
    assert done.returncode == 0, done.stderr
    assert seal.public_hex(seal.load_public(f"{signing}.pub")) in done.stdout
    for verb, path in (("new", state), ("signing", signing)):
        before = path.read_bytes()
        done = deid("keys", verb, str(path))
        assert (done.returncode, path.read_bytes()) == (2, before)
        assert "not overwritten" in done.stderr


def test_a_key_pair_signs_and_verifies_a_run(run: Sealed, tmp_path: Path) -> None:
    signing = tmp_path / "sign.pem"
    deid("keys", "signing", str(signing))
    run.sign(run.manifest, seal.load_private(signing))
    assert deid("verify", str(run.folder), "--key", f"{signing}.pub").returncode == 0
    assert deid("verify", str(run.folder), "--key", public(run)).returncode == 6

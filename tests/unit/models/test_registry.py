"""The packaged registry, and what a run accepts of it."""

from pathlib import Path

import pytest

from deid.config import Models
from deid.errors import ModelError
from deid.models import registry
from deid.models.store import Store


def test_every_model_is_described() -> None:
    known = registry.load()
    assert {"centerface", "facemesh", "dlib_resnet", "mobilestylegan"} <= set(known.models)
    for name, model in known.models.items():
        assert model.archive in known.archives, name
        assert model.members, name
        for text in (model.reason, model.commercial_use, model.licence, model.source, model.used_for):
            assert text.strip(), name
            assert "\n" not in text.strip(), name


def test_every_packaged_model_is_there_and_has_a_card() -> None:
    for name, model in registry.load().packaged.items():
        assert len(model.sha256) == 64, name
        assert (Path(__file__).parents[3] / model.source).is_file(), name


def test_base_names_are_unique_in_an_archive() -> None:
    known = registry.load()
    for name in known.models:
        names = [member.name for member in known.siblings(name)]
        assert len(set(names)) == len(names)


def test_pinned_versions_match_the_file_names() -> None:
    for archive in registry.load().archives.values():
        assert archive.file.split("-")[0].replace("_", "-") == archive.package
        assert archive.file.split("-")[1] == archive.version


def test_the_default_configuration_refuses_the_restricted_generator() -> None:
    with pytest.raises(ModelError) as caught:
        Store(Models()).check_accepted(["centerface", "mobilestylegan", "facemesh"])
    line = str(caught.value)
    assert "mobilestylegan is restricted" in line
    assert "non-commercial" in line
    assert "models.accept: [clean, permissive, restricted]" in line
    assert "centerface" not in line
    assert "\n" not in line


def test_accepted_classes_pass() -> None:
    registry.check_accepted(registry.load().models, ["permissive", "restricted"])
    assert Store(Models(accept=("restricted",))).accepted("mobilestylegan")
    assert not Store(Models(accept=("restricted",))).accepted("centerface")


def test_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"no model 'facenet'.*centerface"):
        Store(Models()).files("facenet")

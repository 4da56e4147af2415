from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deid import config
from deid.errors import ConfigError, ModelError
from deid.faces.attributes import AttributeHeads
from deid.faces.strict import StrictDetector
from deid.models import registry
from deid.pipeline import parts, stages

ACCEPT = {"accept": ["clean", "permissive", "restricted"]}


class Own:
    def __init__(
        self, files: Mapping[str, Path], threads: int = 1, device: str = "cpu", tone: str = ""
    ) -> None:
        self.files, self.threads, self.device, self.tone = files, threads, device, tone


def settings(**changes: Any) -> config.Config:
    base = {"input": {"uri": "raw"}, "output": {"uri": "out"}, "state": "state", "models": ACCEPT}
    return config.parse(base | changes)


def test_a_part_of_the_users_own_is_a_class_path_with_options() -> None:
    name = f"{__name__}:Own"
    made = settings(detector={"name": name, "options": {"tone": "low"}}, generator={"name": name})
    parts.check(made)
    own = parts.build(made, "detector", config.Stage(threads=3, gpus=0.5))
    assert (own.files, own.threads, own.device, own.tone) == ({}, 3, "cuda", "low")
    assert "centerface" not in parts.models_of(made)


def test_a_part_of_several_models_gets_the_files_of_all() -> None:
    made = settings(detector={"name": "strict"})
    assert {"centerface", "blazeface", "mtcnn"} < set(parts.models_of(made))
    assert parts.models_of(made).count("facemesh") == 1
    detector = parts.build(made, "detector", config.Stage())
    assert isinstance(detector, StrictDetector)


def test_files_of_one_part_do_not_hide_each_other() -> None:
    known = registry.load()
    for builtins in parts.BUILTIN.values():
        for builtin in builtins.values():
            names = [member.name for model in builtin.models for member in known.model(model).members]
            assert len(set(names)) == len(names)


def test_wrong_options_are_named() -> None:
    made = settings(detector={"name": f"{__name__}:Own", "options": {"tonne": 1}})
    with pytest.raises(ConfigError, match=r"detector\.options.*tonne"):
        parts.build(made, "detector", config.Stage())


def test_a_licence_that_is_not_accepted_stops() -> None:
    with pytest.raises(ModelError, match="mobilestylegan"):
        parts.check(settings(models={}))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="centerface, strict, or a class path"):
        parts.check(settings(detector={"name": "centreface"}))


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({}, True),
        ({"region": {"kind": "head"}}, True),
        ({"region": {"kind": "face"}}, False),
        ({"anonymizer": "blur"}, False),
        ({"anonymizer": "ksame-pixel"}, False),
    ],
)
def test_heads_are_taken_apart_only_where_they_are_replaced(changes: dict[str, Any], used: bool) -> None:
    made = settings(**changes)
    assert parts.uses_segmenter(made) == used
    assert (parts.segmenter(made, config.Stage()) is not None) == used


@pytest.mark.parametrize("anonymizer", ["surrogate", "ksame-pixel", "solid", "blur", "pixelate"])
@pytest.mark.parametrize("embedder", ["dlib", f"{__name__}:Own"])
def test_no_packaged_weights_are_loaded_whose_licence_is_not_looked_at(
    anonymizer: str, embedder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, loaded = settings(anonymizer=anonymizer, embedder={"name": embedder}), []
    monkeypatch.setattr(parts, "build", lambda *_: SimpleNamespace(style_dim=512))
    monkeypatch.setattr(AttributeHeads, "load", lambda *_: loaded.append("attributes"))
    stages.Generate(made, bytes(32))
    assert loaded == [name for name in parts.packaged_of(made) if name == "attributes"]


OWN = {kind: {"name": f"{__name__}:Own"} for kind in parts.KINDS} | {"gallery": "own.parquet"}
CLEAN = {"accept": ["clean", "permissive"]}


def test_the_segmenters_licence_must_be_accepted_where_it_is_used() -> None:
    made = settings(**OWN, models=CLEAN, segmenter="segmenter")
    with pytest.raises(ModelError, match="segmenter is restricted"):
        parts.check(made)
    parts.check(settings(**OWN, models=CLEAN, segmenter="segmenter", anonymizer="solid"))
    parts.check(settings(**OWN, models=CLEAN, segmenter="segmenter", region={"kind": "face"}))


def test_what_is_accepted_chooses_between_the_packaged_networks() -> None:
    own = {key: value for key, value in OWN.items() if key != "embedder"} | {"region": {"kind": "face"}}
    made = settings(**own, models=CLEAN)
    parts.check(made)
    assert parts.packaged_of(made) == ["attributes_clean"]
    assert parts.packaged_of(settings(**own)) == ["attributes"]
    assert parts.packaged_of(settings(**own, attributes="attributes_clean")) == ["attributes_clean"]
    heads, others = parts.attributes(made), parts.attributes(settings(**own))
    assert heads is not None
    assert others is not None
    assert not np.array_equal(heads.age_weight, others.age_weight)


def test_heads_are_found_by_the_clean_network_where_restricted_ones_are_not_accepted() -> None:
    own = {key: value for key, value in OWN.items() if key != "embedder"}
    made = settings(**own, models=CLEAN)
    parts.check(made)
    assert parts.packaged_of(made) == ["attributes_clean", "segmenter_clean"]
    assert parts.packaged_of(settings(**own)) == ["attributes", "segmenter"]
    chip = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    found = [parts.segmenter(each, config.Stage()) for each in (made, settings(**own))]
    first, second = (one.parts([chip])[0] for one in found if one is not None)
    assert not np.array_equal(first, second)


def test_the_class_of_everything_that_is_loaded_is_told() -> None:
    classes = parts.classes_of(settings())
    assert set(classes) == {*parts.models_of(settings()), *parts.packaged_of(settings())}
    assert classes["default_gallery"] == classes["mobilestylegan"] == "restricted"
    assert classes["facemesh"] == "permissive"


def test_a_packaged_network_of_another_role_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"attributes: 'segmenter' is unknown; use attributes, attributes_clean"
    ):
        parts.check(settings(attributes="segmenter"))


def test_the_default_gallery_must_be_accepted_where_no_other_is_named() -> None:
    with pytest.raises(ModelError, match="default_gallery is restricted"):
        parts.check(settings(**OWN | {"gallery": None}, models=CLEAN))

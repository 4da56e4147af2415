from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from deid.gallery import build, enrich, store
from deid.interfaces import Gallery
from deid.models.store import default_store
from deid.surrogates.generator import MobileStyleGANGenerator


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return store.load(None)


def test_the_default_gallery_has_people_of_every_look_that_was_searched(gallery: Gallery) -> None:
    attributes = gallery.attributes
    male = attributes["sex"] > 0.5
    assert int(gallery.metadata["enriched"]) > 50
    for of in (male, ~male):
        assert (attributes["skin_l"][of] < 45).sum() >= 25
    assert (attributes["hair_low"][~male] < 0.15).sum() >= 100
    assert (attributes["bald"][male] > 0.5).sum() >= 40


def test_searched_candidates_are_of_the_looks_that_were_asked_for(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrich, "SEARCHED", 600)
    groups = (enrich.Rare(male=True, look="skin_l", high=False, count=10),)
    monkeypatch.setattr(enrich, "GROUPS", groups)
    generator, recipe = MobileStyleGANGenerator(default_store().files("mobilestylegan")), build.Recipe()
    numbers = enrich.candidates(gallery, generator, recipe)
    assert len(numbers) == 10
    assert (np.diff(numbers) > 0).all()
    assert numbers.min() >= enrich.FIRST
    np.testing.assert_array_equal(numbers, enrich.candidates(gallery, generator, recipe))
    control = enrich.Steering(gallery, 0).control
    expected = control.measures(
        build.draw_styles(generator, recipe, numbers, build.mean_style(generator, recipe))
    )
    assert (expected[:, control.names.index("sex")] > 0).all()
    assert expected[:, control.names.index("skin_l")].mean() < control.mean[control.names.index("skin_l")] - 5


def test_only_usable_and_new_identities_are_added(gallery: Gallery) -> None:
    rng = np.random.default_rng(0)
    rows = 5
    batch = {name: values[:rows].copy() for name, values in gallery.attributes.items()}
    batch |= {"style": gallery.styles[:rows], "mesh": gallery.meshes[:rows], "number": np.arange(rows)}
    batch["embedding"] = gallery.embeddings[:rows] + rng.normal(0, 1, (rows, 128)).astype(np.float32)
    batch["embedding"][1] = gallery.embeddings[7]
    batch["embedding"][3] = batch["embedding"][0] + 1e-3
    batch["dropped"] = np.array(["", "", "glasses", "", ""])
    found = enrich.extended(replace(gallery, metadata={}), batch, build.Recipe())
    assert len(found) == len(gallery) + 2
    assert Counter(map(len, found.attributes.values())) == {len(found): len(gallery.attributes)}
    np.testing.assert_array_equal(found.styles[-2:], gallery.styles[[0, 4]])

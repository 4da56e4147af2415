"""Fictional people, a few pictures of each: gallery identities, with other expressions from take to take."""

import json
from collections.abc import Sequence

import numpy as np
from PIL import Image

from deid.config import Models
from deid.faces.align import MEASURES
from deid.gallery import store as gallery_store
from deid.models.store import Store
from deid.surrogates.control import Control
from deid.surrogates.generator import MobileStyleGANGenerator
from tests.e2e import corpus

Pictures = dict[tuple[int, int], bytes]  # JPEG by person and take


def strangers(count: int, apart: float = 0.72) -> list[int]:
    """Gallery identities that no recognizer takes for one another."""
    embeddings, chosen = gallery_store.load(None).embeddings, list[int]()
    for number, vector in enumerate(embeddings):
        if all(np.linalg.norm(vector - embeddings[other]) >= apart for other in chosen):
            chosen.append(number)
        if len(chosen) == count:
            return chosen
    raise ValueError(f"the gallery has no {count} identities that far apart")


def photograph(people: Sequence[int], takes: int, side: int = 256) -> Pictures:
    """Pictures of gallery identities, the takes of one differing in smile and pose."""
    gallery = gallery_store.load(None)
    files = Store(Models(accept=("clean", "permissive", "restricted"))).files("mobilestylegan")
    generator, control = (
        MobileStyleGANGenerator(files, threads=1),
        Control.fit(gallery.styles, gallery.meshes, gallery.embeddings),
    )
    made: Pictures = {}
    for person in people:
        style = gallery.styles[person]
        for take in range(takes):
            target = control.measures(style)
            for name, step in (("smile", 0.8), ("yaw", 0.4)):
                place = MEASURES.index(name)
                target[place] += (take - (takes - 1) / 2) * step * control.deviation[place]
            picture = generator.generate(control.steer(style, target)[None], side=side)[0]
            made[person, take] = corpus.encoded(Image.fromarray(np.asarray(picture)), quality=92)
    return made


def shards(pictures: Pictures, a_shard: int = 8) -> dict[str, bytes]:
    """Tars, each picture with a .json that names its person, and everything with the canary in its name."""
    members = [
        [
            (f"{corpus.CANARY}-{person}-{take}.jpg", data),
            (
                f"{corpus.CANARY}-{person}-{take}.json",
                json.dumps({"person": f"p{person}", "label": take}).encode(),
            ),
        ]
        for (person, take), data in pictures.items()
    ]
    parts = [members[start : start + a_shard] for start in range(0, len(members), a_shard)]
    return {
        f"{corpus.CANARY}-{n}.tar": corpus.tar([m for sample in part for m in sample])
        for n, part in enumerate(parts)
    }

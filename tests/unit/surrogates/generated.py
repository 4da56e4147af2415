"""Generated faces with their meshes and parts, and the networks that look at them; loaded once a process."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from deid.faces import appearance, segment
from deid.faces.mesh import FaceMesher, as_detection
from deid.faces.segmenter import HeadSegmenter
from deid.gallery import store as gallery_store
from deid.interfaces import Gallery, Picture
from deid.models.store import default_store
from deid.surrogates.generator import MobileStyleGANGenerator
from deid.surrogates.head import Drawn

SIDE = 256  # px


@cache
def gallery() -> Gallery:
    return gallery_store.load(None)


@cache
def generator() -> MobileStyleGANGenerator:
    return MobileStyleGANGenerator(default_store().files("mobilestylegan"), size=SIDE)


@cache
def mesher() -> FaceMesher:
    return FaceMesher(default_store().files("facemesh"))


@cache
def segmenter() -> HeadSegmenter:
    return HeadSegmenter()


def drawn(style: NDArray[np.float32]) -> Drawn:
    """The head of a style [style_dim]."""
    picture: Picture = generator().generate(style[None], side=SIDE)[0]
    meshes, scores = mesher().mesh(picture, as_detection(gallery().meshes.mean(0) * np.float32(SIDE)))
    assert scores[0] > 0.9
    return Drawn(picture, meshes[0], segmenter().parts([picture])[0])


@cache
def head(number: int) -> Drawn:
    """The head of an identity of the default gallery."""
    return drawn(gallery().styles[number])


def looks(head: Drawn) -> dict[str, float]:
    """The looks of a generated head by name."""
    chip = segment.head_chip(head.picture, head.mesh)
    values = appearance.looks(chip, segmenter().parts([chip])[0], head.mesh)
    return dict(zip(appearance.LOOKS, values.tolist(), strict=True))

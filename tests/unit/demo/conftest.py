"""A small corpus, made once for the tests of the demonstration."""

import pytest

from deid.demo import corpus
from deid.demo.corpus import Corpus, Recipe

RECIPE = Recipe(seed=7, pictures=6, shards=2, people=3, takes=2, candidates=8, most=800)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus.make(tmp_path_factory.mktemp("demo") / "corpus", RECIPE)

import numpy as np
import pytest

from deid.gallery import worn


def test_every_kind_is_labelled_both_ways():
    labels = worn.Labels.load()
    for kind in worn.KINDS:
        with_it, without = set(labels.worn[kind]), set(labels.absent[kind])
        assert min(len(with_it), len(without)) > 50
        assert not with_it & without


@pytest.mark.parametrize("absent", [100, 600])
def test_a_score_finds_what_sets_styles_apart(absent):
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(512) / 512**0.5
    labelled = rng.standard_normal((100 + absent, 512)).astype(np.float32)
    labelled[:100] += 4 * direction
    score = worn.Score.fit(labelled[:100], labelled[100:])
    unseen = rng.standard_normal((400, 512)).astype(np.float32)
    unseen[:200] += 4 * direction
    scores = score(unseen)
    assert scores.shape == (400,)
    assert (scores[:200, None] > scores[None, 200:]).mean() > 0.9

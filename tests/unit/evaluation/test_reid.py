import itertools

import numpy as np
import pytest

from deid.evaluation.reid import (
    FIGURES,
    Templates,
    compare,
    permuted,
    rank_probabilities,
    reidentify,
    resampled,
    similarity,
)


def people(rng, count=40, dim=32, noise=0.2, each=1):
    """Enrolments and probes of well separated people."""
    centres = rng.normal(size=(count, dim))
    subjects = np.array([f"s{i:03d}" for i in range(count)])
    enrolled = Templates(centres + noise * rng.normal(size=centres.shape), subjects)
    probes = np.repeat(centres, each, axis=0)
    return enrolled, Templates(probes + noise * rng.normal(size=probes.shape), np.repeat(subjects, each))


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_no_change_scores_at_clear_level(rng, metric):
    enrolled, probes = people(rng)
    result = reidentify(compare(enrolled, probes, metric), rng)
    assert result.rank1.value == 1.0
    assert result.auc.value > 0.999
    assert result.tar[0.01].value > 0.99
    assert result.eer.value < 0.01


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_perfect_anonymizer_scores_at_chance(metric):
    rng = np.random.default_rng(3)
    rank1, area = [], []
    for _ in range(60):
        enrolled, probes = people(rng)
        replaced = Templates(rng.normal(size=probes.vectors.shape), probes.subjects)
        result = reidentify(compare(enrolled, replaced, metric), rng, resamples=0)
        rank1.append(result.rank1.value)
        area.append(result.auc.value)
    assert np.mean(rank1) == pytest.approx(1 / 40, abs=0.01)
    assert np.mean(area) == pytest.approx(0.5, abs=0.02)


def test_one_face_for_everybody_is_exactly_at_chance(rng):
    enrolled, probes = people(rng, count=25)
    same = Templates(np.ones_like(probes.vectors), probes.subjects)
    constant = Templates(np.ones_like(enrolled.vectors), enrolled.subjects)
    result = reidentify(compare(constant, same, "euclidean"), rng)
    assert result.rank1.value == pytest.approx(1 / 25)
    assert result.auc.value == 0.5
    assert result.cmc == pytest.approx(np.arange(1, 26) / 25)


def test_shuffled_labels_are_at_chance(rng):
    enrolled, probes = people(rng)
    result = reidentify(compare(enrolled, permuted(probes, rng, repeats=50), "cosine"), rng, resamples=100)
    assert result.rank1.value == pytest.approx(result.chance, abs=0.02)
    assert result.auc.value == pytest.approx(0.5, abs=0.05)


def test_permuting_moves_whole_people_and_keeps_the_vectors(rng):
    _, probes = people(rng, count=6, each=3)
    shuffled = permuted(probes, rng, repeats=4)
    names = shuffled.subjects.reshape(4, 6, 3)
    assert (names == names[:, :, :1]).all()
    assert all(sorted(row) == sorted(set(probes.subjects)) for row in names[:, :, 0].tolist())
    assert (shuffled.vectors.reshape(4, 18, -1) == probes.vectors).all()


def test_scores_against_a_plain_loop(rng):
    enrolled, probes = people(rng, count=12, noise=1.5, each=2)
    enrolled = Templates(np.round(enrolled.vectors), enrolled.subjects)  # coarse, so that there are ties
    probes = Templates(np.round(probes.vectors), probes.subjects)
    result = reidentify(compare(enrolled, probes, "euclidean"), rng, resamples=0)
    wins, hits = [], []
    for vector, subject in zip(probes.vectors, probes.subjects, strict=True):
        score = {
            s: -np.linalg.norm(v - vector) for v, s in zip(enrolled.vectors, enrolled.subjects, strict=True)
        }
        best = max(score.values())
        hits.append((score[subject] == best) / sum(v == best for v in score.values()))
    for first, second in itertools.product(range(len(probes.vectors)), range(len(probes.vectors))):
        genuine = -np.linalg.norm(enrolled.vectors[first // 2] - probes.vectors[first])
        for other in range(12):
            if other != second // 2:
                impostor = -np.linalg.norm(enrolled.vectors[other] - probes.vectors[second])
                wins.append(float(genuine > impostor) + 0.5 * (genuine == impostor))
    assert result.rank1.value == pytest.approx(np.mean(hits))
    assert result.auc.value == pytest.approx(np.mean(wins), abs=1e-9)


def test_ties_share_the_rank():
    enrolled = Templates(np.array([[1.0, 0], [1, 0], [0, 1]]), np.array(["a", "b", "c"]))
    probes = Templates(np.array([[1.0, 0], [0, 1]]), np.array(["a", "a"]))
    ranks = rank_probabilities(compare(enrolled, probes, "cosine"))
    assert ranks.tolist() == [[0.5, 1, 1], [0, 0.5, 1]]


def test_best_of_several_enrolments_counts():
    enrolled = Templates(np.array([[1.0, 0], [0, 1], [0.6, 0.8]]), np.array([1, 1, 2]))
    comparison = compare(enrolled, Templates(np.array([[0.0, 1]]), np.array([1])), "cosine")
    assert comparison.scores.tolist() == [[1.0, 0.8]]


def four_lost(rng):
    """Ten people, and no face in the probes of four."""
    enrolled, probes = people(rng, count=10)
    lost = probes.vectors.copy()
    lost[:4] = np.nan
    return reidentify(compare(enrolled, Templates(lost, probes.subjects), "cosine"), rng)


def test_a_probe_without_a_face_is_a_miss_and_no_part_of_the_auc(rng):
    result = four_lost(rng)
    assert result.rank1.value == pytest.approx(0.6)
    assert result.cmc[-1] == pytest.approx(0.6)
    assert (result.failures_to_acquire, result.genuine, result.impostors) == (4, 6, 54)
    assert result.auc.value == 1.0


def test_nothing_found_at_all_is_rank_1_of_zero_and_no_auc(rng):
    enrolled, probes = people(rng, count=10)
    lost = Templates(np.full_like(probes.vectors, np.nan), probes.subjects)
    result = reidentify(compare(enrolled, lost, "cosine"), rng)
    assert (result.rank1.value, result.rank1.low, result.rank1.high) == (0.0, 0.0, pytest.approx(0.3))
    assert np.isnan([result.auc.value, result.eer.value, result.tar[0.01].value]).all()


def test_people_who_could_not_be_enrolled_are_counted(rng):
    enrolled, probes = people(rng, count=10, each=2)
    vectors = enrolled.vectors.copy()
    vectors[3] = np.nan
    result = reidentify(compare(Templates(vectors, enrolled.subjects), probes, "cosine"), rng, resamples=0)
    assert (result.unenrolled_subjects, result.unenrolled_probes) == (1, 2)
    assert (result.subjects, result.probes, result.rank1.value) == (9, 18, 1.0)


def test_attributes_alone_do_no_better_than_their_chance(rng):
    """A surrogate that keeps the group and nothing else: above 1/N, and at the chance of attributes."""
    centres = rng.normal(size=(4, 16)) * 10
    subjects, group = np.arange(80), np.arange(80) % 4
    enrolled = Templates(centres[group] + rng.normal(size=(80, 16)), subjects)
    probes = Templates(
        np.repeat(centres[group], 20, 0) + rng.normal(size=(1600, 16)), np.repeat(subjects, 20)
    )
    groups = dict(zip(subjects.tolist(), group.tolist(), strict=True))
    whole = reidentify(compare(enrolled, probes, "euclidean", groups), rng, resamples=0)
    inside = reidentify(compare(enrolled, probes, "euclidean", groups, within=True), rng, resamples=0)
    assert whole.chance == pytest.approx(1 / 80)
    assert whole.chance_attributes == inside.chance == pytest.approx(1 / 20)
    assert whole.rank1.value == pytest.approx(1 / 20, abs=0.03)
    assert whole.auc.value > 0.85
    assert inside.auc.value == pytest.approx(0.5, abs=0.05)


def test_chance_of_uneven_groups(rng):
    enrolled, probes = people(rng, count=4)
    groups = {"s000": "x", "s001": "x", "s002": "x", "s003": "y"}
    result = reidentify(compare(enrolled, probes, "cosine", groups), rng, resamples=0)
    assert result.chance_attributes == pytest.approx((1 / 3 + 1 / 3 + 1 / 3 + 1) / 4)
    assert result.chance == pytest.approx(1 / 4)


def test_far_finer_than_one_impostor_pair_is_not_measured(rng):
    enrolled, probes = people(rng, count=11)  # 110 impostor pairs
    result = reidentify(compare(enrolled, probes, "cosine"), rng)
    assert result.tar[0.01].value == 1.0
    assert np.isnan(result.tar[0.001].value)


def test_bootstrap_intervals_cover_the_truth():
    """Over 80 draws of 30 people, the 95 % intervals hold the population's rank-1 and AUC in nearly all."""
    rng = np.random.default_rng(11)

    def attack(count):
        centres = rng.normal(size=(count, 4))
        subjects = np.arange(count)
        return Templates(centres, subjects), Templates(
            centres + 0.8 * rng.normal(size=centres.shape), subjects
        )

    exact = [reidentify(compare(*attack(30), "euclidean"), rng, resamples=0) for _ in range(400)]
    rank1, area = (np.mean([getattr(r, name).value for r in exact]) for name in ("rank1", "auc"))
    results = [reidentify(compare(*attack(30), "euclidean"), rng, resamples=200) for _ in range(80)]
    assert np.mean([r.rank1.low <= rank1 <= r.rank1.high for r in results]) > 0.85
    assert np.mean([r.auc.low <= area <= r.auc.high for r in results]) > 0.85
    assert np.mean([r.auc.high - r.auc.low for r in results]) < 0.2


def test_the_same_seed_gives_the_same_intervals(rng):
    comparison = compare(*people(rng, noise=2.0), "cosine")
    first, second = (reidentify(comparison, np.random.default_rng(5), resamples=50) for _ in range(2))
    assert (first.auc, first.rank1) == (second.auc, second.rank1)


def test_similarities():
    a, b = np.array([[3.0, 4.0]]), np.array([[3.0, 0.0], [-6.0, -8.0]])
    assert similarity(a, b, "cosine").tolist() == [[pytest.approx(0.6), pytest.approx(-1.0)]]
    assert similarity(a, b, "euclidean").tolist() == [[-4.0, -15.0]]


def test_a_surrogate_that_avoids_its_own_person_links_too(rng):
    """Pushed away from the person, a probe is never at rank 1, and yet names him to who looks from the other end."""
    enrolled, probes = people(rng)
    opposite = Templates(-probes.vectors, probes.subjects)
    result = reidentify(compare(enrolled, opposite, "cosine"), rng)
    assert result.rank1.value == 0.0
    assert result.auc.value < 0.01
    assert result.furthest.value == 1.0
    same = reidentify(compare(enrolled, probes, "cosine"), rng, resamples=0)
    assert same.furthest.value == 0.0


def test_what_cannot_be_compared_is_refused(rng):
    enrolled, probes = people(rng, count=3)
    with pytest.raises(ValueError, match="metric"):
        compare(enrolled, probes, "manhattan")
    with pytest.raises(ValueError, match="two enrolled"):
        compare(enrolled, Templates(probes.vectors, np.array(["x", "y", "z"])), "cosine")
    with pytest.raises(ValueError, match="need the groups"):
        compare(enrolled, probes, "cosine", within=True)
    with pytest.raises(ValueError, match="2 subjects have no group"):
        compare(enrolled, probes, "cosine", {"s000": 1})
    with pytest.raises(ValueError, match=r"\[N, D\]"):
        Templates(np.zeros((3, 2)), np.array([1, 2]))


def test_weights_of_subjects_against_a_plain_loop(rng):
    """A genuine pair weighs its subject's weight, an impostor pair the product of both its subjects' weights."""
    enrolled, probes = people(rng, count=9, noise=1.5, each=2)
    comparison = compare(
        Templates(np.round(enrolled.vectors), enrolled.subjects),
        Templates(np.round(probes.vectors), probes.subjects),
        "euclidean",
    )
    weights = rng.integers(0, 4, size=(3, 9)).astype(float)
    scores, mate = comparison.scores, comparison.mate
    for weight, row in zip(weights, resampled(comparison, weights), strict=True):
        wins = total = 0.0
        for g, p, s in itertools.product(range(18), range(18), range(9)):
            if s != mate[p]:
                pair = weight[mate[g]] * weight[mate[p]] * weight[s]
                own, other = scores[g, mate[g]], scores[p, s]
                wins += pair * (float(own > other) + 0.5 * (own == other))
                total += pair
        figures = dict(zip(FIGURES, row, strict=False))
        assert figures["auc"] == pytest.approx(wins / total)
        hits = rank_probabilities(comparison)
        assert figures["rank1"] == pytest.approx(np.average(hits[:, 0], weights=weight[mate]))
        assert figures["rank5"] == pytest.approx(np.average(hits[:, 4], weights=weight[mate]))


def test_many_resamples_are_the_same_in_pieces(rng, monkeypatch):
    comparison = compare(*people(rng, noise=2.0), "cosine")
    whole = reidentify(comparison, np.random.default_rng(5), resamples=50)
    monkeypatch.setattr("deid.evaluation.reid.AT_ONCE", 1)
    assert reidentify(comparison, np.random.default_rng(5), resamples=50).auc == whole.auc


def test_the_share_of_lost_probes_and_rank_5(rng):
    result = four_lost(rng)
    assert result.lost.value == pytest.approx(0.4)
    assert result.lost.low < 0.4 < result.lost.high
    assert result.rank5.value == pytest.approx(result.cmc[4])

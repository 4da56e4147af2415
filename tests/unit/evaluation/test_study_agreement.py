import numpy as np
import pytest

from deid.evaluation.study import agreement

# Krippendorff 2011, example B: two observers; example C: four observers with missing data.
B = ("aabbdcccedda", "babbbccceddd")
C = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def alpha(rows, options, level="nominal"):
    places = agreement.table(rows, options)
    return agreement.alpha(agreement.counts(places, len(options)), level)


def test_published_example_of_two_observers():
    assert alpha(B, "abcde") == pytest.approx(0.692, abs=5e-4)


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_published_example_with_missing_data(level, published):
    assert [len(row) for row in C] == [12] * 4
    assert alpha(C, "12345", level) == pytest.approx(published, abs=5e-4)


def test_all_agree():
    assert alpha(["abcab"] * 3, "abc") == pytest.approx(1)


def test_guesses_agree_by_chance():
    given = agreement.counts(np.random.default_rng(0).integers(3, size=(20, 400)), 3)
    assert agreement.alpha(given) == pytest.approx(0, abs=0.02)
    assert agreement.alpha(given, "ordinal") == pytest.approx(0, abs=0.02)


def test_near_misses_count_less_when_bands_have_an_order():
    near, far = ["11223344", "12233444"], ["11223344", "41223341"]
    assert alpha(near, "1234", "ordinal") > alpha(near, "1234")
    assert alpha(far, "1234", "ordinal") < alpha(far, "1234")


@pytest.mark.parametrize("rows", [["ab"], ["aa", "aa"], ["a.", ".b"], ["", ""]])
def test_nothing_to_agree_on(rows):
    assert np.isnan(alpha(rows, "ab"))
    given = agreement.counts(agreement.table(rows, "ab").reshape(len(rows), -1), 2)
    assert np.isnan(agreement.estimate(given, "nominal", np.random.default_rng(0), 50).low)


def test_interval_holds_alpha_and_shrinks_with_tasks():
    rng, widths = np.random.default_rng(1), []
    for tasks in (20, 320):
        truth = rng.integers(3, size=tasks)
        answers = np.where(rng.random((6, tasks)) < 0.7, truth, rng.integers(3, size=(6, tasks)))
        found = agreement.estimate(agreement.counts(answers, 3), "nominal", rng, 300)
        assert found.low < found.value < found.high
        assert (
            found.low < 0.49 < found.high
        )  # two answers agree beyond chance where both are the truth: .7 * .7
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2

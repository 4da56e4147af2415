import numpy as np
import pytest

from deid.errors import InputError
from deid.evaluation.labels import Label, read, roles

LONDON = """file,subject,expression,age,gender,ethnicity
001_neutral.jpg,001,neutral,24,female,white
001_smiling.jpg,001,smiling,24,female,white
002_neutral.jpg,002,neutral,NA,male,
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "labels.csv"
        path.write_text(text)
        return str(path)

    return write


def test_the_file_of_a_studio_set_is_read_as_it_is(written):
    first, second, third = read(written(LONDON))
    assert first == Label("001_neutral", "001", None, "female", 24.0, "neutral")
    assert (second.key, second.expression) == ("001_smiling", "smiling")
    assert (third.sex, third.role, third.show) == ("male", None, False)
    assert np.isnan(third.age)


def test_other_expressions_are_other_and_no_answer_is_none(written):
    text = "key,subject,expression\na,1,Angry\nb,1,NA\nc,1,\nd,1,Smiling\n"
    assert [label.expression for label in read(written(text))] == ["other", "", "", "smiling"]


def test_any_line_ends(tmp_path):
    for number, end in enumerate(("\n", "\r\n", "\r")):
        path = tmp_path / f"{number}.csv"
        path.write_bytes(end.join(("key,subject", "a,1", "b,2", "")).encode("utf-8-sig"))
        assert [label.key for label in read(str(path))] == ["a", "b"]


def test_boxes_roles_and_what_may_be_shown(written):
    text = "key,subject,x0,y0,x1,y1,role,show\na,1,1,2,3.5,4,enrol,yes\na,2,5,6,7,8,probe,no\nb,1,,,,,,\n"
    first, second, third = read(written(text))
    assert (first.box, first.role, first.show) == ((1, 2, 3.5, 4), "enrol", True)
    assert (second.role, second.show) == ("probe", False)
    assert (third.box, third.role) == (None, "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,who\na,b\n", "needs a column key or file, with commas between; it has name, who"),
        ("key,who\na,b\n", "needs a column subject"),
        ("key,subject\n", "no lines"),
        ("key,subject\na,1\nb,\n", "line 3: subject is missing"),
        ("key,subject\n,1\n", "line 2: key is missing"),
        ("key,subject,x0\na,1,5\n", "all of the columns"),
        ("key,subject,x0,y0,x1,y1\na,1,5,5,5,9\n", "line 2: the box has no size"),
        ("key,subject,x0,y0,x1,y1\na,1,5,5,x,9\n", "line 2: x1 is no number"),
        ("key,subject,age\na,1,old\n", "line 2: age is no number"),
        ("key,subject,role\na,1,both\n", "line 2: role is one of enrol, probe"),
        ("key,subject,show\na,1,maybe\n", "line 2: show is one of yes, no"),
        ("key,subject\na,1\na,2\n", "line 3: a picture with several people needs a box"),
        ("key,subject\na,1,2\n", "line 2: has not the 2 columns"),
        ("key,key,subject\na,b,1\n", "two columns have one name"),
        pytest.param("key,subject\n" + "a" * 200_000 + ",1\n", "is no CSV", id="endless field"),
        pytest.param("a" * 200_000 + ",1\n", "is no CSV", id="endless header"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_without_a_key(written, text, says):
    with pytest.raises(InputError, match=says) as caught:
        read(written(text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read(str(tmp_path / "none.csv"))


def labels(*rows):
    return [Label(f"{n}", person, expression=expression) for n, (person, expression) in enumerate(rows)]


def test_the_neutral_picture_is_enrolled_and_else_the_largest():
    some = labels(("a", "smiling"), ("a", "neutral"), ("b", ""), ("b", ""), ("c", ""))
    found = roles(some, np.array([9.0, 4, 5, 6, 1]))
    assert found == [(False, True), (True, False), (False, True), (True, False), (True, False)]


def test_a_face_that_was_not_found_is_enrolled_last():
    some = labels(("a", "smiling"), ("a", "neutral"))
    assert roles(some, np.array([9.0, 0])) == [(True, False), (False, True)]


def test_given_roles_are_kept_and_strangers_are_both():
    some = [Label("a", "1", role="probe"), Label("b", "1", role="enrol"), Label("c", "1", role="")]
    assert roles(some, np.ones(3)) == [(False, True), (True, False), (False, False)]
    assert roles([None, None], np.ones(2)) == [(True, True)] * 2

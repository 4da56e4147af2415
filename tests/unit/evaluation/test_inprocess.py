import cv2
import numpy as np
import pytest

from deid.config import Models
from deid.errors import ConfigError, PromiseError
from deid.evaluation import inprocess
from deid.evaluation.inprocess import Job
from deid.interfaces import Picture
from tests.unit.surrogates import generated

ALL = Models(accept=("clean", "permissive", "restricted"))


def photograph(number: int) -> Picture:
    """A generated head with room around it."""
    picture = cv2.copyMakeBorder(generated.head(number).picture, 70, 40, 60, 60, cv2.BORDER_REPLICATE)
    return np.asarray(picture, np.uint8)


@pytest.fixture(scope="module")
def sources() -> list[Picture]:
    return [photograph(4), photograph(4), photograph(6)]


@pytest.fixture(scope="module")
def job() -> Job:
    return Job(inprocess.configuration(ALL, {}, assignment={"mode": "keyed-random"}), bytes(32))


def test_settings_go_over_the_defaults_one_by_one() -> None:
    config = inprocess.configuration(
        ALL, {"match": {"k": 3}, "assignment": {"k": 9}}, assignment={"mode": "keyed-random"}
    )
    assert (config.match.k, config.match.margin, config.models) == (3, 0.85, ALL)
    assert (config.assignment.mode, config.assignment.k) == ("keyed-random", 9)


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="anonymizer"):
        inprocess.configuration(ALL, {"anonymizer": "magic"})


def test_a_person_gets_one_surrogate_in_every_picture(job: Job, sources: list[Picture]) -> None:
    done = job.run(sources)
    assert [face.status for one in done for face in one.done] == ["replaced"] * 3
    first, again, other = (one.faces[0].identities for one in done)
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()
    for one, source in zip(done, sources, strict=True):
        assert one.result.shape == source.shape
        x0, y0, x1, y1 = one.faces[0].box.round().astype(int)
        changed = np.abs(one.result[y0:y1, x0:x1].astype(int) - source[y0:y1, x0:x1]).mean()
        assert changed > 10
        assert one.faces[0].surrogate is not None
        assert one.done[0].surrogate is None  # the job keeps nothing of it


def test_too_few_people_share_nothing(sources: list[Picture]) -> None:
    job = Job(inprocess.configuration(ALL, {}), bytes(32))
    with pytest.raises(PromiseError, match="must share a surrogate"):
        job.appoint(job.look(sources))


def test_people_named_by_a_field_share_one_surrogate() -> None:
    settings = {"assignment": {"k": 2, "subject": "name"}, "match": {"corrections": 0}}
    job = Job(inprocess.configuration(ALL, settings), bytes(32))
    found = job.look([photograph(4), photograph(6)])
    for row in found:
        row.subject = bytes([row.position + 1]) * 16
    surrogates = job.appoint(found)
    assert [surrogate.people for surrogate in surrogates] == [2]
    assert {tuple(row.faces[0].identities.tolist()) for row in found} == {surrogates[0].identities}

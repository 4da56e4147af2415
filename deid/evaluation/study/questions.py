"""What a study asks, and what may be answered; the page and the scoring both go by this."""

from dataclasses import dataclass

from deid.evaluation import groups

VERSION = 1  # of page, key and answers; raise it when one of them changes its meaning
COLUMNS = (
    *("participant", "task", "kind", "position", "shown", "answer"),
    *("milliseconds", "language", "page"),
)  # of the CSV of answers


@dataclass(frozen=True)
class Question:
    """options: ids of the answers, in order. two: shows two pictures. turns: the order of the options is drawn for
    each participant. share: of the tasks, where every kind can be asked."""

    options: tuple[str, ...]
    share: float = 0.0
    two: bool = False
    turns: bool = False


ASKED = {
    "real": Question(("real", "generated"), 0.3, turns=True),
    "same": Question(("same", "different"), 0.4, two=True, turns=True),
    "expression": Question(("smiling", "neutral", "other"), 0.1),
    "sex": Question(("female", "male", "unknown"), 0.1),
    "age": Question((*(name for _, name in groups.AGES), "45+"), 0.1),
}
# Attention checks that are seen to be checks; the third kind is the same picture twice, asked as "same".
CHECKS = {
    "press": Question(("red", "blue", "green", "yellow")),
    "upright": Question(("upright", "upside")),
}
QUESTIONS = ASKED | CHECKS
SHOWS_SOURCES = ("real", "same")
ABOUT_FACES = ("expression", "sex", "age")  # asked of de-identified pictures alone
CHECKS_OF_EACH = 2  # press, upright and the same picture twice: six checks
WRONG_CHECKS = 1  # more of them wrong, or not answered, and a participant does not count

# Conditions of "same person?": are both pictures clear, and is it the same person.
CONTROL, DIFFERENT, HIDDEN, STRANGER = "control", "different", "hidden", "stranger"
CONDITIONS = {
    CONTROL: "same person, both clear",
    DIFFERENT: "different people, both clear",
    HIDDEN: "same person, one de-identified",
    STRANGER: "different people, one de-identified",
}

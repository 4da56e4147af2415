"""What is wrong in an evaluation's file is said in one line."""

import pytest
import yaml

from deid.errors import ConfigError, ModelError
from deid.evaluation import look, settings

RIGHT = "source: {uri: raw}\noutput: report\nbaselines: [solid]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "an evaluation is a mapping with at least source and output"),
        ("- a\n", "an evaluation is a mapping"),
        (RIGHT + "baselinez: all\n", "baselinez is no setting; did you mean baselines\\?"),
        (RIGHT + "chosen: theirs\n", ": chosen: 'theirs' is none of solid"),
        (RIGHT + "thresholds: {rank1: .nan}\n", "thresholds.rank1: "),
        (RIGHT.replace("report", "raw/report"), "output: lies in the source"),
        (RIGHT.replace("report", "raw"), "output: lies in the source"),
        (RIGHT + "results: [{name: ours, uri: report}]\n", "output: lies in the source or in a result"),
    ],
)
def test_one_clear_line(tmp_path, text, says):
    path = tmp_path / "evaluation.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        settings.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_an_output_beside_the_source_is_right(tmp_path):
    path = tmp_path / "evaluation.yaml"
    path.write_text(RIGHT.replace("report", "raw-report"))
    assert settings.load(path).output == "raw-report"


def test_a_recognizer_that_is_no_model_ends_before_anything_is_looked_at(tmp_path):
    points = [[38.3, 51.7], [73.5, 51.5], [56.0, 71.7], [41.5, 92.4], [70.7, 92.2]]
    recognizer = tmp_path / "recognizer.yaml"
    recognizer.write_text(yaml.safe_dump({"path": "net.onnx", "template": points}))
    given = {
        "source": {"uri": str(tmp_path / "raw")},
        "output": str(tmp_path / "out"),
        "baselines": ["solid"],
    }
    asked = settings.Evaluation.model_validate(given | {"recognizers": [str(recognizer)]})
    with pytest.raises(ConfigError, match=r"there is no file net\.onnx"):
        look.check(asked)
    (tmp_path / "net.onnx").write_text("no network")
    with pytest.raises(ModelError, match="no ONNX model"):
        look.check(asked)

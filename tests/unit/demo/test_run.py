from pathlib import Path

import yaml

from deid import config
from deid.demo import run
from deid.evaluation.corpus import pairing
from deid.pipeline.trace import Pair


def test_the_demonstration_runs_the_configuration_that_is_shown() -> None:
    shown = Path(__file__).parents[3] / "configs" / "demo.yaml"
    assert config.parse(run.CONFIG) == config.parse(yaml.safe_load(shown.read_text(encoding="utf-8")))


def test_pairs_name_the_results_that_went_out(tmp_path: Path) -> None:
    made = [
        Pair("x.tar", "b", b"1", b"2", "out-b"),
        Pair("x.tar", "a", b"1", b"2", "out-a"),
        Pair("x.tar", "c", b"1", b""),
    ]
    run._write_pairs(made, tmp_path / "pairs.csv")
    assert pairing(str(tmp_path / "pairs.csv"), "demo") == {"a": "out-a", "b": "out-b"}

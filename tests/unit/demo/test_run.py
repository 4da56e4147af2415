from pathlib import Path

import yaml

from deid import config
from deid.demo import run


def test_the_demonstration_runs_the_configuration_that_is_shown() -> None:
    shown = Path(__file__).parents[3] / "configs" / "demo.yaml"
    assert config.parse(run.CONFIG) == config.parse(yaml.safe_load(shown.read_text(encoding="utf-8")))

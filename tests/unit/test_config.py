from pathlib import Path

import pytest

from deid import config
from deid.errors import ConfigError

MINIMAL = {"input": {"uri": "raw"}, "output": {"uri": "out"}, "state": "state"}
CONFIGS = sorted(
    path
    for path in (Path(__file__).parents[2] / "configs").glob("*.yaml")
    if not path.name.startswith("evaluate")
)


def test_defaults_are_the_safe_ones() -> None:
    made = config.parse(MINIMAL)
    assert made.match.method == "distant"
    assert made.match.k == 5
    assert made.gate.enabled
    assert made.gate.margin is None
    assert made.models.accept == ("clean", "permissive")
    assert made.seed is None
    assert made.metadata.sidecar_fields == {}


def test_the_default_pools_and_two_tasks_fit_two_cores() -> None:
    stages = config.parse(MINIMAL).stages
    pools = stages.analyse.cpus + stages.generate.cpus + stages.compose.cpus
    assert round(pools + 2 * stages.io_cpus, 6) <= 2


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configurations_are_valid(path: Path) -> None:
    assert config.load(path).unit_size >= 1


def test_an_unknown_key_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"match\.kk is no setting; did you mean match\.k\?"):
        config.parse(MINIMAL | {"match": {"kk": 3}})
    with pytest.raises(ConfigError, match="did you mean region"):
        config.parse(MINIMAL | {"regoin": {}})


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"match": {"k": 0}}, "match.k"),
        ({"region": {"scale": 9}}, "region.scale"),
        ({"classic": {"blur_sigma": 0}}, "classic.blur_sigma"),
        ({"classic": {"pixelate_blocks": 100}}, "classic.pixelate_blocks"),
        ({"ladder": {"turned": 91}}, "ladder.turned"),
        ({"gate": {"false_match_rate": 0}}, "gate.false_match_rate"),
        ({"gate": {"false_match_rate": 0.6}}, "gate.false_match_rate"),
        ({"gate": {"margin": -0.1}}, "gate.margin"),
        ({"output": {"uri": "out", "quality": 101}}, "output.quality"),
        ({"metadata": {"sidecar_fields": {"name": "text"}}}, "metadata.sidecar_fields.name"),
        ({"metadata": {"sidecar_fields": {"x": {"type": "int", "round": 0}}}}, "sidecar_fields.x.round"),
        ({"metadata": {"sidecar_fields": {"x": {"round": 2}}}}, "sidecar_fields.x.type"),
    ],
)
def test_a_value_out_of_range_is_named(change: dict[str, object], name: str) -> None:
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        config.parse(MINIMAL | change)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("str", "may hold a name: list the values that pass, or set free: true"),
        ({"type": "str", "values": ["a"], "free": True}, "not both"),
        ({"type": "str", "values": []}, "at least 1 item"),
        ({"type": "str", "free": True, "round": 1}, "round is for int, float"),
        ({"type": "bool", "round": 1}, "round is for int, float"),
        ({"type": "int", "round": 0.5}, "round of an int is a whole number"),
        ({"type": "float", "round": float("inf")}, "finite number"),
        ({"type": "int", "values": ["1"]}, "values and free are for str"),
        ({"type": "int", "depth": 1}, "depth is for numbers, points and boxes"),
        ({"type": "numbers", "depth": 5}, "less than or equal to 4"),
        ({"type": "boxes", "values": ["1"]}, "values and free are for str"),
        ({"type": "float", "ronud": 1}, "did you mean metadata.sidecar_fields.x.round?"),
    ],
)
def test_a_sidecar_field_without_a_sound_shape_is_one_line(rule: object, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(MINIMAL | {"metadata": {"sidecar_fields": {"x": rule}}})
    assert "metadata.sidecar_fields.x" in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rule", ["int", {"type": "str", "free": True}])
def test_a_field_with_a_member_s_name_is_one_line(rule: object) -> None:
    """It would be written as the member .cls."""
    with pytest.raises(
        ConfigError, match=r"^[^\n]*metadata\.sidecar_fields: [^\n]*cls is the name of a member[^\n]*$"
    ):
        config.parse(MINIMAL | {"metadata": {"sidecar_fields": {"cls": rule}, "members": {"cls": "int"}}})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"members": {"cls": "free"}}, "cls passes as int: {cls: int}"),
        ({"members": {"txt": "int"}}, "txt passes as free: {txt: free}"),
        ({"members": {"caption": "free"}}, "metadata.members.caption"),
        ({"sidecar_fields": {"txt": {"type": "str", "free": True}}}, "set metadata.members to {txt: free}"),
        ({"masks": ["mask.jpg"]}, "metadata.masks.0"),
        ({"masks": ["../mask.png"]}, "metadata.masks.0"),
        ({"masks": ["1.png"]}, "a number is the name of a further picture"),
        ({"masks": ["Left.png"], "pictures": ["left"]}, "one name stands in both"),
        ({"masks": ["Mask.png", "mask.png"]}, "one name stands there twice"),
        ({"masks": ["m" * 60 + ".png"]}, "metadata.masks.0"),
        ({"pictures": ["n" * 60]}, "metadata.pictures.0"),
        ({"mask_values": 1}, "metadata.mask_values"),
    ],
)
def test_members_and_masks_that_cannot_pass_are_one_line(given: object, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(MINIMAL | {"metadata": given})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_field_that_names_the_person_cannot_pass() -> None:
    changes = {"assignment": {"subject": "who"}, "metadata": {"sidecar_fields": {"who": "int"}}}
    with pytest.raises(ConfigError, match=r"assignment\.subject names the person.*sidecar_fields"):
        config.parse(MINIMAL | changes)
    assert config.parse(MINIMAL | {"assignment": {"subject": "who"}}).assignment.subject == "who"


def test_an_unknown_anonymizer_is_one_line_that_names_the_known() -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]*anonymizer: [^\n]*'surrogate', 'solid', 'blur'[^\n]*$"):
        config.parse(MINIMAL | {"anonymizer": "swirl"})


@pytest.mark.parametrize("state", ["out", "out/state", "raw", "raw/x", "./raw/../out/x"])
def test_state_lies_apart(state: str) -> None:
    with pytest.raises(ConfigError, match="state must lie apart"):
        config.parse(MINIMAL | {"state": state})


def test_output_lies_apart_from_input() -> None:
    with pytest.raises(ConfigError, match="output must lie apart"):
        config.parse(MINIMAL | {"output": {"uri": "raw/out"}})


def test_digest_changes_with_every_setting() -> None:
    one = config.parse(MINIMAL)
    other = config.parse(MINIMAL | {"match": {"margin": 0.81}})
    assert one.digest() == config.parse(MINIMAL).digest() != other.digest()


@pytest.mark.parametrize("text", ["- a list", "input: [", ""])
def test_a_file_that_is_no_mapping_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        config.load(path)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        config.load(tmp_path / "absent.yaml")


def test_local_paths_are_absolute_since_workers_run_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = config.parse(MINIMAL | {"gallery": "g.parquet", "input": {"uri": "s3://bucket//a/../b/"}})
    assert made.output.uri == str(tmp_path / "out")
    assert made.gallery == str(tmp_path / "g.parquet")
    assert made.input.uri == "s3://bucket/b"


@pytest.mark.parametrize("uri", ["", "ftp://host/x", "s3://", "gs://bucket/x"])
def test_no_place_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"output\.uri"):
        config.parse(MINIMAL | {"output": {"uri": uri}})


@pytest.mark.parametrize("text", ["seed: 2024-13-45", "[" * 5000])
def test_yaml_that_breaks_the_parser_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="not valid YAML"):
        config.load(path)


def test_a_pool_cannot_shrink_below_its_start() -> None:
    with pytest.raises(ConfigError, match="max_actors is less"):
        config.parse(MINIMAL | {"stages": {"analyse": {"actors": 3, "max_actors": 2}}})


def test_a_part_may_be_given_by_its_name_alone() -> None:
    assert config.parse(MINIMAL | {"detector": "strict"}).detector == config.Part(name="strict")

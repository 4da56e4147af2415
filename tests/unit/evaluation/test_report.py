import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deid.errors import PromiseError
from deid.evaluation import embed, payload, report, wording
from deid.evaluation.sections import NAN, Cell, Column, Plot, Section, Table
from deid.evaluation.verdict import verdict
from deid.privacy import leaks
from tests.conftest import S3
from tests.unit.evaluation import reporting

CANARY = "cny7hq2m9xk4tz"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    sheets = [("Fictional people", reporting.picture(300, 200))]
    extra = {"sheets": sheets, "method_png": reporting.picture(300, 200, kind="PNG")}
    report.write(reporting.sections(), reporting.evaluation(), reporting.about() | extra, str(folder))
    return folder


def read(folder: Path) -> tuple[str, dict[str, Any]]:
    def never(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    page = (folder / "report.html").read_text(encoding="utf-8")
    return page, json.loads((folder / "evaluation.json").read_text(encoding="utf-8"), parse_constant=never)


def small(**changes: Any) -> list[Section]:
    """One section with one table and one plot of four pixels."""
    column = Column("figure", "figure", "lower", 0.1)
    table = Table("privacy.x", "Table", [column], {"a": {"figure": Cell(0.05, 0.01, 0.2, True)}})
    plot = reporting.plot("a", reporting.picture(2, 2, kind="PNG"))
    given: dict[str, Any] = {"title": "Privacy", "tables": [table], "plots": [plot]}
    return [Section("privacy", **given | changes)]


def test_every_section_table_and_cell_is_in_the_json(written: Path) -> None:
    _, found = read(written)
    sections = reporting.sections()
    assert set(found["sections"]) == {section.id for section in sections}
    order = list(found["sections"])
    assert order == [id for id in wording.ORDER if id in order]
    for section in sections:
        for table in section.tables:
            kept = found["sections"][section.id]["tables"][table.id]
            for name, row in table.rows.items():
                for id, cell in row.items():
                    assert kept["rows"][name][id]["value"] == pytest.approx(
                        cell.value, nan_ok=False
                    ) or np.isnan(cell.value)
    assert found["sections"]["privacy"]["data"]["curve"] == [0, 1, 2]
    assert found["verdict"]["figures"].keys() == {"rank1", "auc_alike", "parrot", "found_again", "expression"}
    assert found["verdict"]["not_shown"]
    assert found["about"]["digest"] == reporting.about()["digest"]


def test_plots_are_files_with_the_names_that_the_json_says(written: Path) -> None:
    _, found = read(written)
    said = {plot["file"] for section in found["sections"].values() for plot in section["plots"]}
    assert said | {"method.png"} == {path.name for path in (written / "plots").iterdir()}
    for path in (written / "plots").iterdir():
        with Image.open(path) as picture:
            assert picture.format == "PNG"


def test_ids_that_are_no_file_names_are_made_some(tmp_path: Path) -> None:
    png = reporting.picture(2, 2, kind="PNG")
    plots = [reporting.plot(id, png) for id in ("../a/b c:ü", "認識器", "顔", "method")]
    report.write(small(plots=plots), reporting.evaluation(), {"method_png": png}, str(tmp_path))
    page, found = read(tmp_path)
    names = [plot["file"] for plot in found["sections"]["privacy"]["plots"]]
    assert names == ["a-b-c.png", "plot.png", "plot-2.png", "method-2.png"]
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {*names, "method.png"}
    assert page.count("<img") == 5


class Page(HTMLParser):
    """Elements in order, and the text of those that are open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def test_the_page_stands_alone(written: Path) -> None:
    page, _ = read(written)
    elements = Page(page).elements
    names = {tag for tag, _ in elements}
    assert not names & {"script", "iframe", "object", "embed", "video", "audio", "form", "base"}
    for tag, given in elements:
        assert not any(name.startswith("on") or name == "style" for name in given)
        if tag == "img":
            assert (given["src"] or "").startswith("data:image/")
            assert given["alt"]
        if tag == "a":
            assert (given["href"] or "").startswith("#")
    assert "url(" not in page
    assert "http:" not in page
    assert "https:" not in page
    policy = next(
        given["content"] for tag, given in elements if given.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


def test_links_and_ids_fit_together(written: Path) -> None:
    elements = Page(read(written)[0]).elements
    ids = [given["id"] for _, given in elements if "id" in given]
    assert len(ids) == len(set(ids))
    assert {(given["href"] or "")[1:] for tag, given in elements if tag == "a"} <= set(ids)
    assert {given["aria-labelledby"] for _, given in elements if "aria-labelledby" in given} <= set(ids)
    assert all(given.get("scope") in ("row", "col") for tag, given in elements if tag == "th")


def test_words_that_a_report_may_not_say(written: Path) -> None:
    page, found = read(written)
    for text in (page, json.dumps(found)):
        assert not re.search(r"GDPR|compliant|anonymous\b", text, re.IGNORECASE)


def test_markup_in_a_name_stays_text(tmp_path: Path) -> None:
    name = '<script>alert("x")</script><img src=x onerror=y>'
    evaluation = reporting.evaluation(results=[{"name": name, "uri": "out"}], title=name)
    sections = small(title=name, intro=[name])
    sections[0].tables[0].rows[name] = {"figure": Cell(NAN, text=name)}
    about = {"title": name, "treatments": {name: {"a": name}}, "recognizers": [name], "machine": name}
    report.write(sections, evaluation, about, str(tmp_path))
    names = [tag for tag, _ in Page(read(tmp_path)[0]).elements]
    assert "script" not in names
    assert names.count("img") == 1


def test_an_invalid_table_is_struck_and_says_why(tmp_path: Path) -> None:
    sections = small()
    sections[0].tables[0].problems.append("the attack is too weak")
    report.write(sections, reporting.evaluation(), {}, str(tmp_path))
    page, found = read(tmp_path)
    assert 'class="invalid"' in page
    assert "the attack is too weak" in page
    assert found["sections"]["privacy"]["tables"]["privacy.x"]["valid"] is False


def test_met_and_missed_are_said_in_words(tmp_path: Path) -> None:
    sections = small()
    sections[0].tables[0].rows["b"] = {"figure": Cell(0.4, 0.3, 0.5, False)}
    report.write(sections, reporting.evaluation(), {}, str(tmp_path))
    words = re.findall(r'<span class="word \w+">(\w+)</span>', read(tmp_path)[0].split('id="privacy"')[1])
    assert words == ["met", "missed"]


def test_nothing_of_the_source_is_in_the_three(tmp_path: Path) -> None:
    """Paths of the configuration, paths in settings, and whatever a picture's file says beside its pixels."""
    needles = {"path": "/canary/", "bucket": "canary-bucket", "word": CANARY}
    note = PngInfo()
    note.add_text("Comment", CANARY)
    note.add_itxt("Title", CANARY, zip=True)
    png = reporting.picture(64, 64, kind="PNG", pnginfo=note, exif=exif())
    sheet = reporting.picture(64, 64, comment=CANARY.encode(), exif=exif(), icc_profile=CANARY.encode())
    assert leaks.search({"png": png, "sheet": sheet}, needles)
    about = reporting.about() | {
        "sheets": [("Fictional people", sheet)], "method_png": png, "keys": [CANARY], CANARY: 1,
        "treatments": {"a": {"input": f"/{CANARY}/x", "signing": {"key": f"C:\\{CANARY}"}, "more": [f"s3://{CANARY}"]}},
    }  # fmt: skip
    sections = small(plots=[reporting.plot("a", png)])
    report.write(sections, reporting.evaluation(), about, str(tmp_path))
    assert leaks.search(tmp_path, needles) == []
    assert payload.LEFT_OUT in read(tmp_path)[0]


def exif() -> Image.Exif:
    made = Image.Exif()
    made[0x010E] = CANARY
    return made


@pytest.mark.parametrize(
    "where", ["intro", "row", "note", "problem", "alt", "title", "data", "data key", "caption", "machine"]
)
def test_a_name_of_the_source_stops_the_report(tmp_path: Path, where: str) -> None:
    sections = small()
    section, about = sections[0], dict[str, Any]()
    table = section.tables[0]
    if where == "intro":
        section.intro.append(f"As {CANARY} shows")
    elif where == "row":
        table.rows[CANARY] = {}
    elif where == "note":
        table.notes.append(CANARY)
    elif where == "problem":
        table.problems.append(f"not found in {CANARY}.jpg")
    elif where == "alt":
        section.plots.append(Plot("b", "Plot", CANARY, reporting.picture(2, 2, kind="PNG")))
    elif where == "title":
        section.title = CANARY
    elif where == "data":
        section.data["x"] = {"y": [1, (CANARY,)]}
    elif where == "data key":
        section.data[CANARY] = 1
    elif where == "caption":
        about["sheets"] = [(CANARY, reporting.picture(8, 8))]
    else:
        about["machine"] = CANARY
    with pytest.raises(PromiseError, match="nothing was written") as raised:
        report.write(sections, reporting.evaluation(), about, str(tmp_path), hidden={CANARY, "other0001"})
    assert CANARY not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_path_of_the_configuration_stops_the_report(tmp_path: Path) -> None:
    with pytest.raises(PromiseError, match="path"):
        report.write(small(intro=["From /canary/source/folder."]), reporting.evaluation(), {}, str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_words_and_short_keys_do_not_stop_it(tmp_path: Path) -> None:
    hidden = {"everybody", "0", "001", "treatment", "a"}
    report.write(small(), reporting.evaluation(), {}, str(tmp_path), hidden)
    assert (tmp_path / "report.html").is_file()


def test_on_s3(s3: S3, tmp_path: Path) -> None:
    from deid.shards import storage

    output = f"s3://{s3.bucket()}/evaluations/1"
    report.write(small(), reporting.evaluation(), reporting.about(), output)
    report.write(small(), reporting.evaluation(), reporting.about(), output)  # over what was there
    names = [found.uri[len(output) + 1 :] for found in storage.list_files(output)]
    assert names == ["evaluation.json", "plots/a.png", "report.html"]


def test_strict_json() -> None:
    given = {1: np.float32("nan"), "b": (np.arange(2), np.int64(3), {"z", "y"}), "c": float("inf"), "d": None}
    assert payload.strict(given) == {"1": None, "b": [[0, 1], 3, ["y", "z"]], "c": None, "d": None}
    with pytest.raises(TypeError, match="bytes"):
        payload.strict({"x": b"y"})


def test_large_pictures_are_made_smaller_until_the_page_fits(tmp_path: Path) -> None:
    sheets = [(f"sheet {n}", reporting.picture(2000, 1400, seed=n, quality=95)) for n in range(7)]
    assert sum(len(data) for _, data in sheets) > 10e6
    report.write(small(), reporting.evaluation(), {"sheets": sheets}, str(tmp_path))
    page, _ = read(tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 10e6
    assert page.count('alt="Contact sheet.') == 7


def test_sheets_are_left_out_last_and_the_page_says_so() -> None:
    def render(pictures: embed.Pictures) -> bytes:
        sections = small()
        first = verdict(sections, reporting.evaluation())
        return report.render(
            sections, first, [], payload.described({}, reporting.evaluation()), pictures
        ).encode()

    sheet = [("sheet", reporting.picture(2000, 1400))]
    plots = small()[0].plots
    page = embed.fit(render, plots, sheet, most=40_000)
    assert len(page) <= 40_000
    assert b"1 contact sheet" in page
    assert b"data:image/png" in page
    with pytest.raises(PromiseError, match="measure less"):
        embed.fit(render, plots, sheet, most=1000)


def test_a_figure_in_words() -> None:
    assert wording.number(-0.0001, 3) == "0.000"
    assert wording.number(-1.5, 1) == "\N{MINUS SIGN}1.5"
    assert wording.number(12345, 0) == "12,345"
    assert wording.number(NAN, 3) == ""
    assert wording.interval(Cell(0.5, 0.4, 0.6), 2) == "0.40 to 0.60"
    assert wording.interval(Cell(0.5), 2) == ""
    assert wording.limit(Column("a", "A", "higher", 0.95)) == "higher is better; asked: at least 0.95"
    assert wording.limit(Column("a", "A", "lower")) == "lower is better"
    assert wording.limit(Column("a", "A")) == ""


def test_the_gap_in_words() -> None:
    gap = {
        "what": "rank-1",
        "kind": "sex",
        "groups": ["male", "female"],
        "value": 0.1,
        "low": 0.05,
        "high": 0.2,
    }
    said = wording.gap(gap | {"by_chance": True})
    assert (
        said
        == "Rank-1 by sex, male against female: 0.100 (0.050 to 0.200). As large a gap comes about by chance."
    )
    assert wording.gap(gap | {"low": None, "high": None}).endswith("female: 0.100.")
    assert wording.gap(gap | {"by_chance": 0.08, "p": 0.25}).endswith(
        "With groups dealt out at random it would be 0.080 on average, and as large as this in 25.0% of the cases."
    )
    assert wording.gap(None).startswith("Not measured")


def test_what_is_not_shown_follows_the_evaluation() -> None:
    def said(about: dict[str, Any], **settings: Any) -> str:
        evaluation = reporting.evaluation(**settings)
        return "\n".join(wording.not_shown(verdict([], evaluation), evaluation, about))

    plain = said(reporting.about())
    assert "60 people and 120 faces" in plain
    assert "dlib ResNet, MobileFaceNet" in plain
    assert "this tool's defaults" in plain
    assert "without labels" not in plain
    assert "trial" not in plain
    assert "an unknown number of people" in said({})
    assert "without labels" in said({}, source={"uri": "x"})
    assert "set in the configuration" in said({}, thresholds={"rank1": 0.2})
    assert "is a trial" in said({}, results=(), trials=[{"name": "t"}])
    assert "paired or is missing: blur 3." in said({"unpaired": {"blur": 3, "solid": 0}})

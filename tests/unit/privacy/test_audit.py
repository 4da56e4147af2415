import pytest

from deid import records


@pytest.mark.parametrize(
    ("height", "band"),
    [(0, "<20"), (19.9, "<20"), (20, "20-39"), (79, "40-79"), (159, "80-159"), (160, ">=160")],
)
def test_bands_of_face_height(height: float, band: str) -> None:
    assert records.face_height_band(height) == band

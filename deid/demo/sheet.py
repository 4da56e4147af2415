"""Contact sheets: pictures before and after, side by side, as one PNG."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deid.interfaces import Picture
from deid.shards import storage
from deid.shards.pictures import encode

GAP, MARGIN, BAND = 10, 24, 22  # px: between pairs, around the sheet, height of a caption
PAPER, INK, FAINT = (250, 250, 248), (30, 32, 36), (120, 124, 130)


@dataclass(frozen=True)
class Cell:
    """One pair; both pictures must have one shape."""

    before: Picture
    after: Picture
    caption: str = ""


def contact_sheet(
    cells: Sequence[Cell], title: str, columns: int = 3, cell: int = 260, note: str = ""
) -> Picture:
    """The sheet [H, W, 3]: `columns` pairs a row, each picture at most `cell` px wide and high.

    Raises:
        ValueError: there are no pairs.
    """
    if not cells:
        raise ValueError("a contact sheet needs at least one pair")
    captions = any(item.caption for item in cells)
    blocks = [_block(item, cell, captions) for item in cells]
    rows = [blocks[start : start + columns] for start in range(0, len(blocks), columns)]
    pitch = 2 * cell + 2 + 2 * GAP
    width = 2 * MARGIN + min(columns, len(blocks)) * pitch - 2 * GAP
    top = MARGIN + 58
    height = top + sum(max(len(block) for block in row) + GAP for row in rows) + MARGIN - GAP
    sheet = np.full((height, width, 3), PAPER, np.uint8)
    y = top
    for row in rows:
        for column, block in enumerate(row):
            x = MARGIN + column * pitch
            start = y + (max(len(other) for other in row) - len(block)) // 2
            sheet[start : start + len(block), x : x + block.shape[1]] = block
        y += max(len(block) for block in row) + GAP
    return _written(
        sheet, title, note or "left: source, right: result", min(columns, len(blocks)), pitch, cell
    )


def save(sheet: Picture, uri: str) -> None:
    """Write a sheet as PNG, over what was there."""
    storage.write_bytes(uri, encode(sheet, "png", 100), overwrite=True)


def around(picture: Picture, box: NDArray[np.floating], scale: float = 2.2) -> tuple[slice, slice]:
    """Rows and columns of a square about a face box [4], clipped to the picture, for a close look."""
    middle, half = (box[:2] + box[2:]) / 2, scale * float(max(box[2] - box[0], box[3] - box[1])) / 2
    low = np.clip(np.floor(middle - half), 0, None).astype(int)
    high = np.clip(np.ceil(middle + half), 1, [picture.shape[1], picture.shape[0]]).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


def _block(item: Cell, cell: int, captions: bool) -> Picture:
    pair = [_fitted(picture, cell) for picture in (item.before, item.after)]
    height = max(len(picture) for picture in pair) + (BAND if captions else 0)
    block = np.full((height, 2 * cell + 2, 3), PAPER, np.uint8)
    for number, picture in enumerate(pair):
        # Towards the middle, so that the two stand together.
        x = cell - picture.shape[1] if number == 0 else cell + 2
        block[: len(picture), x : x + picture.shape[1]] = picture
    if not item.caption:
        return block
    image = Image.fromarray(block)
    text, font = item.caption, ImageFont.load_default(12)
    left = cell + 1 - ImageDraw.Draw(image).textlength(text, font) / 2
    ImageDraw.Draw(image).text((left, height - BAND + 4), text, FAINT, font)
    return np.asarray(image)


def _fitted(picture: Picture, cell: int) -> Picture:
    scale = cell / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, size, interpolation=method), np.uint8)


def _written(sheet: Picture, title: str, note: str, columns: int, pitch: int, cell: int) -> Picture:
    image = Image.fromarray(sheet)
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, MARGIN - 6), title, INK, ImageFont.load_default(20))
    end = image.width - MARGIN - draw.textlength(note, ImageFont.load_default(13))
    draw.text((end, MARGIN), note, FAINT, ImageFont.load_default(13))
    for column in range(columns):
        for side, word in enumerate(("before", "after")):
            x = MARGIN + column * pitch + side * (cell + 2) + cell / 2
            draw.text((x, MARGIN + 42), word, FAINT, ImageFont.load_default(13), anchor="mm")
    return np.asarray(image)

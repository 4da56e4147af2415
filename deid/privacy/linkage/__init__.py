"""The linkage attack: what somebody who holds the source corpus and the output of a run can put together.

The true pairs are found by the background, which replacing faces leaves as it was: that is known and stated. What is
tested is whether anything else leads from one side to the other: order, grouping, names, metadata, copied bytes,
sizes, times, and the audit (record linkage; Article 29 Working Party, Opinion 05/2014, "linkability"). Each line has
the level that chance gives and a limit; all lines of a sound run are at or below theirs with a probability of 99.9 %.
"""

from deid.privacy.linkage import columns, names, pairs, sides
from deid.privacy.linkage.line import LEVEL, Line, lines

__all__ = ["LEVEL", "Line", "attack"]

MOST = 20_000  # pictures of each side by which pairs are looked for


def attack(raw: str, out: str, most: int = MOST, shuffled: bool = False) -> list[Line]:
    """One line a test.

    Args:
        raw: folder or s3:// prefix of the source corpus: tars, Parquet files or image folders.
        out: folder or s3:// prefix of one run, with manifest.json.
        most: pictures of each side that are decoded for the pairs, drawn at random where there are more. Names,
            metadata and bytes are compared for all pictures; at most `names.MOST` different texts of a side, and the
            note says when there were more. Besides, memory grows by about 60 bytes a picture.
        shuffled: the order of the source says nothing of what its pictures show, so that the audit's columns of
            content (sex, age, size) are tested against it too; see `columns.tests`.

    Raises:
        InputError: no shards in one folder, no manifest in the other.
        StorageError: storage does not answer.
    """
    source = sides.read_source(raw, most)
    output = sides.read_output(out, source, most)
    a, b = source.pictures, output.pictures
    found = pairs.find(a.sorted(), b.sorted())
    tests = pairs.tests(found, (len(a.kept), len(b.kept)), (a.seen, b.seen))
    tests.append(pairs.mirrored(source.shards, output.shards, output.config("unit_size")))
    tests += names.compare(output.written, source.texts, source.content)
    tests.append(names.paired([(s.key, o.key) for s, o in zip(found.source, found.output, strict=True)]))
    tests += output.tests()
    tests += columns.tests(map(sides.rows, output.audits), found, shuffled)
    return lines(tests)

"""The encodings that a text file may be said to have. Cheap to import."""

from __future__ import annotations

import codecs

from ..nearest_name import nearest

ENCODINGS = (
    *("utf-8", "ascii", "iso8859-1", "cp1252"),
    *(f"cp{number}" for number in (1250, 1251, 1253, 1254, 1255, 1256, 1257, 1258, 874)),
    *(f"iso8859-{number}" for number in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16)),
    *(f"cp{number}" for number in (437, 850, 852, 855, 857, 858, 862, 866)),
    *("koi8-r", "koi8-u", "mac-roman", "mac-cyrillic", "mac-greek", "mac-latin2", "mac-turkish", "tis-620"),
    *("gb18030", "gbk", "gb2312", "big5", "cp950", "big5hkscs"),
    *("shift_jis", "cp932", "euc_jp", "euc_kr", "cp949", "johab"),
)
"""Python's codecs in which a line end is the byte 10, and a line can be decoded without those before it."""

OTHER_NAMES = ("latin-1", "windows-1252")


def known_encoding(name: str) -> str:
    """The codec of this name, as Python calls it: `windows-1252` is `cp1252`.

    Raises:
        ValueError: the name is unknown, or files in this encoding cannot be read line by line.
    """
    found = _codec(name)
    if found in {_codec(known) for known in ENCODINGS}:
        return str(found)
    similar = [known for known in (*ENCODINGS, *OTHER_NAMES) if _digits(known) == _digits(name)]
    close = nearest(name.lower(), similar)
    hint = f"did you mean {close}?" if close else f"known: {', '.join(ENCODINGS)}"
    raise ValueError(f"should be a known text encoding ({hint})")


def _digits(name: str) -> str:
    """Names that differ in a digit are encodings of other languages."""
    return "".join(filter(str.isdigit, name))


def _codec(name: str) -> str | None:
    try:
        return codecs.lookup(name).name
    except (LookupError, ValueError):  # a name with a NUL byte is a ValueError
        return None

"""Damage to files, drawn by seed: what disks, transfers, other programs and hostile people make of them.

Each mutation takes a whole file and a generator and returns another file. Some know the format, so that the
damage gets past the first check of a magic number: arrays of an npz archive are exchanged for pickles, for
headers that promise terabytes, for bombs of zeros and for wrong types; FITS cards lie about axes; parquet
columns change their type; words of a text become other words.
"""

from __future__ import annotations

import io
import pickle
import random
import re
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

# Made by whoever unpickles: its presence shows that data were run as a program.
SENTINEL_ENV = "ARCFORGE_FUZZ_SENTINEL"
_BOMB_BYTES = 3 << 29

Mutation = Callable[[bytes, random.Random], bytes]


class _Trap:
    """Unpickling this runs a command of the file's writer."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"import os; open(os.environ['{SENTINEL_ENV}'], 'w').close()",)


def flip_bits(data: bytes, draw: random.Random) -> bytes:
    """Flip one to eight bits."""
    out = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
    return bytes(out)


def truncate(data: bytes, draw: random.Random) -> bytes:
    """Cut the end off, as an interrupted transfer does."""
    return data[: draw.randrange(len(data))]


def zero_block(data: bytes, draw: random.Random) -> bytes:
    """Put zeros over a block, as a lost page does."""
    begin = draw.randrange(len(data))
    size = min(len(data) - begin, draw.choice((16, 512, 4096)))
    return data[:begin] + bytes(size) + data[begin + size :]


def insert_noise(data: bytes, draw: random.Random) -> bytes:
    """Insert bytes anywhere, so that all offsets behind are wrong."""
    begin = draw.randrange(len(data))
    return data[:begin] + draw.randbytes(draw.randint(1, 64)) + data[begin:]


def exaggerate(data: bytes, draw: random.Random) -> bytes:
    """Put an extreme integer over four or eight bytes: a length, an offset, a count."""
    value = draw.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF))
    word = value.to_bytes(8, draw.choice(("little", "big")))[: draw.choice((4, 8))]
    begin = draw.randrange(max(1, len(data) - len(word)))
    return data[:begin] + word + data[begin + len(word) :]


def replace_all(data: bytes, draw: random.Random) -> bytes:
    """Give something else altogether."""
    return draw.choice((b"", b"\n", b"<html>404</html>", draw.randbytes(200), pickle.dumps(_Trap())))


ANY: tuple[Mutation, ...] = (flip_bits, truncate, zero_block, insert_noise, exaggerate, replace_all)


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def _header(shape: str, descr: str = "'<f4'", more: str = "") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}{more} }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def spoil_array(draw: random.Random, was: np.ndarray[Any, Any]) -> bytes:
    """Return npy bytes of something that is not the array that was there."""
    choices: tuple[Callable[[], bytes], ...] = (
        lambda: _npy(np.array([_Trap()], dtype=object)),
        lambda: pickle.dumps(_Trap()),
        lambda: _header("(1000000, 1000000, 1000)"),
        lambda: _header("(-1, 64)") + bytes(64),
        lambda: _header("(2305843009213693952, 8)") + bytes(64),  # whose size overflows to 0
        lambda: _header("()", "'|V0'"),
        lambda: _header("(1,)", "[('a', '<f4')]") + bytes(4),
        lambda: _header("(1,)", "'|O'") + pickle.dumps(_Trap()),
        lambda: _header("__import__('os').getpid()"),
        lambda: _npy(was.astype("U8")),
        lambda: _npy(np.array(b"\xff\xfe\x00")),
        lambda: _npy(np.asarray(was, dtype=complex) if was.dtype.kind in "fiu" else was[..., None]),
        lambda: _npy(np.zeros(())),
        lambda: _npy(np.zeros((0, 3, 3), "f4")),
        lambda: _npy(np.full_like(was, 1e38 if was.dtype.kind == "f" else 0)),
        lambda: _npy(np.full(was.shape, np.nan, "f4")),
        lambda: _npy(np.full(was.shape, -1.0, "f8")),
        lambda: _npy(np.atleast_1d(was)[..., :1]),
        lambda: _npy(np.moveaxis(was, -1, 0)) if was.ndim else _npy(was[None]),
        lambda: _npy(was.astype(">f2") if was.dtype.kind == "f" else was[None]),
        lambda: _npy(np.array("NaT", dtype="M8[s]")),
        lambda: _npy(np.ones((2,) * 30, "i1")[..., :1] if draw.random() < 0.2 else np.ones((1,) * 30)),
    )
    return draw.choice(choices)()


def spoil_npz(data: bytes, draw: random.Random) -> bytes:
    """Exchange, drop, rename or double one member of an archive, or make a bomb of it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    place = draw.randrange(len(members))
    name, content = members[place]
    kind = draw.randrange(8)
    if kind <= 3:
        members[place] = (name, spoil_array(draw, np.load(io.BytesIO(content), allow_pickle=False)))
    elif kind == 4:
        del members[place]
    elif kind == 5:
        members[place] = (draw.choice(("image_é.npy", "../x.npy", "cutout", "image_.npy", "a")), content)
    elif kind == 6:
        members += [(f"image_{k}.npy", content) for k in range(draw.choice((2, 40)))]
    else:
        return _bomb(members, place)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, bytes_ in members:
            archive.writestr(each, bytes_)
    return out.getvalue()


def _bomb(members: list[tuple[str, bytes]], place: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number, (name, content) in enumerate(members):
            if number != place:
                archive.writestr(name, content)
                continue
            with archive.open(name, "w") as stream:
                stream.write(_header(f"(3, {_BOMB_BYTES // 4 // 3 // 4096}, 4096)"))
                for _ in range(_BOMB_BYTES >> 24):
                    stream.write(bytes(1 << 24))
    return out.getvalue()


_CARD_VALUES = ("-1", "0", "3", "99999999", "9223372036854775807", "1E308", "NaN", "'text'", "T", "", "1E-30")


def spoil_cards(data: bytes, draw: random.Random) -> bytes:
    """Change the value of one FITS header card, or its name."""
    cards = [m.start() for m in re.finditer(rb"[A-Z0-9_-]{3,8} *= ", data) if m.start() % 80 == 0]
    if not cards:
        return flip_bits(data, draw)
    begin = draw.choice(cards)
    if draw.random() < 0.2:
        return data[:begin] + b"NOTHING " + data[begin + 8 :]
    value = draw.choice(_CARD_VALUES)
    return data[: begin + 10] + f"{value:>20}".encode().ljust(70) + data[begin + 80 :]


_WORDS: tuple[str, ...] = (
    "-1",
    "0",
    "1e400",
    "nan",
    "-inf",
    '""',
    "[]",
    "{}",
    "true",
    "99999999999999999999",
    "'é\u2028'",
)
_WORDS += ('[1, "a"]', "2020-01-01", '"' + "x" * 300 + '"', "{ dist = 1 }", "1" * 5000, "[" * 3000)


def spoil_words(data: bytes, draw: random.Random) -> bytes:
    """Exchange a value of a text, or drop, double or move a line of it."""
    lines = data.decode("utf-8", "replace").splitlines()
    kept = [k for k, line in enumerate(lines) if line.strip()]
    if not kept:
        return b"\x00"
    place, kind = draw.choice(kept), draw.randrange(6)
    line = lines[place]
    if kind <= 2 and re.search(r"[=,]", line):
        separator = draw.choice([m.end() for m in re.finditer(r"[=,]", line)])
        rest = re.sub(r"^[^,}]*", " " + draw.choice(_WORDS), line[separator:], count=1)
        lines[place] = line[:separator] + rest
    elif kind == 3:
        del lines[place]
    elif kind == 4:
        lines.insert(draw.choice(kept), line)
    else:
        lines[place] = draw.choice(("[a.b]", "[[priors]]", "x = 1", "\x00", "= 3", line[: len(line) // 2]))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def spoil_parquet(data: bytes, draw: random.Random) -> bytes:
    """Change the type of one column, its values or its name; or one of its blobs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(data))
    place = draw.randrange(table.num_columns)
    name, n = table.column_names[place], table.num_rows
    values = table.column(place).to_pylist()
    if isinstance(values[0], bytes) and draw.random() < 0.7:
        row = draw.randrange(n)
        values[row] = draw.choice((spoil_npz, *ANY))(values[row], draw)
        column = pa.array(values, pa.binary())
    else:
        columns: tuple[Callable[[], Any], ...] = (
            lambda: pa.nulls(n),
            lambda: pa.array([str(value)[:8] for value in values]),
            lambda: pa.array([[1.0, 2.0]] * n),
            lambda: pa.array([{"a": 1}] * n),
            lambda: pa.array([b"\xff\x00"] * n),
            lambda: pa.array([draw.choice((np.nan, np.inf, -1e300, 0.0))] * n),
            lambda: pa.array([None, *[1.5] * (n - 1)]),
            lambda: pa.array([2**63 - 1] * n),
            lambda: pa.array([True] * n),
            lambda: pa.array(values).dictionary_encode(),
            lambda: pa.array([10**9] * n, pa.timestamp("s")),
        )
        column = draw.choice(columns)()
    table = table.set_column(place, draw.choice((name, name, name, name, "", "x", "arc/é")), column)
    if draw.random() < 0.1:
        table = table.append_column(table.column_names[0], table.column(0))
    if draw.random() < 0.1:
        table = table.slice(0, draw.choice((0, 1)))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


OF_FORMAT: dict[str, tuple[Mutation, ...]] = {
    "npz": (spoil_npz,),
    "fits": (spoil_cards,),
    "parquet": (spoil_parquet,),
    "text": (spoil_words,),
    "npy": (lambda data, draw: spoil_array(draw, np.load(io.BytesIO(data), allow_pickle=False)),),
    "bytes": (),
}


def mutate(data: bytes, form: str, draw: random.Random) -> tuple[str, bytes]:
    """Damage a file by one mutation, now and then by two; returns what was done, and the file."""
    own = OF_FORMAT[form]
    done: list[str] = []
    for _ in range(2 if draw.random() < 0.15 else 1):
        mutation = draw.choice(own if own and draw.random() < 0.7 and not done else ANY)
        if data:
            data = mutation(data, draw)
            done.append(getattr(mutation, "__name__", "spoil").strip("<>"))
    return "+".join(done), data

"""Broken WAV, AIFF, FLAC and Ogg files: headers that lie, chunks, blocks and pages that are not what they say."""

import io
import struct

import numpy as np
import soundfile
from hostile_draws import CHANNELS, RATES_HZ, SIZES_32, Made, any_file, junk, pick
from hostile_material import flac_blocks, join_flac, ogg_pages, with_ogg_sum
from mutagen.ogg import OggPage
from numpy.random import Generator


def lying_wav(rng: Generator) -> Made:
    name, suffix, data = any_file(rng, "wav", "rf64")
    fmt, chunk = data.find(b"fmt "), data.find(b"data")
    for _ in range(int(rng.integers(1, 3))):
        field = rng.integers(8)
        if field == 0:
            struct.pack_into("<I", data, 4, pick(rng, SIZES_32))
        elif field <= 2:
            struct.pack_into("<I", data, chunk + 4, pick(rng, SIZES_32))
        elif field == 3:
            struct.pack_into("<I", data, fmt + 4, pick(rng, SIZES_32))
        elif field == 4:
            struct.pack_into("<H", data, fmt + 10, pick(rng, CHANNELS))
        elif field == 5:
            struct.pack_into("<I", data, fmt + 12, pick(rng, RATES_HZ))
        elif field == 6:
            struct.pack_into("<H", data, fmt + (20, 22, 8)[rng.integers(3)], int(rng.integers(65536)))
        else:
            struct.pack_into("<H", data, fmt + 22, pick(rng, (0, 1, 7, 9, 12, 33, 64, 255, 65535)))
    return name, suffix, bytes(data)


def wav_chunks(rng: Generator) -> Made:
    name, suffix, data = any_file(rng, "wav", "rf64")
    names = (
        b"LIST",
        b"id3 ",
        b"bext",
        b"cart",
        b"cue ",
        b"smpl",
        b"fact",
        b"PEAK",
        b"data",
        b"fmt ",
        b"JUNK",
        b"\0\0\0\0",
    )
    extra = b""
    for _ in range(int(2 ** rng.uniform(0, 9))):
        body = junk(rng, 60)
        size = len(body) if rng.integers(2) else pick(rng, SIZES_32)
        extra += names[rng.integers(len(names))] + struct.pack("<I", size) + body
    at = (12, data.find(b"data"), len(data))[rng.integers(3)]
    return name, suffix, bytes(data[:at]) + extra + bytes(data[at:])


def huge_wav(rng: Generator) -> Made:
    """A 4 GiB data chunk, promised; or a foreign chunk of 200 MiB that is really there."""
    name, suffix, data = any_file(rng, "wav", "rf64")
    chunk = data.find(b"data")
    if rng.integers(2):
        struct.pack_into("<II", data, chunk, int.from_bytes(b"data", "little"), pick(rng, SIZES_32[-5:]))
        struct.pack_into("<I", data, 4, pick(rng, SIZES_32[-5:]))
        return f"{name}, 4 GiB promised", suffix, bytes(data)
    hole = 200 << 20
    return f"{name}, {hole} bytes in a foreign chunk", suffix, [
        bytes(data[:12]) + b"JUNK" + struct.pack("<I", hole), hole, bytes(data[12:])
    ]  # fmt: skip


def not_finite(rng: Generator) -> Made:
    name, suffix, data = any_file(rng, "wav float", "wav double", "aifc float")
    big = name.startswith("aifc")
    size, code = (8, "<d") if name == "wav double" else (4, ">f" if big else "<f")
    start = (data.find(b"SSND") + 16) if big else data.find(b"data") + 8
    values = (np.nan, np.inf, -np.inf, 1e30, -3e38, 1e-40, 5.0, 1e6)
    value = values[rng.integers(len(values))]
    total = (len(data) - start) // size
    for at in rng.integers(total, size=int(2 ** rng.uniform(0, 12))):
        struct.pack_into(code, data, start + int(at) * size, value)
    return f"{name}, {value}", suffix, bytes(data)


def lying_aiff(rng: Generator) -> Made:
    name, suffix, data = any_file(rng, "aiff", "aifc")
    comm, sound = data.find(b"COMM"), data.find(b"SSND")
    rates = (
        b"\x40\x0e\xac\x44",
        b"\x7f\xff\x80\0",
        b"\xff\xff\xff\xff",
        bytes(4),
        b"\x3f\xff\x80\0",
        b"\x40\x16\x98\x96",
        b"\xc0\x0e\xac\x44",
    )
    for _ in range(int(rng.integers(1, 3))):
        field = rng.integers(6)
        if field == 0:
            struct.pack_into(">H", data, comm + 8, pick(rng, CHANNELS))
        elif field == 1:
            struct.pack_into(">I", data, comm + 10, pick(rng, SIZES_32))
        elif field == 2:
            struct.pack_into(">H", data, comm + 14, pick(rng, (0, 1, 8, 16, 17, 32, 33, 255, 65535)))
        elif field == 3:
            data[comm + 16 : comm + 20] = rates[rng.integers(len(rates))]
        else:
            at = (4, comm + 4, sound + 4, sound + 8, sound + 12)[rng.integers(5)]
            struct.pack_into(">I", data, at, pick(rng, SIZES_32))
    return name, suffix, bytes(data)


def lying_flac(rng: Generator) -> Made:
    name, suffix, data = any_file(rng, "flac")
    blocks, frames = flac_blocks(bytes(data))
    info = int.from_bytes(blocks[0][1], "big")
    # (lowest bit, bits) of block sizes, frame sizes, rate, channels, bits per sample and total samples.
    fields = ((256, 16), (240, 16), (216, 24), (192, 24), (172, 20), (169, 3), (164, 5), (128, 36), (0, 128))
    for _ in range(int(rng.integers(1, 3))):
        low, bits = fields[rng.integers(len(fields))]
        choices = (0, 1, (1 << bits) - 1, 1 << (bits - 1), int.from_bytes(rng.bytes(16), "big") & ((1 << bits) - 1))
        info = info & ~(((1 << bits) - 1) << low) | choices[rng.integers(len(choices))] << low
    blocks[0] = (0, info.to_bytes(34, "big"))
    return name, suffix, join_flac(blocks, frames)


def flac_metadata(rng: Generator) -> Made:
    name, suffix, data = any_file(rng, "flac")
    blocks, frames = flac_blocks(bytes(data))
    picture = struct.pack(">II", 3, 9) + b"image/png" + struct.pack(">IIIIII", 0, 1 << 31, 1 << 31, 32, 0, 0)
    lie = struct.pack(">I", pick(rng, SIZES_32))
    made = (
        (6, picture[:-4] + lie + bytes(100)),
        (6, picture[:4] + lie + picture[8:]),
        (6, picture[:-4] + struct.pack(">I", 1 << 20) + bytes(1 << 20)),
        (4, struct.pack("<I", 4) + b"ours" + struct.pack("<I", pick(rng, SIZES_32)) + lie[::-1] + b"TITLE=x"),
        (4, struct.pack("<I", pick(rng, SIZES_32)) + b"x"),
        (4, struct.pack("<I", 0) + struct.pack("<I", 3000) + (struct.pack("<I", 4) + b"A=\xff\xfe") * 3000),
        (3, rng.bytes(18 * 50)),
        (5, rng.bytes(396)),
        (1, bytes(pick(rng, (0, 1, 1 << 20)))),
        (int(rng.integers(7, 128)), rng.bytes(30)),
        (0, blocks[0][1]),
    )
    added = [made[rng.integers(len(made))] for _ in range(int(2 ** rng.uniform(0, 5)))]
    return f"{name}, {len(added)} blocks", suffix, join_flac([blocks[0], *added, *blocks[1:]], frames)


def flac_bomb(rng: Generator) -> Made:
    """Silence is a few bytes a frame: much time in little space."""
    seconds, rate = int(rng.integers(5, 60)), (8000, 44100)[rng.integers(2)]
    file = io.BytesIO()
    soundfile.write(file, np.zeros(rate * seconds), rate, format="FLAC", subtype="PCM_16")
    return f"{seconds} s of silence", ".flac", file.getvalue()


def lying_ogg(rng: Generator) -> Made:
    name, suffix, data = any_file(rng, "vorbis", "opus")
    pages = [bytearray(page) for page in ogg_pages(bytes(data))]
    start = 27 + pages[0][26]
    for _ in range(int(rng.integers(1, 3))):
        field = rng.integers(6)
        page = pages[rng.integers(len(pages))]
        if field == 0:
            pages[0][start + int(rng.integers(8, len(pages[0]) - start))] = rng.integers(256)
        elif field == 1:
            pages[0][start + (9 if name.startswith("opus") else 11)] = pick(rng, (0, 3, 8, 9, 255))
        elif field == 2 and name.startswith("vorbis"):
            struct.pack_into("<I", pages[0], start + 12, pick(rng, RATES_HZ))
        elif field == 3:
            struct.pack_into("<q", page, 6, pick(rng, (-1, 0, 1, 1 << 31, (1 << 62), -(1 << 63), (1 << 63) - 1)))
        elif field == 4:
            page[5] = rng.integers(8)
        else:
            pages[1][len(pages[1]) - int(rng.integers(1, len(pages[1]) - 28))] = rng.integers(256)
    return name, suffix, b"".join(with_ogg_sum(bytes(page)) for page in pages)


def ogg_page_order(rng: Generator) -> Made:
    name, suffix, data = any_file(rng, "vorbis", "opus")
    pages = ogg_pages(bytes(data))
    what = rng.integers(6)
    at = int(rng.integers(len(pages)))
    if what == 0:
        pages.pop(at)
    elif what == 1:
        pages.insert(at, pages[int(rng.integers(len(pages)))])
    elif what == 2:
        rng.shuffle(pages)
    elif what == 3:
        pages *= int(rng.integers(2, 30))  # chained
    elif what == 4:
        pages += ogg_pages(bytes(any_file(rng, "vorbis", "opus")[2]))
    else:
        pages[at] = with_ogg_sum(pages[at][:26] + bytes([pages[at][26] ^ int(rng.integers(1, 256))]) + pages[at][27:])
    return name, suffix, b"".join(pages)


def ogg_comments(rng: Generator) -> Made:
    name, suffix, data = any_file(rng, "vorbis", "opus")
    data = bytes(data)
    at = data.find(b"OpusTags" if name.startswith("opus") else b"\3vorbis", 28) + (8 if name.startswith("opus") else 7)
    broken = data[:at] + struct.pack("<I", pick(rng, SIZES_32)) + data[at + 4 :]
    if rng.integers(2):
        vendor = at + 4 + int.from_bytes(data[at : at + 4], "little")
        broken = data[:vendor] + struct.pack("<I", pick(rng, SIZES_32)) + data[vendor + 4 :]
    return name, suffix, b"".join(with_ogg_sum(page) for page in ogg_pages(broken))


def comment_bombs(rng: Generator) -> Made:
    """Very many comments: equal, or each under a name of its own."""
    count = int(10 ** rng.uniform(3, 5))
    if rng.integers(2):
        comments = (struct.pack("<I", 3) + b"A=x") * count
    else:
        comments = b"".join(struct.pack("<I", 8) + b"%06x=x" % number for number in range(count))
    body = struct.pack("<II", 0, count) + comments
    if rng.integers(2):
        name, suffix, data = any_file(rng, "flac")
        blocks, frames = flac_blocks(bytes(data))
        return f"{name}, {count} comments", suffix, join_flac([blocks[0], (4, body)], frames)
    name, suffix, data = any_file(rng, "opus")
    pages = ogg_pages(bytes(data))
    made = OggPage.from_packets([b"OpusTags" + body], 1)
    for page in made:
        page.serial = 7
    return f"{name}, {count} comments", suffix, b"".join((pages[0], *(page.write() for page in made), *pages[2:]))

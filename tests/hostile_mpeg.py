"""Broken MP3 files: frames, side information, Info frames, and the tags around them."""

import functools
import struct
import zlib

from hostile_draws import SIZES_32, Made, Pieces, any_file, junk, pick
from hostile_material import flac_blocks, free_format, id3, join_flac, material, mpeg_frames, ogg_pages
from numpy.random import Generator

HUGE_TAG = 200 << 20
LONG_RUN = 20_000_000


def lying_xing(rng: Generator) -> Made:
    name, suffix, data = any_file(rng, "mp3", "mp3 vbr", "mp3 mpeg2")
    at = max(data.find(b"Info"), data.find(b"Xing"))
    if at < 0:
        at = 36
        data[at : at + 8] = b"Xing\0\0\0\x0f"
    for _ in range(int(rng.integers(1, 4))):
        field = rng.integers(6)
        if field == 0:
            data[at + 4 : at + 8] = struct.pack(">I", int(rng.integers(16)))
        elif field <= 2:
            data[at + 8 : at + 12] = struct.pack(">I", pick(rng, (*SIZES_32, 13, 14, 15, 16)))
        elif field == 3:
            data[at + 12 : at + 16] = struct.pack(">I", pick(rng, SIZES_32))
        elif field == 4:
            data[at + 141 : at + 144] = rng.bytes(3) if rng.integers(2) else b"\xff\xff\xff"
        else:
            data[at + 16 : at + 116] = rng.bytes(100)
    return name, suffix, bytes(data)


def mpeg_headers(rng: Generator) -> Made:
    name, suffix, data = any_file(rng, "mp3")
    starts = mpeg_frames(bytes(data)) or [0]
    share = (1.0, 0.5, 0.1)[rng.integers(3)]
    bits = ((1, 0x18), (1, 0x06), (1, 0x01), (2, 0xF0), (2, 0x0C), (3, 0xC0), (3, 0x30), (2, 0x02))
    at, mask = bits[rng.integers(len(bits))]
    value = int(rng.integers(256)) & mask
    for start in starts:
        if rng.random() < share:
            data[start + at] = data[start + at] & ~mask | value
    return f"{name}, byte {at} is {value:#x} in {share:.0%}", suffix, bytes(data)


def mpeg_side_info(rng: Generator) -> Made:
    name, suffix, data = any_file(rng, "mp3")
    for start in mpeg_frames(bytes(data)):
        if rng.random() < 0.4:
            count = int(rng.integers(1, 32))
            data[start + 4 : start + 4 + count] = rng.bytes(count) if rng.integers(2) else b"\xff" * count
    return name, suffix, bytes(data)


def mpeg_frame_bodies(rng: Generator) -> Made:
    """Headers that are right, so that decoders go on, and frames whose inside is not what they say."""
    name, suffix, data = any_file(rng, "mp3")
    spoil = (
        _random_main_data,
        _even_main_data,
        _far_reservoir,
        _wild_granules,
        _wrong_check_sum,
    )
    chosen = [spoil[at] for at in sorted(set(rng.integers(len(spoil), size=int(rng.integers(1, 3))).tolist()))]
    share = (1.0, 0.5, 0.1)[rng.integers(3)]
    starts = mpeg_frames(bytes(data))
    for start, end in zip(starts, [*starts[1:], len(data)], strict=False):
        if rng.random() < share:
            for change in chosen:
                change(rng, data, start, end)
    words = " and ".join(change.__name__.strip("_").replace("_", " ") for change in chosen)
    return f"{name}, {words} in {share:.0%}", suffix, bytes(data)


def _random_main_data(rng: Generator, data: bytearray, start: int, end: int) -> None:
    """Noise in the place of scale factors and Huffman codes."""
    begin = start + 4 + _side_bytes(data, start)
    data[begin:end] = rng.bytes(max(0, end - begin))


def _even_main_data(rng: Generator, data: bytearray, start: int, end: int) -> None:
    """The longest and the shortest codes over and over."""
    begin = start + 4 + _side_bytes(data, start)
    data[begin:end] = (b"\xff", b"\0", b"\x55")[rng.integers(3)] * max(0, end - begin)


def _far_reservoir(rng: Generator, data: bytearray, start: int, end: int) -> None:
    """Main data that begin further back than there is anything, or in the middle of another frame's."""
    bits = 9 if data[start + 1] & 0x18 == 0x18 else 8
    _set_bits(data, 8 * (start + 4), bits, ((1 << bits) - 1, int(rng.integers(1 << bits)))[rng.integers(2)])


def _wild_granules(rng: Generator, data: bytearray, start: int, end: int) -> None:
    """Lengths, counts, gains and Huffman tables that no encoder writes."""
    newest, mono = data[start + 1] & 0x18 == 0x18, data[start + 3] >> 6 == 3
    channels = 1 if mono else 2
    first = (9 + (5 if mono else 3) + 4 * channels) if newest else 8 + channels
    size = 59 if newest else 63
    shift = 4 if newest else 9  # bits of scalefac_compress
    # (first bit, bits, value): part2_3_length, big_values, global_gain, block_type 0 with windows switched, table 4.
    fields = ((0, 12, 4095), (0, 12, 0), (12, 9, 511), (21, 8, 255), (29 + shift, 3, 4), (30 + shift, 5, 4))
    for granule in range(channels * (2 if newest else 1)):
        place, bits, value = fields[rng.integers(len(fields))]
        _set_bits(data, 8 * (start + 4) + first + granule * size + place, bits, value)


def _wrong_check_sum(rng: Generator, data: bytearray, start: int, end: int) -> None:
    """A check sum that the header announces and that is wrong, in the same space."""
    if data[start + 1] & 1:
        data[start + 1] &= 0xFE
        data[start + 4 : end] = (rng.bytes(2) + data[start + 4 : end])[: end - start - 4]


def _side_bytes(data: bytearray, start: int) -> int:
    mono = data[start + 3] >> 6 == 3
    if data[start + 1] & 0x18 == 0x18:
        return 17 if mono else 32
    return 9 if mono else 17


def _set_bits(data: bytearray, first: int, count: int, value: int) -> None:
    for place in range(count):
        at, mask = (first + place) // 8, 128 >> (first + place) % 8
        if at < len(data):
            data[at] = data[at] | mask if value >> (count - 1 - place) & 1 else data[at] & ~mask


def free_formats(rng: Generator) -> Made:
    name, suffix, data = any_file(rng, "mp3, no info", "mp3 mpeg2, no info", "mp3 vbr, no info")
    known = bool(rng.integers(2))
    free = bytearray(free_format(bytes(data), known))
    if rng.integers(2):
        free[int(rng.integers(len(free)))] ^= 0xFF
    return f"{name}, {'partly' if known else 'all'} free", suffix, bytes(free) * int(rng.integers(1, 4))


def odd_mpeg_streams(rng: Generator) -> Made:
    """Streams glued together: other rates, channels and versions from one frame to the next."""
    parts = [bytes(any_file(rng, "mp3")[2]) for _ in range(int(rng.integers(2, 6)))]
    return f"{len(parts)} streams", ".mp3", b"".join(parts)


def sync_runs(rng: Generator) -> Made:
    """20 MB in which a frame could begin at every byte, or at every fourth, and none does; alone or around audio."""
    name, suffix, data = any_file(rng, "mp3")
    run, words = ((b"\xff", "ones"), (b"\xff\xfb\x90\x64", "headers"), (id3(version=4), "tags"))[rng.integers(3)]
    run = run * (LONG_RUN // len(run))
    at = (0, len(data) // 2, len(data))[rng.integers(3)]
    if rng.integers(4) == 0:
        return f"only {words}", suffix, run
    return f"{name}, {words} at {at}", suffix, bytes(data[:at]) + run + bytes(data[at:])


def many_gaps(rng: Generator) -> Made:
    """Two or three frames, then a few foreign bytes, thousands of times."""
    name, suffix, data = any_file(rng, "mp3")
    starts = mpeg_frames(bytes(data))
    part = b""
    if len(starts) > 8:
        first = int(rng.integers(1, len(starts) - 4))
        part = bytes(data[starts[first] : starts[first + int(rng.integers(2, 4))]])
    part += junk(rng, 40)
    gaps = int(10 ** rng.uniform(5, 6.5)) // len(part)
    return f"{name}, {gaps} gaps", suffix, bytes(data) + part * gaps


def id3_sizes(rng: Generator) -> Made:
    name, suffix, data = any_file(rng, "mp3")
    version, flags = int(rng.integers(2, 6)), int(rng.integers(256))
    frame = (b"TIT2", b"\3Title", 0)
    sizes = (0, 1, 16, 10_000, 1 << 20, (1 << 28) - 1, None)
    tag = id3(frame, version=version, flags=flags, size=sizes[rng.integers(len(sizes))])
    if rng.integers(4) == 0:
        tag = tag[:6] + rng.bytes(4) + tag[10:]
    if rng.integers(4) == 0:
        tag *= int(rng.integers(2, 3000))
    return f"{name}, version {version}, {len(tag)} bytes", suffix, tag + bytes(data)


def id3_frames(rng: Generator) -> Made:
    name, suffix, data = any_file(rng, "mp3")
    names = (b"TIT2", b"APIC", b"COMM", b"USLT", b"TXXX", b"CHAP", b"CTOC", b"TCON", b"TRCK", b"RVA2", b"SYLT", b"POPM")
    version = int(rng.integers(3, 5))
    frames = []
    for _ in range(int(2 ** rng.uniform(0, 10))):
        frames.append((names[rng.integers(len(names))], junk(rng, 60), int(rng.integers(65536)) * int(rng.integers(2))))
    return f"{name}, {len(frames)} frames", suffix, id3(*frames, version=version) + bytes(data)


def bombs(rng: Generator) -> Made:
    """Little that becomes, or claims to become, much."""
    name, suffix, data = any_file(rng, "mp3")
    what = rng.integers(6)
    if what == 0:
        bomb = struct.pack(">I", 1 << 30) + _gigabyte()
        return f"{name}, a frame that inflates to 1.2 GB", suffix, id3((b"APIC", bomb, 0x80)) + bytes(data)
    if what == 1:
        head = id3((b"APIC", b"", 0), size=HUGE_TAG)
        return f"{name}, a tag of {HUGE_TAG >> 20} MiB", suffix, [head, HUGE_TAG - 10, bytes(data)]
    if what == 2:
        png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\x7f\xff\xff\xff" * 2 + b"\x08\x06\0\0\0" + bytes(4)
        return f"{name}, a cover of 2^31 by 2^31", suffix, id3((b"APIC", b"\0image/png\0\3\0" + png, 0)) + bytes(data)
    if what == 3:
        chapter = (b"TIT2", b"\3deep", 0)
        for _ in range(400):
            chapter = (b"CHAP", b"a\0" + bytes(16) + id3(chapter)[10:], 0)
        return f"{name}, 400 chapters in each other", suffix, id3(chapter) + bytes(data)
    if what == 4:
        text = b"\3" + b"".join(b"%x\0" % number for number in range(1 << 20))
        return f"{name}, a million values in one frame", suffix, id3((b"TXXX", text, 0)) + bytes(data)
    covers = [(b"APIC", b"\0image/png\0\3\0" + bytes(1 << 20), 0)] * 30
    return f"{name}, 30 covers of 1 MiB", suffix, id3(*covers) + bytes(data)


@functools.cache
def _gigabyte() -> bytes:
    """1,200 MiB of zeros, compressed: one MiB over and over, and the check sum that belongs to all."""
    mebibyte = zlib.compressobj(9, wbits=-15)
    block = mebibyte.compress(bytes(1 << 20)) + mebibyte.flush(zlib.Z_FULL_FLUSH)
    check_sum = (1200 << 20) % 65521 << 16 | 1
    return b"\x78\xda" + block * 1200 + b"\x03\0" + struct.pack(">I", check_sum)


def end_tags(rng: Generator) -> Made:
    name, suffix, data = any_file(rng, "mp3")
    size, count, flags = pick(rng, SIZES_32), pick(rng, SIZES_32), pick(rng, SIZES_32)
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, size, count, flags) + bytes(8)
    lyrics = (
        b"LYRICSBEGIN" + b"".join((b"", b"IND00002", b"x" * 50)) + b"%06d" % int(rng.integers(10**6)) + b"LYRICS200"
    )
    old = b"TAG" + rng.bytes(125)
    made = b"".join((ape, lyrics, old)[rng.integers(3)] for _ in range(int(rng.integers(1, 4))))
    return name, suffix, bytes(data) + made


def only_tags(rng: Generator) -> Made:
    tag = id3((b"TIT2", b"\3Nothing else", 0))
    vorbis, opus, flac = (material()[name][1] for name in ("vorbis", "opus", "flac"))
    blocks, _ = flac_blocks(flac)
    choices: tuple[tuple[str, Pieces], ...] = (
        (".mp3", [tag]),
        (".mp3", [tag, b"TAG" + bytes(125)]),
        (".mp3", [b"TAG" + bytes(125)]),
        (".mp3", [b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0) + bytes(8)]),
        (".mp3", [tag, 1 << 20]),
        (".mp3", [id3((b"TIT2", b"\3x", 0), size=HUGE_TAG), HUGE_TAG]),
        (".mp3", [tag, material()["mp3"][1][: mpeg_frames(material()["mp3"][1])[1]]]),
        (".ogg", [b"".join(ogg_pages(vorbis)[:2])]),
        (".opus", [b"".join(ogg_pages(opus)[:2])]),
        (".flac", [join_flac(blocks, b"")]),
        (".wav", [b"RIFF" + struct.pack("<I", 30) + b"WAVELIST" + struct.pack("<I", 18) + b"INFOINAM\6\0\0\0Title\0"]),
        (".aiff", [b"FORM" + struct.pack(">I", 30) + b"AIFFNAME" + struct.pack(">I", 6) + b"Title\0"]),
    )
    suffix, pieces = choices[rng.integers(len(choices))]
    return suffix, suffix, pieces

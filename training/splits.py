"""Which songs are for training, validation and test: 80/10/10 by song (paper 3.3), exact to rounding."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping

SPLITS = ("train", "valid", "test")


def split_songs(names: Iterable[str], known: Mapping[str, str]) -> dict[str, str]:
    """Give every song a split: a tenth, at least one of three songs, to valid and to test, the rest to train.

    Hashes of the names rank the songs, so the same songs are always split alike, in whatever order they come. What is
    `known` stays as it is and counts.

    Parameters
    ----------
    names : paths of the songs below their folder.
    known : splits of songs that have one already.

    Examples
    --------
    >>> sorted(split_songs(["a.flac", "b.flac", "c.flac"], {}).values())
    ['test', 'train', 'valid']
    """
    names = set(names)
    splits = {name: split for name, split in known.items() if name in names}
    share = max((len(names) + 5) // 10, int(len(names) >= 3))
    left = sorted(names - splits.keys(), key=lambda name: hashlib.sha256(name.encode()).digest())
    counts = Counter(splits.values())
    for split in ("test", "valid"):
        taken = max(0, share - counts[split])
        splits |= dict.fromkeys(left[:taken], split)
        left = left[taken:]
    return splits | dict.fromkeys(left, "train")

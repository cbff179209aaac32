"""The words of ``word-language``: frequent ones that only one of its languages has."""

from __future__ import annotations

import collections
import functools
import itertools
import unicodedata
from collections.abc import Mapping

from innerloop_server.domain import Split

LANGUAGES: Mapping[Split, tuple[str, ...]] = {
    Split.TRAIN: ("ca", "cs", "da", "es", "fr", "is", "it", "nb", "pl", "pt", "ro", "sh", "sk", "sl", "sv"),
    Split.VALIDATION: ("fil", "id", "lt", "lv"),
    Split.TEST: ("de", "en", "fi", "hu", "nl", "tr"),
}
"""wordfreq's codes of languages in Latin letters, close relatives in one split: Romance, North Germanic and Slavic;
Austronesian and Baltic; West Germanic, Uralic and Turkish. Malay is left out, most of its words being Indonesian too,
and Vietnamese, whose written words are syllables."""
ALL = tuple(language for split in Split for language in LANGUAGES[split])
"""Every language; a class of ``word-language`` is a place in here."""
WORDS = 4000
"""Of each language: its most frequent that qualify. Even, so that support and queries share none."""
FREQUENT = 20_000
"""A word is a language's own if it is not among so many most frequent ones of any other."""
SHORTEST, LONGEST = 4, 10
"""Letters."""


class _Plain(dict[int, str]):
    """A table for ``str.translate`` that works out each character when it first comes."""

    def __missing__(self, character: int) -> str:
        apart = unicodedata.normalize("NFKD", chr(character))
        self[character] = "".join(part for part in apart if not unicodedata.combining(part))
        return self[character]


_PLAIN = _Plain(
    str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"})
)


def plain(word: str) -> str:
    """A word without accents and special letters, which would give its language away: ``żółć`` becomes ``zolc``."""
    return word if word.isascii() else word.translate(_PLAIN)


@functools.lru_cache(maxsize=1)
def word_lists() -> tuple[tuple[str, ...], ...]:
    """The plain words of each language in ``ALL``, WORDS each; takes about a second.

    Those of odd rank come first, then those of even rank: both halves are equally frequent.
    """
    from wordfreq import get_frequency_list

    ranked: list[list[str]] = []
    for language in ALL:
        # wordfreq gives words by frequency, in steps of a centibel
        words = itertools.chain.from_iterable(get_frequency_list(language, "small"))
        qualifying = (word for word in map(plain, words) if _qualifies(word))
        ranked.append(list(dict.fromkeys(itertools.islice(qualifying, FREQUENT))))
    having = collections.Counter(itertools.chain.from_iterable(ranked))
    own = ([word for word in words if having[word] == 1][:WORDS] for words in ranked)
    return tuple((*words[::2], *words[1::2]) for words in own)


def _qualifies(word: str) -> bool:
    return SHORTEST <= len(word) <= LONGEST and word.isascii() and word.isalpha()

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from innerloop_server.domain import Split
from innerloop_server.tasks.families.word_language import (
    CIPHERS,
    EDGE,
    LETTERS,
    SIZE,
    VOWELS,
    WordLanguage,
    cipher,
    encode,
    example_words,
    words,
)
from innerloop_server.tasks.families.word_lists import ALL, LANGUAGES, WORDS, plain, word_lists
from innerloop_server.tasks.sampling import custom_task, sample_task, stack_parameters

FAMILY = WordLanguage()
CPU = torch.device("cpu")


def letters(word: str) -> np.ndarray:
    return np.array([LETTERS.index(letter) for letter in word])


def test_plain_words_have_no_accents() -> None:
    for word, expected in {
        "żółć": "zolc",
        "straße": "strasse",
        "þorn": "thorn",
        "œuvre": "oeuvre",
        "house": "house",
    }.items():
        assert plain(word) == expected


def test_each_word_is_of_one_language_and_of_a_length_that_is_seen() -> None:
    lists = word_lists()
    assert [len(of) for of in lists] == [WORDS] * len(ALL)
    everything = list(itertools.chain(*lists))
    assert len(set(everything)) == len(everything)
    assert all(4 <= len(word) <= 10 and set(word) <= set(LETTERS) for word in everything)
    for language, word in {"de": "wird", "fi": "mutta", "fr": "etre", "tr": "icin"}.items():
        assert word in lists[ALL.index(language)]
    assert not {"information", "paris"} & set(everything)  # half of Europe has them


def test_languages_are_in_one_split_and_real_words_are_tested() -> None:
    assert len(set(ALL)) == len(ALL) == sum(map(len, LANGUAGES.values()))
    for split, languages in LANGUAGES.items():
        tasks = [sample_task(FAMILY, 0, split, index).parameters for index in range(400)]
        assert {ALL[int(p[name])] for p in tasks for name in ("class_0", "class_1")} == set(languages)
        ciphered = np.mean([p["cipher"] > 0 for p in tasks])
        assert abs(ciphered - 0.75) < 0.1 if split is Split.TRAIN else ciphered == 0


def test_a_word_worked_by_hand() -> None:
    seen = encode(np.pad(letters("banana"), (0, 4), constant_values=26), 6, cipher(0)).reshape(2 * EDGE + 1, 26)
    assert seen.shape[0] * seen.shape[1] == SIZE
    assert [LETTERS[i] for i in seen[:EDGE].argmax(1)] == ["b", "a", "n"]
    assert [LETTERS[i] for i in seen[EDGE:-1].argmax(1)] == ["a", "n", "a"]
    assert {LETTERS[i]: seen[-1, i] for i in np.flatnonzero(seen[-1])} == {"a": 3, "b": 1, "n": 2}
    assert seen[:-1].sum() == 2 * EDGE


@pytest.mark.parametrize("number", [1, 2, CIPHERS - 1])
def test_a_cipher_swaps_letters_of_a_kind(number: int) -> None:
    stand_in = cipher(number)
    assert sorted(stand_in) == list(range(26))
    moved = {LETTERS[a] in VOWELS for a, b in enumerate(stand_in) if a != b}
    assert moved == {True, False}  # some of either kind
    assert all((LETTERS[a] in VOWELS) == (LETTERS[b] in VOWELS) for a, b in enumerate(stand_in))
    assert cipher(0).tolist() == list(range(26))


def test_example_words_are_what_the_encoding_shows() -> None:
    task = custom_task(FAMILY, {"class_0": np.array(3), "class_1": np.array(9), "cipher": np.array(7)})
    env = FAMILY.make(task)
    for label, (first, *_) in enumerate(example_words(task, 8)):
        seen = env.unwrapped._example(label, np.zeros(1))[0]  # type: ignore[attr-defined]
        np.testing.assert_array_equal(seen, encode(letters(first), len(first), cipher(0)))


def test_both_faces_show_the_same_words_and_queries_are_others() -> None:
    task = custom_task(FAMILY, {"class_0": np.array(3), "class_1": np.array(9), "cipher": np.array(7)})
    batch = FAMILY.batch(stack_parameters([task]), CPU)
    table, length = words()
    uniforms = np.random.default_rng(0).random((1, 400, 1))
    rows = {}
    for query in (0, 1):
        drawn = (uniforms + query) / 2
        state, seen = batch.reset(torch.tensor(drawn))
        at = [WORDS * (3, 9)[n % 2] + int(drawn[0, n, 0] * WORDS) for n in range(400)]
        expected = np.stack([encode(table[row], length[row], cipher(7)) for row in at])
        np.testing.assert_array_equal(seen[0].numpy(), expected)
        np.testing.assert_array_equal(batch.feedback(state)[0, :, 0].numpy(), np.arange(400) % 2)
        rows[query] = set(at)
    assert not rows[0] & rows[1]


def test_it_can_be_described_and_sampled_without_wordfreq() -> None:
    program = """
import sys
sys.modules["wordfreq"] = None
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "wordfreq" else found(name, *rest)
from innerloop_server.domain import Split
from innerloop_server.errors import PreconditionFailed
from innerloop_server.tasks.families.word_language import WordLanguage
from innerloop_server.tasks.sampling import sample_task
family = WordLanguage()
task = sample_task(family, 0, Split.TEST, 0)
assert family.description and family.observation_space.size == 182
try:
    family.make(task)
except PreconditionFailed as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "word-language needs wordfreq: pip install 'innerloop[language]'\n"

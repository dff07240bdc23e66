"""Metrics by hand."""

import math
import subprocess
import sys

import pytest

import config
from persona import metrics
from persona.card import load_card
from persona.metrics import (
    Metric,
    jaccard,
    ngrams,
    overlap_share,
    reference_jaccard,
    rouge_l,
    words,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't, Dr. X!", ["don't", "dr", "x"]),
        ("The dog-cart--a hansom.", ["the", "dog-cart", "a", "hansom"]),
        ("it’s Holmes’s 'case'", ["it's", "holmes's", "case"]),
        ("221B, Baker_Street; outré", ["221b", "baker", "street", "outré"]),
        ("-- ... ?!", []),
        ("", []),
    ],
)
def test_words_are_lower_case_and_without_punctuation(text, expected):
    assert words(text) == expected


def test_ngrams_are_runs_of_words_in_order():
    assert ngrams("A b, C d", 2) == [("a", "b"), ("b", "c"), ("c", "d")]
    assert ngrams("A b", 3) == []


def test_jaccard_is_shared_over_all_distinct_words():
    # {the, case, is, closed} and {the, case, was, closed, sir}: 3 shared of 6
    assert jaccard("The case is closed.", "The case was closed, sir; the case!") == 3 / 6
    assert jaccard("a b", "B, A!") == 1.0
    assert jaccard("a", "b") == 0.0
    assert (jaccard("", "?"), jaccard("", "a")) == (1.0, 0.0)


def test_reference_jaccard_splits_at_spaces_so_that_case_with_a_comma_is_another_word():
    # {a, curious, case,} and {a, case, indeed}: 1 shared of 5; without commas it would be 2 of 4
    assert reference_jaccard("A curious case,", "a case indeed") == 1 / 5
    assert jaccard("A curious case,", "a case indeed") == 2 / 4
    assert (reference_jaccard("Case", "cASE"), reference_jaccard("", "")) == (1.0, 0.0)


def test_rouge_l_is_f1_over_the_longest_common_subsequence():
    found = rouge_l(
        ["the game is afoot", "a b c d", "he deduces", "x y", "Same, same!", "c b a"],
        ["the game was afoot today", "b d e", "he deduced", "p q", "same SAME", "a b c"],
    )
    expected = [
        2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5),  # the game afoot: 3 of 4 and of 5 words
        2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3),  # b d
        1.0,  # stems are equal
        0.0,
        1.0,
        1 / 3,  # one word in order
    ]
    assert found == pytest.approx(expected, abs=1e-12)


def test_rouge_l_may_be_asked_again_with_other_sizes():
    assert rouge_l(["a"], ["a"]) == [1.0]
    assert rouge_l(["a", "b"], ["b", "b"]) == [0.0, 1.0]
    with pytest.raises(ValueError):
        rouge_l(["a", "b"], ["a"])


def test_rouge_needs_neither_hub_nor_network(tmp_path):
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse\n"
        "from persona.metrics import rouge_l\n"
        "print(rouge_l(['the game is afoot'], ['the game was afoot today'])[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=config.ROOT,
        env={"HOME": str(tmp_path), "HF_EVALUATE_OFFLINE": "1", "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(2 / 3)


LEXICON = ("singular", "pray", "dog-cart")


def test_terms_are_counted_each_time_they_occur():
    text = "Pray, sit. A most SINGULAR case; singularly so. The dog-cart? Pray!"
    assert metrics.term_count(text, LEXICON) == 4
    assert metrics.term_count("", LEXICON) == 0


def test_term_rate_is_over_the_words_of_all_texts():
    # 2 of 4 and 0 of 6 words: 2/10, not the mean of 1/2 and 0
    assert metrics.term_rate(["Pray, how singular this", "it is the third of them"], LEXICON) == 2 / 10
    assert math.isnan(metrics.term_rate(["", "?"], LEXICON))
    assert math.isnan(metrics.term_rate([], LEXICON))


@pytest.mark.parametrize("persona", ["sherlock", "poirot", "watson", "lestrade", "moriarty", "mycroft"])
def test_every_lexicon_entry_is_one_word_that_can_be_counted(persona):
    lexicon = load_card(persona).lexicon
    assert [w for w in lexicon if words(w) != [w]] == []
    assert metrics.term_count(" ".join(lexicon), lexicon) == len(lexicon)


def test_overlap_share_counts_ngrams_that_are_known():
    known = set(ngrams("one two three four", 3))
    # three four five is new, one two three and two three four are known
    assert overlap_share("One, two, three; four five", known, n=3) == 2 / 3
    assert overlap_share("one two", known, n=3) == 0.0
    nine = "a b c d e f g h i"
    assert overlap_share(nine, set(ngrams("a b c d e f g h", 8))) == 1 / 2  # eight words unless told


def test_a_metric_is_a_ratio_of_sums_not_a_mean_of_ratios():
    metric = Metric("higher", [1.0, 9.0], [1.0, 3.0])
    assert metric.value == 10 / 4
    assert Metric("lower", [1.0, 9.0], [1.0, 3.0], math.exp).value == math.exp(2.5)
    assert (
        Metric("lower", [0.0, 9.0], [0.0, 3.0]).value == 3.0
    )  # an item without a denominator counts for nothing
    assert math.isnan(Metric("lower", [0.0], [0.0]).value)
    assert math.isnan(Metric("lower", [], [], math.exp).value)

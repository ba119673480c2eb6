"""The rules that cut a piece between blanks into words, and the work they take."""

import time

import pytest

from llmstages.data.word_rules import cut_piece

# Each piece with its words, separated by blanks.
PIECES = [
    ("", ""),
    ("word", "word"),
    ("cannot", "can not"),
    ("cannot,", "cannot ,"),
    ("(word),", "( word ) ,"),
    ("“Hello!”", "“ Hello ! ”"),
    ("don't", "do n't"),
    ("I'd've", "I 'd 've"),
    ("a'd'd", "a 'd 'd"),
    ("John’s", "John ’s"),
    ("'tis", "' tis"),
    ("mother-in-law's", "mother - in - law 's"),
    ("end.", "end ."),
    ("Street.Next", "Street . Next"),
    ("etc.", "etc."),
    ("(etc.)", "( etc. )"),
    ("U.S.", "U.S."),
    ("U.S.).", "U.S. ) ."),
    ("NATO.", "NATO ."),
    ("e.g.,", "e.g. ,"),
    ("wait.......", "wait ... ...."),
    ("......wait", "...... wait"),
    ("--no---", "-- no ---"),
    ("-", "-"),
    ("15km", "15km"),
    ("1.5km", "1.5 km"),
    ("1.5km/h.", "1.5 km/h ."),
    ("$3.50+", "$ 3.50 +"),
    ("+5%", "+5 %"),
    ("+x", "+ x"),
    ("1+2", "1 + 2"),
    ("2019–2020", "2019–2020"),
    ("and/or", "and / or"),
    ("a,b", "a , b"),
    ("__init__", "_ _ init _ _"),
    ("(see:http://a.example/b?c),", "( see : http://a.example / b?c ) ,"),
    ("http://a.example/b),", "http://a.example/b),"),
    ("http://", "http://"),
    ("www.", "www ."),
    ("anna.b@mail.example.org!", "anna.b@mail.example.org !"),
    ("_a@b.example", "_a@b.example"),
    ("<_a@b.example>", "< _ a@b.example >"),
    ("a@b.,", "a@b . ,"),
    ("über,", "über ,"),
    ("日本語。", "日本語 。"),
    ("है।", "है ।"),
    ("·", "·"),
    ("🙂!", "🙂 !"),
]


@pytest.mark.parametrize("piece, words", PIECES)
def test_words_of_a_piece(piece, words):
    assert list(cut_piece(piece)) == words.split()


class Counted(str):
    """A string that counts the characters its methods look at or copy; slices count too."""

    work = 0

    def __getitem__(self, index):
        part = super().__getitem__(index)
        Counted.work += len(part)
        return Counted(part)

    def __contains__(self, text):
        Counted.work += len(self)
        return super().__contains__(text)

    def isalnum(self):
        Counted.work += len(self)
        return super().isalnum()


RUNS = [
    *("…", ".", "..", "...", "'", '"', "“", "‘", "(", "[", ")(", "{[", "-", "--", "---", "—"),
    *("/", "//", "_", "+", "@", "%", "a.", "a/", "a-", "a,", "a'", "1.", "1,", "1-", "1+", "1%"),
    *("'s", "’s", "a's", "'d", "a'd", "a'll", "n't", "1km", "1.5km", "5%", "'m", "x.Y", "a..b"),
    *("a@", "a@b", "a@b.", "a@b.c", "_a@b.", "http://", "www.", "mr.", "u.s.", "é", "é'", "日"),
]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("front, back", [("", ""), ("word", "!"), ("5", "'"), ("_", "'d")])
def test_work_grows_with_length_alone(front, run, back):
    size = 20_000
    piece = Counted(front + (run * size)[:size] + back * 100)
    Counted.work = 0
    assert cut_piece(piece)
    assert Counted.work < 50 * len(piece)


@pytest.mark.parametrize("run", RUNS)
def test_time_grows_with_length_alone(run):
    """Guards against expressions that back up: 50 times the length may take 200 times as long."""

    def seconds(size):
        piece = f"{(run * size)[:size]}{'!' * (size // 4)}"
        start = time.process_time()
        cut_piece(piece)
        return time.process_time() - start

    assert seconds(200_000) < max(200 * seconds(4000), 0.5)

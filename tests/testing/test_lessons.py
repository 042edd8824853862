"""Each lesson shows a failing report without giving the fault away, and knows the right answer."""

from __future__ import annotations

import pytest

from minialex.errors import UsageError
from minialex.gradient_check.faults import KINDS
from minialex.testing.lessons import LESSONS, OTHER_WORDS, Lesson, lesson


def each_lesson() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("this", LESSONS, ids=lambda this: this.title)


@each_lesson()
def test_the_question_shows_the_report_and_not_the_fault(this: Lesson) -> None:
    question = this.question()
    assert f"Lesson {this.number} of {len(LESSONS)}" in question
    assert "elements have a wrong gradient" in question
    assert this.mutant not in question
    assert "likely fault" not in question
    assert this.bug.label in question
    for kind in this.choices:
        assert KINDS[kind] in question
    assert f"minialex gradcheck --lesson {this.number} --answer LETTER" in question
    assert max(map(len, question.splitlines())) <= 120


@each_lesson()
def test_the_diagnosis_and_the_lesson_agree(this: Lesson) -> None:
    named = [part.fault.kind for part in this._report.inputs if part.fault is not None]
    assert named
    assert set(named) == {this.kind}
    assert not this.report().ok
    assert all(part.fault is None for part in this.report().inputs)


@each_lesson()
def test_one_of_the_choices_is_right(this: Lesson) -> None:
    answers = [this.check(letter) for letter in "ABCDEFGH"[: len(this.choices)]]
    assert [answer.right for answer in answers].count(True) == 1
    for answer, kind in zip(answers, this.choices, strict=True):
        assert answer.kind == kind
        assert answer.right == (kind == this.kind)
        assert (this.mutant in answer.text) == answer.right
        assert answer.right or KINDS[kind] in answer.text
    assert this.check(f"I think: {this.kind.upper()}!").right
    assert len(set(this.choices)) == len(this.choices) >= 4


@each_lesson()
def test_the_solution_tells_what_it_was_and_how_to_see_it(this: Lesson) -> None:
    solution = this.solution()
    assert this.mutant in solution
    assert "How to see it:" in solution
    assert "The report had named it so:" in solution


def test_words_of_ones_own_are_understood() -> None:
    flipped = next(this for this in LESSONS if this.kind == "flipped")
    for words in ("conv2d: the kernel is reversed", "the kernel was flipped", "mirrored weights"):
        assert flipped.check(words).right, words
    assert not flipped.check("off by one").right
    assert set(OTHER_WORDS) < set(KINDS)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1, "the 1/N is missing"),
        (1, "it forgot to divide by 4"),
        (4, "the sum over the batch"),
        (5, "forgot dy"),
        (6, "= instead of +="),
    ],
)
def test_what_students_write_is_understood(number: int, words: str) -> None:
    assert lesson(number).check(words).right


@pytest.mark.parametrize(
    ("answer", "message"), [("", "no kind"), ("help", "no kind"), ("flipped or shifted", "both")]
)
def test_an_answer_that_says_nothing_is_refused(answer: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lesson(1).check(answer)


@pytest.mark.parametrize("number", [0, -1, 99])
def test_a_lesson_that_is_not_there(number: int) -> None:
    with pytest.raises(
        UsageError, match=f"there is no lesson {number}: they are numbered 1 to {len(LESSONS)}"
    ):
        lesson(number)


def test_they_are_numbered_and_teach_different_things() -> None:
    assert [this.number for this in LESSONS] == list(range(1, len(LESSONS) + 1))
    assert len(LESSONS) >= 8
    assert len({this.kind for this in LESSONS}) == len(LESSONS)
    assert len({this.choices.index(this.kind) for this in LESSONS}) > 2  # The letter gives nothing away.


def test_the_report_is_the_same_every_time() -> None:
    again = Lesson(**{name: getattr(lesson(3), name) for name in Lesson.__dataclass_fields__})
    assert again.question() == lesson(3).question()

"""What a student writes while it learns, beside what its teacher writes: the same sum, column by column, at any look of a recorded training."""

import json
from itertools import zip_longest

import traitlets as t

from minimodels.explorables.base import COUNTS, Explorable, figures, table, with_unit
from minimodels.tasks import END, Problem, parts

LARGEST = 16_000    # bytes of a state: it stands in the page
BY_COLUMNS = ("addition", "subtraction")    # tasks with one right way, and one right answer

Split = tuple[list[str], str]    # a text in the format: its columns and its answer

# an example by hand, with made-up accuracies: 47 + 85 from an unfinished text to the right one, by way of a carry that is lost
BY_HAND = {
    "problems": [{"prompt": "47+85=", "answer": "132", "columns": ["7+5+0=12", "4+8+1=13"], "teacher": 0}],
    "texts": [f"<think>7+5+0=12;4+8+1=13</think><answer>132</answer>{END}", "<think>7+7+7+7",
              f"<think>7+5+0=12;4+8+0=12</think><answer>122</answer>{END}"],
    "students": [{"name": "by hand", "looks": [[0, 0.0, 1], [1_000, 0.25, 2], [2_000, 0.5, 0]]}],
}


class Traces(Explorable):
    """The texts of a teacher and of one or two students of its, cut at their joints and set side by side; the reader moves through the training.

    A text in the format is its columns, which the thinking parts by semicolons, and its answer. A column is right if it is the one that
    stands at this place in the worked solution: a true equation about other digits, or without the carry, is not. What is not in the
    format is shown whole. A student is shown at its look nearest to `spent`, since no two looks fall on the same token.
    spent is in student tokens, `minimodels.distill.Bill.student`. texts: each different text once; the others name it by its number.
    """

    name = "traces"

    problems = t.List(BY_HAND["problems"]).tag(sync=True)    # {prompt, answer, columns: the right ones, teacher: a text}
    texts = t.List(BY_HAND["texts"]).tag(sync=True)
    students = t.List(BY_HAND["students"]).tag(sync=True)    # {name, looks: [[tokens spent, greedy accuracy, a text of each problem]]}
    end = t.Unicode(END).tag(sync=True)
    problem = t.Int(0, min=0).tag(sync=True)
    student = t.Int(0, min=0).tag(sync=True)
    other = t.Int(-1, min=-1).tag(sync=True)                 # a second student; -1 is nobody
    spent = t.Int(0, min=0).tag(sync=True)

    @classmethod
    def of(cls, problems: list[Problem], teacher_texts: list[str], students: dict[str, dict], **values) -> "Traces":
        """Of recorded trials {name: record}, of which are read curve, [[spent, accuracy], ...], and texts, [[spent, a text of each problem], ...].

        teacher_texts: one for each problem; values go on top. Raises ValueError for a task whose problems have more than one right way,
        for a text too few or too many, for looks that differ between curve and texts, and for a state above 16 KB.
        """
        if wrong := {p.task for p in problems} - set(BY_COLUMNS):
            raise ValueError(f"problems must be of {' or '.join(BY_COLUMNS)}, which have one right way, got {', '.join(sorted(wrong))}")
        texts, looks = {}, {name: _looks(name, trial, len(problems)) for name, trial in students.items()}
        facts = [{"prompt": p.prompt, "answer": p.answer, "columns": p.thinking.split(";"), "teacher": texts.setdefault(text, len(texts))}
                 for p, text in zip(problems, teacher_texts, strict=True)]
        trials = [{"name": name, "looks": [[spent, right, *(texts.setdefault(text, len(texts)) for text in written)] for spent, right, *written in rows]}
                  for name, rows in looks.items()]
        piece = cls(**{"problems": facts, "texts": list(texts), "students": trials} | values)
        if (size := len(json.dumps(piece.state(), ensure_ascii=False).encode())) > LARGEST:
            raise ValueError(f"students must fit into a state of {LARGEST:,} bytes, got {size:,}; leave some of the {len(students)} out")
        return piece

    def shown(self) -> list[dict]:
        """The chosen student, and a second one if there is one."""
        has_two = 0 <= self.other < len(self.students) and self.other != self.student
        return [self.students[i] for i in ((self.student, self.other) if has_two else (self.student,))]

    def look(self, student: dict) -> list:
        """The student's look nearest to the moment, the earlier of two: tokens spent, accuracy, and its texts."""
        return min(student["looks"], key=lambda look: abs(look[0] - self.spent))

    def said(self) -> str:
        """Where each student stands, and where its text leaves the teacher's, in words: a line each."""
        return "\n".join(map(self._said, self.shown()))

    def _said(self, student):
        spent, right, *texts = self.look(student)
        problem, text = self.problems[self.problem], self.texts[texts[self.problem]]
        own, teacher = split(text), split(self.texts[problem["teacher"]])
        head = f"“{student['name']}”: {moment(spent)}, {percent(right)} of new problems are right."
        if own is None:
            return f"{head} Here its text is not in the format{'' if text.endswith(END) else ' and has no end'}: no column to compare."
        verdict = f"Its answer, “{own[1]}”, is {'right' if own[1] == problem['answer'] else 'wrong'}."
        return f"{head} {leaving(own, teacher) if teacher else 'The teacher has left the format: no column to compare.'} {verdict}"

    def summary(self) -> str:
        return f"{self.problems[self.problem]['prompt']} {self.said()}".replace("\n", " ")

    def fallback(self) -> str:
        tables = []
        for i, problem in enumerate(self.problems):
            rows = [["Teacher", *self._cells(problem["teacher"], problem)]]
            for student in self.students:
                spent, _, *texts = student["looks"][-1]
                rows.append([f"{student['name']}, {moment(spent)}", *self._cells(texts[i], problem)])
            caption = f"{problem['prompt']}, of which {problem['answer']} is right: the teacher's text, and each student's last"
            tables.append(table(caption, ["Who", "Text", "Columns right", "Answer"], rows))
        return "\n".join(tables)

    def _cells(self, n, problem):
        text, found = self.texts[n], split(self.texts[n])
        if found is None:
            return [text, "not in the format", "none"]
        n_right, n_columns = verdicts(found[0], problem["columns"]).count("right"), len(problem["columns"])
        return [text.removesuffix(END), f"{n_right} of {n_columns}", "right" if found[1] == problem["answer"] else "wrong"]


def _looks(name, trial, n_problems):
    """[spent, accuracy, *texts] of each look of a record."""
    curve, texts = trial["curve"], trial["texts"]
    if [spent for spent, *_ in texts] != [spent for spent, *_ in curve]:
        raise ValueError(f"students[{name!r}] must have its texts at the looks of its curve")
    if wrong := {len(row) - 1 for row in texts} - {n_problems}:
        raise ValueError(f"students[{name!r}] must have {n_problems} texts a look, one for each problem, got {wrong.pop()}")
    return [[spent, right, *row[1:]] for (spent, right), row in zip(curve, texts)]


# ---- the formulas of traces.js; a test compares the two


def split(text: str) -> Split | None:
    """A text's columns and its answer; None if it is not in the format. Without a thought there is no column."""
    found = parts(text)
    return found and (found[0].split(";") if found[0] else [], found[1])


def verdicts(columns: list[str], right: list[str]) -> list[str]:
    """Of each place that either has: "right", "wrong", "missing" or "too many"."""
    return ["too many" if known is None else "missing" if own is None else "right" if own == known else "wrong"
            for own, known in zip_longest(columns, right)]


def leaves(own: Split, teacher: Split) -> int:
    """Where a text first differs from the teacher's: a column, from 0; their number if it is at the answer; -1 if nowhere."""
    both = [*zip_longest(own[0], teacher[0]), (own[1], teacher[1])]
    return next((k for k, (mine, theirs) in enumerate(both) if mine != theirs), -1)


def leaving(own: Split, teacher: Split) -> str:
    """The same in words."""
    k = leaves(own, teacher)
    mine, theirs = (columns[k] if k < len(columns) else None for columns, _ in (own, teacher))
    if k < 0:
        return "Here its columns and its answer are the teacher's."
    if mine is None and theirs is None:
        return f"Here it leaves the teacher's text only at the answer: it writes “{own[1]}”, the teacher “{teacher[1]}”."
    how = (f"it answers, where the teacher writes “{theirs}”" if mine is None else f"it goes on with “{mine}”, where the teacher answers" if theirs is None
           else f"it writes “{mine}”, the teacher “{theirs}”")
    return f"Here it leaves the teacher's text at column {k + 1}: {how}."


def moment(spent: int) -> str:
    return f"after {with_unit(spent, COUNTS)} tokens" if spent else "at the start"


def percent(share: float) -> str:
    return f"{figures(100 * share)} %"

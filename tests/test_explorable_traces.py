"""A reader of traces: a column is judged by the sum and not by its look, both languages say the same, and keys alone are enough."""

import json
import random
import re
from itertools import zip_longest
from pathlib import Path

import browser as browsers
import pytest

from book_files import write_statics
from minimodels.explorables import Traces, scripts, traces
from minimodels.grpo import GRPOConfig
from minimodels.palette import COLORS
from minimodels.studies import distill, grpo
from minimodels.studies.grpo import SupervisedStart, evaluation
from minimodels.tasks import addition, countdown, sorting, subtraction

ROOT = Path(__file__).parents[1]
END = "<|endoftext|>"
SUMS = [addition(457, 385), addition(128, 906)]
FORMED = re.compile(r"<think>(?P<columns>[^<>]*)</think><answer>(?P<answer>[^<>]*)</answer>")


def column(a, b, k):
    """Column k of a + b, from the two numbers alone."""
    x, y, carry = a // 10**k % 10, b // 10**k % 10, int(a % 10**k + b % 10**k >= 10**k)
    return f"{x}+{y}+{carry}={x + y + carry}"


def random_text(rng, a, b):
    """What a student might write: rubbish, an unfinished text, or columns of which some are wrong, missing or too many."""
    if rng.random() < 0.25:
        return "".join(rng.choice(["<think>", "</think>", "<answer>", "7", "+", "=1", ";", "q", " "]) for _ in range(rng.randint(0, 40))) + rng.choice(["", END])
    columns = [column(a, b, k) if rng.random() < 0.7 else rng.choice(["4+8+1=13", "4+8=12", "7", "", "1+1+0=2"]) for k in range(rng.choice([0, 1, 2, 3, 3, 3, 3, 4]))]
    answer = rng.choice([str(a + b), str(a + b), str(a + b - 100), ""])
    return f"<think>{';'.join(columns)}</think><answer>{answer}</answer>" + rng.choice([END] * 9 + ["", "7"])


def record(seed, n_looks=11, budget=3_000_000):
    """A trial that might have been: rubbish at first, then texts with fewer and fewer faults."""
    rng = random.Random(seed)
    spent = [0] + [budget * i // 10 + rng.randint(0, 26_000) for i in range(1, n_looks)]
    written = [[random_text(rng, *p.given) if rng.random() > i / n_looks else p.completion for p in SUMS] for i in range(n_looks)]
    return {"arm": f"arm {seed}", "curve": [[s, round(i / n_looks, 3)] for i, s in enumerate(spent)], "texts": [[s, *two] for s, two in zip(spent, written)]}


def the_piece(n_students=3, **values):
    return Traces.of(SUMS, [p.completion for p in SUMS], {f"way {seed}": record(seed, 10 + seed % 2) for seed in range(n_students)}, **values)


def random_pieces():
    rng, pieces = random.Random(7), []
    for seed in range(40):
        sums = [addition(rng.randint(100, 999), rng.randint(100, 999)) for _ in range(2)]
        taught = [p.completion if rng.random() < 0.6 else random_text(rng, *p.given) for p in sums]
        trials = {}
        for name in ("one", "two")[:1 + seed % 2]:
            looks = [[rng.randint(0, 3_000_000), *(random_text(rng, *p.given) for p in sums)] for _ in range(5)]
            trials[name] = {"curve": [[spent, rng.randint(0, 200) / 200] for spent, *_ in looks], "texts": looks}
        pieces += [Traces.of(sums, taught, trials, problem=i, other=rng.choice([-1, 0, 1]), spent=rng.randint(0, 3_000_000)) for i in (0, 1) for _ in range(6)]
    return pieces


# ---- what is said

def test_the_example_by_hand():
    """7+5 is 12, and the next column has to take the carry: without it 4+8 is 12, and 122 comes out for 132."""
    piece, said = Traces(), []
    for piece.spent in (0, 1_000, 2_000):
        said.append(piece.said())
    assert said == [
        "“by hand”: at the start, 0 % of new problems are right. Here its text is not in the format and has no end: no column to compare.",
        "“by hand”: after 1 thousand tokens, 25 % of new problems are right. Here it leaves the teacher's text at column 2: it writes “4+8+0=12”, "
        "the teacher “4+8+1=13”. Its answer, “122”, is wrong.",
        "“by hand”: after 2 thousand tokens, 50 % of new problems are right. Here its columns and its answer are the teacher's. Its answer, “132”, is right."]


@pytest.mark.parametrize("own, words", [
    ("<think>7+5+0=12;5+8+1=14;4+3+1=8</think><answer>843</answer>", "only at the answer: it writes “843”, the teacher “842”. Its answer, “843”, is wrong."),
    ("<think></think><answer>842</answer>", "at column 1: it answers, where the teacher writes “7+5+0=12”. Its answer, “842”, is right."),
    ("<think>7+5+0=12;5+8+1=14;4+3+1=8;0</think><answer></answer>", "at column 4: it goes on with “0”, where the teacher answers. Its answer, “”, is wrong."),
    ("<think>7+5+0=12;;4+3+1=8</think><answer>842</answer>", "at column 2: it writes “”, the teacher “5+8+1=14”. Its answer, “842”, is right."),
    ("<think>7+5+0=12</think><answer>842", "Here its text is not in the format: no column to compare.")])
def test_every_way_to_leave_has_its_words(own, words):
    trial = {"curve": [[7, 0.415]], "texts": [[7, own + END]]}
    said = Traces.of([addition(457, 385)], [addition(457, 385).completion], {"a": trial}).said()
    assert said.startswith("“a”: after 7 tokens, 41.5 % of new problems are right. Here ") and said.endswith(words)


def test_a_column_is_right_if_it_is_this_sums_and_not_if_it_is_only_true():
    right = [column(457, 385, k) for k in range(3)]
    assert right == ["7+5+0=12", "5+8+1=14", "4+3+1=8"]    # by hand
    assert traces.verdicts(["7+5+0=12", "5+8+0=13", "3+4+1=8", "0+0+0=0"], right) == ["right", "wrong", "wrong", "too many"]
    assert traces.verdicts(["7+5+0=12", "5+8+1=13"], right) == ["right", "wrong", "missing"]
    assert Traces.of(SUMS, ["", ""], {"a": record(1)}).problems[0]["columns"] == right
    difference = Traces.of([subtraction(52, 17)], [""], {"a": {"curve": [[0, 0.0]], "texts": [[0, ""]]}}).problems[0]
    assert difference["columns"] == ["12-7-0=5", "5-1-1=3"] and difference["answer"] == "35"


# ---- what is kept

def test_a_state_holds_every_text_once_and_gives_each_back():
    piece, trials = the_piece(), {f"way {seed}": record(seed, 10 + seed % 2) for seed in range(3)}
    assert len(set(piece.texts)) == len(piece.texts)
    for student in piece.students:
        trial = trials[student["name"]]
        assert [[spent, *(piece.texts[n] for n in texts)] for spent, _, *texts in student["looks"]] == trial["texts"]
        assert [look[:2] for look in student["looks"]] == trial["curve"]
    assert [piece.texts[one["teacher"]] for one in piece.problems] == [p.completion for p in SUMS]


def test_eight_ways_fit_into_16_kilobytes_and_a_crowd_is_refused():
    assert len(json.dumps(the_piece(8).state(), ensure_ascii=False).encode()) < 16_000
    with pytest.raises(ValueError, match="students must fit into a state of 16,000 bytes, got .*; leave some of the 60 out"):
        the_piece(60)


def test_wrong_records_are_refused():
    with pytest.raises(ValueError, match="problems must be of addition or subtraction, which have one right way, got countdown, sorting"):
        Traces.of([countdown((2, 3), 5, ("2+3=5",), "2+3"), sorting("ba"), SUMS[0]], ["", "", ""], {})
    with pytest.raises(ValueError, match=r"students\['a'\] must have 1 texts a look, one for each problem, got 2"):
        Traces.of(SUMS[:1], [""], {"a": record(1)})
    with pytest.raises(ValueError, match=r"students\['a'\] must have its texts at the looks of its curve"):
        Traces.of(SUMS, ["", ""], {"a": record(1) | {"curve": [[0, 0.0]]}})


def test_a_trial_of_the_study_can_be_read(monkeypatch):
    monkeypatch.setattr(distill, "BUDGET", 3_000)
    monkeypatch.setattr(grpo, "POOL", 7)
    for name in ("skills", "sampled", "accuracy"):
        monkeypatch.setattr(distill, name, lambda *_, **__: 0.0)
    way = distill.Way(rl=GRPOConfig(rollouts=7, n_prompts=1, group_size=3, minibatches=1))
    trial = distill.Student(arm="a reward", seed=1, way=way, start=SupervisedStart(until=None, steps=0)).run()
    piece = Traces.of(evaluation(2), ["", ""], {"a reward": json.loads(json.dumps(trial))})
    assert len(piece.students[0]["looks"]) > 1 and piece.students[0]["looks"][0][:2] == [0, 0.0]


def test_the_fallback_says_the_last_texts():
    html = Traces.of(SUMS, [p.completion for p in SUMS], {"a": {"curve": [[0, 0.0], [912_384, 0.4]], "texts": [
        [0, "1", "2"], [912_384, f"<think>7+5+0=12;5+8+0=13</think><answer>832</answer>{END}", "<think>8+6"]]}}).fallback()
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", html)]
    assert rows[0] == rows[3] == ["Who", "Text", "Columns right", "Answer"]
    assert rows[1] == ["Teacher", "&lt;think&gt;7+5+0=12;5+8+1=14;4+3+1=8&lt;/think&gt;&lt;answer&gt;842&lt;/answer&gt;", "3 of 3", "right"]
    assert rows[2] == ["a, after 912 thousand tokens", "&lt;think&gt;7+5+0=12;5+8+0=13&lt;/think&gt;&lt;answer&gt;832&lt;/answer&gt;", "1 of 3", "wrong"]
    assert rows[5] == ["a, after 912 thousand tokens", "&lt;think&gt;8+6", "not in the format", "none"]


# ---- in a browser

@pytest.fixture(scope="module")
def browser():
    with browsers.chromium() as running:
        yield running


def test_both_languages_cut_judge_and_say_the_same(browser):
    pieces = random_pieces()
    texts = [(text, piece.problems[0]["columns"]) for piece in pieces[::6] for text in piece.texts]
    tab = browser.new_page()
    found = tab.evaluate("""async ([text, states, texts]) => {
        const m = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
        const cut = texts.map(([one, right]) => { const found = m.split(one, states[0].end); return [found, found && m.verdicts(found[0], right)]; });
        return [states.map(m.said), cut];
    }""", [scripts.module("traces"), [piece.state() for piece in pieces], texts])
    tab.close()
    parted = [traces.split(text) for text, _ in texts]
    assert found[0] == [piece.said() for piece in pieces] and len(pieces) > 400
    assert found[1] == [[one and list(one), one and traces.verdicts(one[0], right)] for one, (_, right) in zip(parted, texts)]
    assert 200 < sum(one is None for one in parted) < len(parted) - 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces")
    write_statics(folder)
    alone = Traces.of(SUMS[:1], [SUMS[0].completion], {"alone": {key: [row[:2] for row in record(5)[key]] for key in ("curve", "texts")}})
    for name, piece in {"light": the_piece(), "dark": the_piece(), "alone": alone}.items():
        (folder / f"{name}.html").write_text(f"""<!doctype html><html lang="en" data-theme="{'dark' if name == 'dark' else 'light'}"><head><meta charset="utf-8"><title>Traces</title>
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="_static/tokens.css"><link rel="stylesheet" href="_static/fonts.css">
<link rel="stylesheet" href="_static/explorables/explorables.css"><style>body {{ margin: 0; background: var(--paper); color: var(--ink); }}</style></head>
<body><main><h1>Traces</h1>{piece.html()}</main><script src="_static/explorables.js"></script></body></html>""", "utf8")
    return folder


@pytest.fixture
def visit(browser, folder):
    with browsers.visits(browser, folder) as open_page:
        yield open_page


def seen(page):
    """The sentence, and of each writer its cells as [row, text, words of the verdict, words of leaving]."""
    rows = page.locator(".tr-table tbody tr").evaluate_all("""rows => rows.map(row => [...row.querySelectorAll("td")].map(cell =>
        [cell.querySelector(".tr-text"), cell.querySelector(".tr-mark"), cell.querySelector(".tr-here"), cell.rowSpan].map(e => e?.textContent ?? (e || ""))))""")
    return page.locator(".xp-readout").text_content(), rows


def expected(piece):
    """The same by another way: from the texts alone, and the sum's columns from its two numbers."""
    problem = SUMS[piece.problem]
    right, nearest = [column(*problem.given, k) for k in range(3)], []
    for student in piece.shown():
        looks = record(int(student["name"][-1]), 10 + int(student["name"][-1]) % 2)["texts"]
        nearest.append(sorted(looks, key=lambda look: abs(look[0] - piece.spent))[0][1 + piece.problem])
    found = [FORMED.fullmatch(text.removesuffix(END)) for text in [problem.completion, *nearest]]
    cut = [one and [*(one["columns"].split(";") if one["columns"] else []), ("answer", one["answer"])] for one in found]
    n, columns = max(3, *(len(one) - 1 for one in cut if one)), []
    for text, one in zip([problem.completion, *nearest], cut):
        if one is None:
            tail, end = (" end", "") if text.endswith(END) else ("", ", and without an end")
            columns.append([[text.removesuffix(END) + tail, f"✗ not in the format{end}", "", n + 1]] + [None] * n)
            continue
        leaves = next((k for k, (a, b) in enumerate(zip_longest(one, cut[0])) if a != b), None)
        cells = []
        for k, (piece_of_it, known) in enumerate(zip_longest(one[:-1], right)):
            verdict = "✓ right" if piece_of_it == known else "✗ too many" if known is None else "✗ missing" if piece_of_it is None else "✗ wrong"
            cells.append(["–" if piece_of_it is None else piece_of_it or "empty", verdict, "leaves the teacher" * (k == leaves), 1])
        cells += [["–", "", "", 1]] * (n - len(cells))
        is_last = leaves is not None and one[leaves:leaves + 1] == one[-1:] and len(one) == len(cut[0])
        cells.append([one[-1][1] or "empty", "✓ right" if one[-1][1] == str(sum(problem.given)) else "✗ wrong", "leaves the teacher" * is_last, 1])
        if leaves is not None and not is_last:
            cells[leaves][2] = "leaves the teacher"
        columns.append(cells)
    return piece.said(), [[cell for cell in row if cell] for row in zip(*columns)]


@pytest.mark.parametrize("width", [360, 1280])
def test_keys_alone_move_through_the_training_of_every_student(visit, width):
    page, piece = visit(width=width), the_piece()
    spent = [look[0] for look in piece.students[1]["looks"]]    # the first with the most looks
    for piece.problem, problem in enumerate(SUMS):
        page.get_by_label(problem.prompt, exact=True).focus()
        page.keyboard.press("Space")
        for piece.student in range(3):
            page.locator("fieldset").nth(1).get_by_label(f"way {piece.student}", exact=True).focus()
            page.keyboard.press("Space")
            page.get_by_label("Student tokens spent").focus()
            page.keyboard.press("Home")
            for piece.spent in spent:
                assert seen(page) == expected(piece)
                page.keyboard.press("ArrowRight")
            assert seen(page) == expected(piece)    # beyond the last look nothing happens


def test_a_second_student_stands_beside_the_first_and_they_can_change_places(visit):
    page, piece = visit(width=1280), the_piece()
    first, second = page.locator("fieldset").nth(1), page.locator("fieldset").nth(2)
    heads = page.locator(".tr-table thead th .tr-name")
    assert heads.all_text_contents() == ["Teacher", "way 0"] and second.get_by_label("nobody").is_checked()
    second.get_by_label("way 2").check()
    page.get_by_label("Student tokens spent").press("End")
    piece.other, piece.spent = 2, piece.students[1]["looks"][-1][0]
    assert seen(page) == expected(piece) and heads.all_text_contents() == ["Teacher", "way 0", "way 2"]
    assert not second.get_by_label("way 0").is_visible()    # nobody stands beside himself
    first.get_by_label("way 2").check()
    piece.student, piece.other = 2, 0
    assert seen(page) == expected(piece) and heads.all_text_contents() == ["Teacher", "way 2", "way 0"]
    assert second.get_by_label("way 0").is_checked() and not second.get_by_label("way 2").is_visible()
    second.get_by_label("nobody").check()
    assert heads.all_text_contents() == ["Teacher", "way 2"]


def test_the_slider_says_tokens_and_accuracy_in_words(visit):
    page = visit()
    page.locator("fieldset").nth(2).get_by_label("way 1").check()
    moment = page.get_by_label("Student tokens spent")
    moment.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    thousands = int(record(1)["texts"][3][0] / 1_000 + 0.5)
    assert moment.get_attribute("aria-valuetext") == f"{thousands} thousand tokens; way 0: 30 % right; way 1: 27.3 % right"
    page.locator("fieldset").nth(2).get_by_label("nobody").check()
    assert moment.get_attribute("aria-valuetext") == f"{thousands} thousand tokens; way 0: 30 % right"
    page.get_by_role("status").filter(has_text="30 % of new problems are right").wait_for(state="attached")


def test_a_lone_student_with_one_problem_needs_no_choice(visit):
    page = visit("alone")
    assert page.locator("[type=radio]").count() == 0 and page.locator("[type=range]").count() == 1
    assert "Right is 457+385=842." in page.locator(".tr-table caption").text_content()


@pytest.mark.parametrize("theme, dark", [("light", 0), ("dark", 1)])
def test_teacher_and_students_wear_the_colours_of_their_ideas(visit, theme, dark):
    page = visit(theme)
    page.locator("fieldset").nth(2).get_by_label("way 1").check()
    for kind, concept, line in (("teacher", "rl", "solid"), ("student", "distill", "solid"), ("other", "distill", "dashed")):
        style = page.locator(f".tr-name.tr-{kind}").evaluate("e => [getComputedStyle(e).color, getComputedStyle(e).borderBottomStyle]")
        assert style == [f"rgb({', '.join(str(int(COLORS[concept][dark][i:i + 2], 16)) for i in (1, 3, 5))})", line]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_nothing_overflows_and_axe_has_no_complaint(visit, theme, width):
    page = visit(theme, width)
    page.add_script_tag(path=ROOT / "tests" / "vendor" / "axe.min.js")
    page.locator("fieldset").nth(2).get_by_label("way 1").check()
    for key in ("Home", "ArrowRight", "ArrowRight", "End"):
        page.get_by_label("Student tokens spent").press(key)
        assert page.evaluate("""() => [document.documentElement.scrollWidth, [...document.querySelectorAll(".xp-panel *")]
            .filter(e => e.getBoundingClientRect().right > e.closest(".xp-panel").getBoundingClientRect().right + 1)
            .map(e => e.outerHTML.slice(0, 80))]""") == [width, []]
    found = page.evaluate("async () => (await axe.run(document, { preload: false })).violations.map(v => [v.id, v.nodes.slice(0, 3).map(n => n.html.slice(0, 120))])")
    assert found == []

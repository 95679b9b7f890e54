"""A GRPO step in slow motion: what is recorded is a real step, both languages agree, and the page says whose update it shows."""

import copy
import json
import math
import random
import re
from dataclasses import replace
from pathlib import Path

import browser as browsers
import pytest
import torch

from book_files import write_statics
from configs import odd_config
from minimodels.explorables import GRPOStep, grpo_step, scripts
from minimodels.grpo import GRPOConfig
from minimodels.grpo import advantages as of_the_package
from minimodels.model import Transformer
from minimodels.palette import COLORS
from minimodels.tasks import END, TASKS, TOKENIZER

ROOT = Path(__file__).parents[1]
WORDS = ["<think>", "</think>", "<answer>", "</answer>", "7", "+", " ", "="]
CONFIG = GRPOConfig(group_size=5, max_new_tokens=11, lr=0.01, clip=0.3, format_weight=0.7)


def random_piece(seed, **values):
    """A step that might have been, as the reader may have set it: G answers of 1 to 34 tokens with any verdicts."""
    rng = random.Random(seed)
    G, weight, divided = rng.choice([2, 3, 5, 8]), rng.choice([0, 0.1, 0.2, 0.5]), rng.random() < 0.5
    samples = []
    for _ in range(G):
        n, right = rng.randint(1, 34), rng.random() < 0.4
        before = [-rng.choice([0.0001, 0.5, 3, 11]) * rng.random() for _ in range(n)]
        after = [min(0, x + rng.gauss(0, rng.choice([0.001, 0.4]))) for x in before]
        formed = right or rng.random() < 0.7
        samples.append({"tokens": [rng.choice(WORDS) for _ in range(n - 1)] + [END], "answer": "7" if formed else "", "accuracy": int(right),
                        "format": int(formed), "total": right + weight * formed, "before": [round(x, 4) for x in before],
                        "after": [round(x, 4) for x in after]})
    judged = grpo_step.advantages([one["total"] for one in samples], divided)
    samples = [one | {"advantage": round(A, 6)} for one, A in zip(samples, judged)]
    flipped = sorted(rng.sample(range(G), rng.choice([0, 0, 1, 2])))
    facts = dict(prompt="3+4=", answer="7", samples=samples, format_weight=weight, divides_by_std=divided, divides=rng.random() < 0.5,
                 flipped=flipped, clip=0.1, ratio=rng.choice(["token", "sequence"]))
    return GRPOStep(**facts | values)


# ---- what is recorded

@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Transformer(replace(odd_config(), vocab_size=TOKENIZER.get_vocab_size(), mtp_depth=0)).eval()


@pytest.fixture(scope="module")
def problem():
    return TASKS["addition"].problems(1, level=1, of="rl")[0]


def judged_by_first_letters(monkeypatch):
    """Untrained answers are all wrong, so a stand-in judge looks at what their first token is."""
    from minimodels import tasks

    monkeypatch.setattr(tasks, "reward", lambda problem, text: tasks.Reward(float(text[:1] > "9"), float(text[:1] > "m")))


def log_prob(model, prompt, tokens):
    """Of each token after the prompt, one pass a token."""
    ids, found = TOKENIZER.encode(prompt).ids, []
    for token in map(TOKENIZER.token_to_id, tokens):
        with torch.no_grad():
            p = model(torch.tensor([ids])).logits[0, -1].double().softmax(-1)
        found.append(math.log(p[token].item()))
        ids = [*ids, token]
    return found


def test_a_recorded_step_is_a_real_one(model, problem, monkeypatch):
    """Its texts are the model's, its rewards are the judge's, and its update is AdamW's first, which is written out here."""
    judged_by_first_letters(monkeypatch)
    piece = GRPOStep.of(model, problem, CONFIG, seed=3)
    totals = [one["total"] for one in piece.samples]
    assert len(set(totals)) > 1 and len(totals) == 5 and (piece.prompt, piece.clip, piece.divides) == (problem.prompt, 0.3, True)
    assert totals == [round(one["accuracy"] + 0.7 * one["format"], 4) for one in piece.samples]
    A = torch.tensor(totals, dtype=torch.float64)
    A = (A - A.mean()) / (A.std() + 1e-4)
    assert [one["advantage"] for one in piece.samples] == pytest.approx(A.tolist(), abs=1e-6)

    learnt = copy.deepcopy(model).train()
    gain = 0
    for one, a in zip(piece.samples, A.tolist()):
        ids = [*TOKENIZER.encode(piece.prompt).ids, *map(TOKENIZER.token_to_id, one["tokens"])]
        chosen = learnt(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)[range(len(ids) - 1), ids[1:]]
        gain = gain + a * chosen[-len(one["tokens"]):].mean() / 5     # at a ratio of 1 the gradient of the ratio is that of its logarithm
    (-gain).backward()
    torch.nn.utils.clip_grad_norm_(learnt.parameters(), CONFIG.grad_clip)
    with torch.no_grad():
        for p in learnt.parameters():
            if p.grad is not None:
                p -= CONFIG.lr * p.grad / (p.grad.abs() + 1e-8)
    for one in piece.samples:
        assert one["before"] == pytest.approx(log_prob(model, piece.prompt, one["tokens"]), abs=2e-4)
        assert one["after"] == pytest.approx(log_prob(learnt.eval(), piece.prompt, one["tokens"]), abs=0.02)
        assert max(abs(x - y) for x, y in zip(one["before"], one["after"])) > 0.2     # so 0.02 is close


def test_the_model_itself_is_left_as_it_was(model, problem, monkeypatch):
    judged_by_first_letters(monkeypatch)
    before = copy.deepcopy(model.state_dict())
    one, same, other = (GRPOStep.of(model, problem, CONFIG, seed=seed).samples for seed in (3, 3, 4))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()) and not model.training
    assert one == same != other


@pytest.mark.parametrize("accuracy, is_formed", [(0, 0), (0, 1), (1, 1)])
def test_a_group_alike_changes_nothing(model, problem, monkeypatch, accuracy, is_formed):
    """Rewards of 0.2 or 1.2 leave something behind when they are rounded, which AdamW must not make a step of."""
    from minimodels import tasks

    monkeypatch.setattr(tasks, "reward", lambda problem, text: tasks.Reward(float(accuracy), float(is_formed)))
    piece = GRPOStep.of(model, problem, replace(CONFIG, group_size=7, format_weight=0.2), phase=4)
    assert [one["total"] for one in piece.samples] == [accuracy + 0.2 * is_formed] * 7
    assert all(one["advantage"] == 0 and one["before"] == one["after"] for one in piece.samples)
    assert piece.said() == "Every advantage is 0, so there was nothing to change."


def test_a_group_of_eight_long_answers_is_small():
    piece = random_piece(0)
    one = max(piece.samples, key=lambda one: len(one["tokens"]))
    long = {key: (value * 34)[:34] if isinstance(value, list) else value for key, value in one.items()}
    assert len(json.dumps(GRPOStep(samples=[long] * 8).state(), ensure_ascii=False)) < 12_000


# ---- the formulas

def test_advantages_are_those_of_the_algorithm_whatever_the_reader_flips():
    for seed in range(200):
        piece = random_piece(seed)
        totals = [(one["accuracy"] if i not in piece.flipped else 1 - one["accuracy"]) + piece.format_weight * one["format"]
                  for i, one in enumerate(piece.samples)]
        expected = of_the_package(torch.tensor([totals], dtype=torch.float64), divides_by_std=piece.divides)[0]
        assert piece.rewards() == pytest.approx(totals) and piece.advantages() == pytest.approx(expected.tolist(), abs=1e-9)


def test_one_verdict_moves_the_advantages_of_all():
    """Rewards 1 0 0 0 have the mean 1/4 and the deviation 1/2; 1 1 0 0 the mean 1/2 and the deviation sqrt(1/3)."""
    piece = GRPOStep(samples=[grpo_step.BY_HAND[0], *[grpo_step.BY_HAND[1]] * 3], phase=3)
    assert piece.advantages() == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-3)
    assert piece.said() == ("1 of 4 beat the mean of 0.25 and are to become likelier; 3 are to become less likely. "
                            "Divided by the standard deviation, 0.5.")
    piece.flipped = [1]
    assert piece.advantages() == pytest.approx([3**0.5 / 2] * 2 + [-(3**0.5) / 2] * 2, abs=1e-3)
    piece.flipped, piece.divides = [0], False
    assert piece.advantages() == [0, 0, 0, 0]
    assert piece.said() == "All 4 earn 0: nobody beats the group, every advantage is 0, and this question teaches nothing."


def test_the_example_by_hand():
    piece, said = GRPOStep(), []
    for piece.phase in grpo_step.PHASES:
        said.append(piece.said())
    assert said == [
        "The model wrote 2 answers to “1+1=”, each drawn token by token. A right answer is 2.",
        "1 of 2 are right, which earns 1; 0 have the format, which earns 0.2. The mean reward is 0.5.",
        "1 of 2 beat the mean of 0.5 and are to become likelier; 1 are to become less likely. Divided by the standard deviation, 0.707.",
        "After one update on this question alone, 2 of 2 answers moved the way that their advantage asks. "
        "The largest change: token 2 of answer 2, “3”, from 50 % to 40 %."]
    piece.flipped = [0]
    assert piece.said() == f"You changed the advantages, but what is shown is the update that was made, with the judge's rewards. {said[3]}"
    assert [one["advantage"] for one in piece.samples] == pytest.approx(of_the_package(torch.tensor([[1.0, 0.0]]))[0].tolist(), abs=1e-3)


def test_the_fallback_is_a_table_of_the_judges_numbers():
    html = GRPOStep(flipped=[1]).fallback()
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", html)]
    assert rows == [["Answer", "Right", "Format", "Reward", "Advantage"],
                    ["&lt;answer&gt;2&lt;/answer&gt;", "yes", "no", "1", "+0.71"], ["&lt;answer&gt;3&lt;/answer&gt;", "no", "no", "0", "−0.71"]]


# ---- in a browser

@pytest.fixture(scope="module")
def browser():
    with browsers.chromium() as running:
        yield running


def test_both_languages_compute_and_say_the_same(browser):
    pieces = [random_piece(seed, phase=phase) for seed in range(60) for phase in grpo_step.PHASES]
    tab = browser.new_page()
    found = tab.evaluate("""async ([text, states]) => {
        const m = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
        return states.map(s => [m.verdicts(s), m.rewards(s), m.advantages(s), m.said(s), m.advantages(s).map(m.signed)]);
    }""", [scripts.module("grpo_step"), [piece.state() for piece in pieces]])
    tab.close()
    for (right, earned, A, words, signs), piece in zip(found, pieces, strict=True):
        assert right == piece.verdicts() and earned == piece.rewards() and A == pytest.approx(piece.advantages(), abs=1e-12)
        assert words == piece.said() and signs == [grpo_step.signed(a) for a in piece.advantages()]
    assert {"nothing." in piece.said() for piece in pieces} == {True, False}


def step(**values):
    """Four answers: right, right, wrong, without its format; one token of the first rises beyond the clip, and one of the third falls."""
    texts = [("7", 1, 1), ("7", 1, 1), ("5", 0, 1), ("", 0, 0)]
    samples = []
    for answer, right, formed in texts:
        tokens = ["<think>", "3", "+", "4", "</think>", "<answer>", answer or "+", "</answer>" if formed else "+", END]
        samples.append({"tokens": tokens, "answer": answer, "accuracy": right, "format": formed, "total": right + 0.2 * formed,
                        "before": [-0.01, *[-0.7] * 7, -0.02], "after": [-0.01, *[-0.7] * 7, -0.02]})
    samples[0]["after"][6], samples[2]["after"][6], samples[3]["after"][8] = -0.2, -1.0, -0.025
    judged = grpo_step.advantages([one["total"] for one in samples], True)
    return GRPOStep(prompt="3+4=", answer="7", samples=[one | {"advantage": round(A, 6)} for one, A in zip(samples, judged)], **values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grpo")
    write_statics(folder)
    for theme in ("light", "dark"):
        (folder / f"{theme}.html").write_text(f"""<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>A step</title>
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="_static/tokens.css"><link rel="stylesheet" href="_static/fonts.css">
<link rel="stylesheet" href="_static/explorables/explorables.css"><style>body {{ margin: 0; background: var(--paper); color: var(--ink); }}</style></head>
<body><main><h1>A step</h1>{step().html()}</main><script src="_static/explorables.js"></script></body></html>""", "utf8")
    return folder


@pytest.fixture
def visit(browser, folder):
    with browsers.visits(browser, folder) as open_page:
        yield open_page


PHASES = ("1 sample", "2 reward", "3 advantage", "4 tokens")


def readout(page):
    return page.locator(".xp-readout").text_content()


def rows(page):
    """Reward and advantage of each answer in the third phase."""
    return page.locator(".gs-table tbody tr").evaluate_all(
        "rows => rows.map(row => [row.cells[1].textContent, row.cells[2].textContent, row.querySelector('line').getAttribute('class')])")


def expected_rows(piece):
    return [[f"{('wrong', 'right')[right]}, {'✗✓'[right]} {grpo_step.figures(r)}", grpo_step.signed(A), "gs-minus" if A < 0 else "gs-plus"]
            for right, r, A in zip(piece.verdicts(), piece.rewards(), piece.advantages())]


@pytest.mark.parametrize("width", [390, 1280])
def test_buttons_and_keys_walk_through_the_phases(visit, width):
    page, piece = visit(width=width), step()
    following = page.get_by_role("button", name="Next")
    for piece.phase in grpo_step.PHASES:
        assert readout(page) == piece.said() and page.get_by_label(PHASES[piece.phase - 1]).is_checked()
        seen = [page.locator(name).first.is_visible() for name in (".gs-answers", ".gs-note", ".gs-table", ".gs-told")]
        assert seen == [piece.phase != 3, piece.phase in (2, 4), piece.phase == 3, piece.phase == 4]
        following.click(force=True)     # it can be pressed and focused at the end too, where it does nothing
    assert following.get_attribute("aria-disabled") == "true" and page.evaluate("document.activeElement.textContent") == "Next"
    page.get_by_label(PHASES[3]).focus()
    for piece.phase in (3, 2, 1):
        page.keyboard.press("ArrowLeft")
        assert readout(page) == piece.said()
    page.get_by_role("status").filter(has_text="The model wrote 4 answers").wait_for(state="attached")


def test_a_flipped_verdict_and_the_division_move_every_bar(visit):
    page, piece = visit(), step(phase=3)
    page.get_by_label(PHASES[2]).check()
    assert rows(page) == expected_rows(piece)

    def widths():
        return page.locator(".gs-bar").evaluate_all("all => all.map(e => e.getBoundingClientRect().width)")

    before = widths()
    page.get_by_label("Flip the judge's verdict on answer 3").focus()
    page.keyboard.press("Space")
    piece.flipped = [2]
    assert rows(page) == expected_rows(piece) and readout(page) == piece.said()
    assert all(abs(a - b) > 1 for a, b in zip(before, widths()))
    page.get_by_label("divide by the standard deviation").uncheck()
    piece.divides = False
    assert rows(page) == expected_rows(piece) and readout(page) == piece.said()
    field = page.locator("tbody .gs-field").first.evaluate("e => e.getBoundingClientRect().width")
    for width, A in zip(widths(), piece.advantages()):
        assert width == pytest.approx(field / 2 * abs(A) / 1.5, abs=0.6)     # 1.5 = 3 / sqrt 4: the most that a group of four can give
    page.get_by_label(PHASES[1]).check()
    assert page.locator(".gs-note").nth(2).text_content() == "✓ right✓ formatreward 1.2verdict flipped by you"


def test_the_tokens_stay_those_of_the_update_that_was_made_and_the_page_says_so(visit):
    page, piece = visit(), step(phase=4)
    page.get_by_label(PHASES[3]).check()

    def tokens():
        return page.locator(".gs-answers .gs-token").evaluate_all("all => all.map(e => [e.className, e.style.cssText, e.ariaLabel])")

    before, notes = tokens(), page.locator(".gs-note").all_text_contents()
    assert readout(page) == piece.said() and "You changed" not in readout(page)
    page.get_by_label(PHASES[2]).check()
    page.get_by_label("Flip the judge's verdict on answer 1").check()
    page.get_by_label(PHASES[3]).check()
    piece.flipped = [0]
    assert readout(page) == piece.said() and readout(page).startswith("You changed the advantages, but what is shown is the update that was made")
    assert tokens() == before and page.locator(".gs-note").all_text_contents() == notes
    page.get_by_role("status").filter(has_text="You changed the advantages").wait_for(state="attached")


def test_each_token_wears_its_sign_twice_and_says_its_probabilities(visit):
    page = visit()
    page.get_by_label(PHASES[3]).check()
    up, down = page.locator(".gs-answers .gs-up"), page.locator(".gs-answers .gs-down")
    assert (up.count(), down.count()) == (1, 1)     # the last token of the fourth answer changed by half a percent: hardly moved
    assert [one.evaluate("e => getComputedStyle(e).borderBottomStyle") for one in (up, down)] == ["solid", "dotted"]
    assert [one.evaluate("e => e.style.getPropertyValue('--w')") for one in (up, down)] == ["0.72", "0.43"]    # 0.5 and 0.3 of ln 2
    assert up.get_attribute("aria-label") == (
        "Answer 1, token 7 of 9, “7”: 49.66 % → 81.87 %, likelier. The ratio, 1.65, has left the clip's range: "
        "in another update from these samples its advantage would not push it.")
    assert down.get_attribute("aria-label").startswith("Answer 3, token 7 of 9, “5”: 49.66 % → 36.79 %, less likely. The ratio, 0.741,")
    assert page.locator(".gs-note").all_text_contents()[0].endswith("now 1.65 times as likely")


def test_arrows_point_at_every_token_with_one_tab_stop(visit):
    page = visit(width=1280)
    page.get_by_label(PHASES[3]).check()
    assert page.locator(".gs-answers [tabindex='0']").count() == 1
    page.get_by_role("button", name="Next").focus()
    page.keyboard.press("Tab")
    told = page.locator(".gs-told")
    labels = page.locator(".gs-answers .gs-token").evaluate_all("all => all.map(e => e.ariaLabel)")
    for label in labels:
        assert told.text_content() == label == page.evaluate("document.activeElement.ariaLabel")
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.ariaLabel") == labels[-1] and len(labels) == 36
    for key, at in (("Home", 0), ("ArrowDown", 9), ("ArrowDown", 18), ("ArrowUp", 9), ("ArrowLeft", 8), ("End", 35)):
        page.keyboard.press(key)
        assert told.text_content() == labels[at]
    page.get_by_label(PHASES[0]).check()
    assert page.locator(".gs-answers [tabindex], .gs-answers [role]").count() == 0


@pytest.mark.parametrize("theme, dark", [("light", 0), ("dark", 1)])
def test_what_becomes_likelier_wears_the_colour_of_reinforcement_learning(visit, theme, dark):
    page = visit(theme)
    page.get_by_label(PHASES[3]).check()
    color = page.locator(".gs-answers .gs-up").evaluate("e => getComputedStyle(e).borderBottomColor")
    assert color == f"rgb({', '.join(str(int(COLORS['rl'][dark][i:i + 2], 16)) for i in (1, 3, 5))})"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_overflows_and_axe_has_no_complaint(visit, theme, width):
    page = visit(theme, width)
    page.add_script_tag(path=ROOT / "tests" / "vendor" / "axe.min.js")
    for phase in PHASES:
        page.get_by_label(phase).check()
        if phase == PHASES[2]:
            page.get_by_label("Flip the judge's verdict on answer 2").check()
        assert page.evaluate("""() => [document.documentElement.scrollWidth, [...document.querySelectorAll(".xp-panel *")]
            .filter(e => !e.closest("svg") && e.getBoundingClientRect().right > e.closest(".xp-panel").getBoundingClientRect().right + 1)
            .map(e => e.outerHTML.slice(0, 80))]""") == [width, []]
        found = page.evaluate("async () => (await axe.run(document, { preload: false })).violations.map(v => [v.id, v.nodes.slice(0, 3).map(n => n.html.slice(0, 120))])")
        assert found == []

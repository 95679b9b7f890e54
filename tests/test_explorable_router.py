"""The gate that the reader balances: the package's rules, both languages to the last bit, and a page that keys alone can use."""

import json
import math
import random
from dataclasses import replace

import browser as browsers
import pytest
import torch
from test_explorables import PAGE, ROOT, Table

from book_files import write_statics
from configs import odd_config
from minimodels.balance import batch_loss
from minimodels.explorables import Router, scripts
from minimodels.explorables.router import PRESETS, exp, mix, noise, total
from minimodels.moe import Gate, Routing

SMALL = dict(n_experts=13, n_tokens=37)


def odd_router(seed=0, **values):
    """A small one on its way, with biases and moved affinities."""
    dice = random.Random(seed)
    some = [[dice.uniform(-0.4, 0.4) for _ in range(13)] for _ in range(2)]
    return Router(**SMALL | dict(skew=1.25, bias=some[0], moved=some[1], steps=7, seed=3) | values)


# ---- its arithmetic

def test_the_hash_is_one_to_one_and_the_noise_is_normal_enough():
    assert mix(torch.arange(2**16)).unique().numel() == 2**16
    x = torch.stack([noise(step, 512, 16, seed) for step in (0, 1, 9) for seed in (0, 1)])  # (6, T, E)
    assert abs(x.mean()) < 0.01 and abs(x.var() - 1) < 0.01 and x.abs().max() < 3.47
    assert abs((x**4).mean() - 2.7) < 0.05    # four even ones: 3 - 1.2 / 4
    assert (torch.corrcoef(x.flatten(1)) - torch.eye(6)).abs().max() < 0.05          # steps and seeds share nothing
    assert (torch.corrcoef(x.flatten(0, 1).T) - torch.eye(16)).abs().max() < 0.08    # nor do experts


def test_exp_is_exp_and_a_sum_is_a_sum():
    for x in (-20.0, -3.5, -0.1, 0.0, 1.0, 7.25, 20.0):
        assert exp(torch.tensor(x, dtype=torch.float64)).item() == pytest.approx(math.exp(x), rel=1e-13)
    assert total(torch.tensor([[1.0, 2.0], [3.0, 5.0], [7.0, 11.0]])).tolist() == [11.0, 18.0]


@pytest.mark.parametrize("K", [2, 4])
def test_it_chooses_as_the_packages_gate_does(K):
    piece = odd_router(top_k=K)
    routing, z = piece.routing(), noise(7, 37, 13, 3)
    z += torch.tensor([1.25 * (13 + 1 - 2 * i) / (13 - 1) + piece.moved[i - 1] for i in range(1, 14)], dtype=torch.float64)
    torch.testing.assert_close(routing.score, z.sigmoid(), rtol=1e-13, atol=0)
    gate = Gate(replace(odd_config(n_experts=13), top_k=K, n_groups=1, top_groups=1))
    expected = gate.choose(z.sigmoid() + torch.tensor(piece.bias, dtype=torch.float64))
    assert routing.expert.tolist() == expected.tolist()
    assert routing.load.sum() == 37 * K
    torch.testing.assert_close(routing.weight.sum(1), torch.ones(37, dtype=torch.float64))


@pytest.mark.parametrize("K", [2, 4])
def test_the_gradient_is_that_of_the_packages_loss(K):
    piece = odd_router(top_k=K)
    routing, moved = piece.routing(), torch.tensor(piece.moved, dtype=torch.float64, requires_grad=True)
    centre = torch.tensor([1.25 * (12 - 2 * i) / 12 for i in range(13)], dtype=torch.float64)
    score = (centre + moved + noise(7, 37, 13, 3)).sigmoid()
    batch_loss(Routing(score, routing.expert, routing.weight, routing.load)).backward()
    torch.testing.assert_close(piece.gradient(), moved.grad, rtol=1e-10, atol=1e-14)


def test_a_step_is_the_rule_by_hand():
    piece = odd_router(gamma=0.25, alpha=0.5)
    load, bias, moved, slope = piece.measures()["load"], piece.bias, piece.moved, piece.gradient().tolist()
    piece.advance()
    mean = 37 * 2 / 13
    assert piece.bias == [b + (0.25 if n < mean else -0.25) for b, n in zip(bias, load, strict=True)]
    assert piece.moved == pytest.approx([m - 0.5 * g for m, g in zip(moved, slope, strict=True)])
    assert piece.history == pytest.approx([(max(load) - mean) / mean]) and piece.steps == 8


def test_the_shares_are_those_of_a_count_by_hand():
    piece = odd_router(bias=[0.3 * (-1)**i for i in range(13)])
    now, routing, before = piece.measures(), piece.routing(), piece.score([0.0] * 13)
    first = [max(range(13), key=row.__getitem__) for row in routing.score.tolist()]
    was = [max(range(13), key=row.__getitem__) for row in before.tolist()]
    assert now["elsewhere"] == sum(i not in chosen for i, chosen in zip(first, routing.expert.tolist(), strict=True)) / 37 > 0
    assert now["changed"] == sum(a != b for a, b in zip(first, was, strict=True)) / 37 > 0
    assert now["affinity"] == pytest.approx(routing.score.mean(0).tolist()) and now["start"] == pytest.approx(before.mean(0).tolist())


# ---- what it is there to show

def late(piece, steps=300):
    """The mean MaxVio of the last 50 steps."""
    return sum(piece.advance(steps).history[-50:]) / 50


def test_without_balancing_nothing_changes():
    piece = Router()
    assert late(piece, 60) == pytest.approx(piece.history[0], abs=0.15) and piece.history[0] > 2.5
    assert piece.bias == piece.moved == [0.0] * 16 and piece.measures()["elsewhere"] == 0


def test_a_bias_balances_and_leaves_the_affinities():
    piece = Router.preset("Bias")
    before = piece.score()
    assert late(piece, 120) < 0.35
    now = piece.measures()
    assert 0.3 < now["elsewhere"] < 0.55 and now["changed"] == 0 and piece.moved == [0.0] * 16
    piece.steps = 0
    assert torch.equal(piece.score(), before)
    assert piece.bias[0] < -0.1 < 0.2 < piece.bias[15]


def test_the_auxiliary_loss_balances_by_moving_the_affinities():
    piece = Router.preset("Auxiliary loss")
    assert late(piece, 150) < 0.3
    now = piece.measures()
    assert now["elsewhere"] == 0 and now["changed"] > 0.5 and piece.bias == [0.0] * 16
    assert max(now["start"]) - min(now["start"]) > 0.5 and max(now["affinity"]) - min(now["affinity"]) < 0.1


def test_a_bias_too_fast_goes_to_and_fro_and_a_slow_one_takes_long():
    assert late(Router.preset("Bias, too fast"), 150) > 3 * late(Router.preset("Bias"), 150)
    slow = Router(gamma=0.001)
    assert slow.advance(100).history[-1] > 1 and late(slow, 250) < 0.3


def test_chance_alone_leaves_a_fifth():
    assert 0.17 < late(Router(skew=0), 50) < 0.27


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match="preset must be one of Nothing; Bias; Bias, too fast; Auxiliary loss, got 'Luck'"):
        Router.preset("Luck")
    with pytest.raises(ValueError, match="bias must have n_experts=16 values, got 2"):
        Router(bias=[0.0, 1.0])


def test_the_fallback_says_the_numbers():
    piece = Router.preset("Bias").advance(3)
    rows = Table(piece.html()).rows[0]
    assert len(rows) == 16 and sum(int(row[1]) for row in rows) == 1024
    assert [rows[0][0], rows[0][3], rows[15][3]] == ["1", "−0.030", "0.030"]
    assert Router().summary() == "after 0 steps with gamma 0, alpha 0: MaxVio 2.77; 0 % of the tokens go elsewhere than their first choice"


# ---- in a browser

@pytest.fixture(scope="module")
def browser():
    with browsers.chromium() as running:
        yield running


def test_both_languages_agree_to_the_last_bit_over_many_steps(browser):
    """Settings change on the way, as a reader's do."""
    dice = random.Random(0)
    starts = [Router(seed=seed, top_k=2 + 2 * (seed % 2), **(SMALL if seed % 4 else {})) for seed in range(7)] + [odd_router(alpha=3.0, gamma=0.3)]
    turns = [[dict(skew=dice.uniform(0, 3), gamma=dice.choice([0, 0.001, 0.03, 0.3]), alpha=dice.choice([0, 0.3, 10]), top_k=dice.choice([2, 4]))
              for _ in range(3)] for _ in starts]
    work = json.dumps([[piece.state(), each] for piece, each in zip(starts, turns, strict=True)])
    tab = browser.new_page()
    found = tab.evaluate("""async ([text, expression]) => {
        const m = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
        return new Function("m", expression)(m);
    }""", [scripts.module("router"), f"""return {work}.map(([state, turns]) => turns.map(turn => {{
        state = {{ ...state, ...turn }};
        for (let i = 0; i < 25; i++) state = {{ ...state, ...m.advance(state) }};
        const {{ bias, moved, history, steps }} = state;
        return {{ bias, moved, history, steps, now: m.measures(state), slope: m.gradient(m.route(state)) }};
    }}))"""])
    tab.close()
    for piece, each, theirs in zip(starts, turns, found, strict=True):
        for turn, there in zip(each, theirs, strict=True):
            for key, value in turn.items():
                setattr(piece, key, value)
            piece.advance(25)
            assert there == {"bias": piece.bias, "moved": piece.moved, "history": piece.history, "steps": piece.steps,
                             "now": piece.measures(), "slope": piece.gradient().tolist()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pages with two gates, in both themes."""
    folder = tmp_path_factory.mktemp("router")
    write_statics(folder)
    tokens = "".join(f'<link rel="stylesheet" href="_static/{name}.css">' for name in ("tokens", "fonts"))
    pieces = Router().html() + Router.preset("Auxiliary loss", top_k=4).advance(20).html()
    for theme in ("light", "dark"):
        (folder / f"{theme}.html").write_text(PAGE.format(html=f'data-theme="{theme}"', body="", pieces=pieces, tokens=tokens), "utf8")
    return folder


@pytest.fixture
def visit(browser, folder):
    with browsers.visits(browser, folder, count=2, width=1280) as open_page:
        yield open_page


def rows(one):
    """The numbers of one piece on the page."""
    return one.locator("tbody tr").evaluate_all("rows => rows.map(row => [...row.children].map(cell => cell.textContent))")


def test_keys_alone_take_steps_and_the_page_says_what_python_computes(visit):
    page = visit()
    one, other = page.locator(".explorable").all()
    before, expected = rows(other), Router()
    one.get_by_label("nothing").focus()
    page.keyboard.press("ArrowRight")
    assert one.get_by_label("bias", exact=True).is_checked() and one.get_by_label("Bias speed").get_attribute("aria-valuetext") == "0.01"
    one.get_by_label("Skew").focus()
    page.keyboard.press("ArrowRight")
    expected.skew, expected.gamma = 1.75, 0.01
    one.get_by_role("button", name="1 step").focus()
    for key in ("Enter", "Space", "Enter"):
        page.keyboard.press(key)
    assert rows(one) == Table(expected.advance(3).html()).rows[0]
    page.keyboard.press("Tab")    # Run is not there for who wants no motion
    assert page.evaluate("document.activeElement.textContent") == "100 steps"
    page.keyboard.press("Enter")
    assert rows(one) == Table(expected.advance(100).html()).rows[0]
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert rows(one) == Table(Router(skew=1.75).html()).rows[0]
    assert rows(other) == before == Table(Router.preset("Auxiliary loss", top_k=4).advance(20).html()).rows[0]


def test_the_text_says_what_is_seen(visit):
    page = visit()
    one, expected = page.locator(".explorable").first, Router.preset("Bias").advance(100)
    one.get_by_label("bias", exact=True).check()
    one.get_by_role("button", name="100 steps").click()
    now = expected.measures()
    said = one.locator(".xp-readout").text_content().replace("\u00a0", " ")
    busiest = max(range(16), key=now["load"].__getitem__)
    assert said == (f"After 100 steps: MaxVio 0.453. Expert {busiest + 1} has the most, {now['load'][busiest]} tokens, where the mean is 64. Sent elsewhere "
                    f"than their first choice by affinity: {100 * now['elsewhere']:.1f} % of the tokens. First choice changed by the auxiliary loss: 0 %.")
    assert now["max_violation"] == 0.453125
    one.get_by_role("status").filter(has_text="After 100 steps: MaxVio 0.453.").wait_for(state="attached")    # spoken after a pause
    assert one.locator(".ro-panel:not([aria-hidden])").count() == 0
    heights = one.evaluate("""e => e.querySelector(".ro-load .ro-fill").getAttribute("d").match(/V[\\d.]+/g).map(v => 1000 - v.slice(1))""")
    assert [round(y * 256 / 1000) for y in heights] == now["load"]    # the field ends at four means


def test_it_moves_only_when_the_reader_lets_it_run(visit):
    page = visit(motion="no-preference")
    one = page.locator(".explorable").first
    caption = one.locator("caption")
    page.wait_for_timeout(500)
    assert "after 0 steps" in caption.text_content()
    run = one.get_by_role("button", name="Run")
    run.press("Enter")
    page.wait_for_function("/after [3-9] steps/.test(document.querySelector('caption').textContent)")
    pause = one.get_by_role("button", name="Pause")
    assert pause.evaluate("e => e === document.activeElement")
    pause.press("Enter")
    stands = caption.text_content()
    page.wait_for_timeout(500)
    assert caption.text_content() == stands and one.get_by_role("button", name="Run").is_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_it_fits_and_axe_has_no_complaint(visit, theme, width):
    page = visit(theme, width)
    one = page.locator(".explorable").first
    one.get_by_label("bias, too fast").check()
    one.get_by_role("button", name="100 steps").click()
    one.locator("summary").click()
    assert page.evaluate("""() => [document.documentElement.scrollWidth, [...document.querySelectorAll(".xp-panel *")]
        .filter(e => !e.closest("svg") && e.getBoundingClientRect().right > e.closest(".xp-panel").getBoundingClientRect().right + 1)
        .map(e => e.outerHTML.slice(0, 80))]""") == [width, []]
    page.add_script_tag(path=ROOT / "tests" / "vendor" / "axe.min.js")
    found = page.evaluate("async () => (await axe.run('.xp', { preload: false })).violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 120))])")
    assert found == []


def test_python_offers_what_the_page_offers(visit):
    page = visit()
    labels = page.locator(".explorable").first.locator("fieldset").first.locator("label").all_text_contents()
    assert labels == [name.lower() for name in PRESETS]

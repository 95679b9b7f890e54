"""Floating-point bits: codes and casts are torch's, both languages agree on them, and a page is used by keys alone."""

import json
import math
import random
from fractions import Fraction
from pathlib import Path

import browser as browsers
import pytest
import torch
from traitlets import TraitError

from book_files import write_statics
from minimodels.explorables import FloatBits, scripts
from minimodels.explorables.float_bits import (FORMATS, beside, bits, code_of, digits_of, fields, kind, largest, percent, relative_error,
                                               typed, value_of, written)
from minimodels.palette import COLORS

ROOT = Path(__file__).parents[1]
INTEGER = {8: torch.uint8, 16: torch.int16, 32: torch.int32}
EIGHT = ("E4M3", "E5M2")

each_format = pytest.mark.parametrize("name", FORMATS)
each_small = pytest.mark.parametrize("name", EIGHT)


def codes(name, n=5_000):
    """Every code of 8 and 16 bits, n random ones and the special ones of 32."""
    fmt = FORMATS[name]
    if fmt.bits <= 16:
        return list(range(2**fmt.bits))
    top, half = largest(fmt), 2**31
    special = [0, 1, 2, 2**23 - 1, 2**23, top - 1, top, top + 1, top + 2, half - 1]
    return special + [half + c for c in special] + random.Random(0).sample(range(2**32), n)


def as_torch(name, numbers):
    """The numbers that torch reads in these codes."""
    fmt = FORMATS[name]
    signed = [c - 2**fmt.bits if fmt.bits > 8 and c >= 2 ** (fmt.bits - 1) else c for c in numbers]
    return torch.tensor(signed, dtype=INTEGER[fmt.bits]).view(fmt.dtype).double().tolist()


def cast(name, numbers):
    """The codes that torch's cast gives numbers, clamped first; float32 to the narrow formats, as in training, float64 to FP32."""
    fmt = FORMATS[name]
    wide = torch.tensor(numbers, dtype=torch.float32 if fmt.bits < 32 else torch.float64).clamp(-fmt.max, fmt.max)
    return [c % 2**fmt.bits for c in wide.to(fmt.dtype).view(INTEGER[fmt.bits]).tolist()]


def numbers(n=3_000, seed=0):
    """Numbers of float32 and of all sizes, zeros, and ties of every format."""
    rng = random.Random(seed)
    made = [rng.choice((-1, 1)) * rng.uniform(1, 2) * 2.0 ** rng.randint(-40, 20) for _ in range(n)]
    made += [rng.choice((-1, 1)) * rng.uniform(1, 2) * 2.0 ** rng.randint(-149, 127) for _ in range(n // 3)]
    made += [rng.randint(-400, 400) / 16 * 2.0 ** rng.randint(-12, 6) for _ in range(n // 3)]
    return torch.tensor(made + [0.0, -0.0, 448, 464, 480, 57_344, 61_440, 65_504, 65_520, 1e30, -1e30]).float().tolist()


# ---- the formats

@each_format
def test_a_code_is_worth_what_torch_reads_in_it(name):
    every = codes(name)
    for code, wanted in zip(every, as_torch(name, every), strict=True):
        found = value_of(code, FORMATS[name])
        assert found == wanted and math.copysign(1, found) == math.copysign(1, wanted) or math.isnan(found) and math.isnan(wanted), code


@each_format
def test_a_number_goes_where_torchs_cast_puts_it(name):
    values = numbers()
    if name == "FP32":
        rng = random.Random(1)
        values += [rng.choice((-1, 1)) * rng.uniform(1, 2) * 2.0 ** rng.randint(-152, 130) for _ in range(2_000)]
    assert [code_of(x, FORMATS[name]) for x in values] == cast(name, values)


@each_format
def test_a_number_of_the_format_stays(name):
    fmt = FORMATS[name]
    finite = [code for code in codes(name) if math.isfinite(value_of(code, fmt))]
    assert [code_of(value_of(code, fmt), fmt) for code in finite] == finite
    assert all(relative_error(value_of(code, fmt), fmt) == 0 for code in finite[:300])


@each_small
def test_half_way_goes_to_the_even_code_and_a_hair_beside_it_does_not(name):
    fmt = FORMATS[name]
    for code in range(largest(fmt)):
        low, high = value_of(code, fmt), value_of(code + 1, fmt)
        middle = (low + high) / 2
        assert code_of(middle, fmt) == (code if code % 2 == 0 else code + 1)
        assert code_of(math.nextafter(middle, low), fmt) == code and code_of(math.nextafter(middle, high), fmt) == code + 1
        assert code_of(-middle, fmt) == 128 + code_of(middle, fmt)


@each_small
def test_what_is_too_large_becomes_the_largest(name):
    fmt = FORMATS[name]
    for huge in (math.nextafter(fmt.max, math.inf), 2 * fmt.max, 1e308):
        assert value_of(code_of(huge, fmt), fmt) == fmt.max == -value_of(code_of(-huge, fmt), fmt)


def test_the_formats_have_the_published_ends_and_special_codes():
    """Source: Micikevicius et al. (2022), Table 1."""
    special = {name: [kind(code, FORMATS[name]) for code in range(256)] for name in EIGHT}
    assert [special["E4M3"].count(what) for what in ("NaN", "infinity", "zero", "subnormal")] == [2, 0, 2, 14]
    assert [special["E5M2"].count(what) for what in ("NaN", "infinity", "zero", "subnormal")] == [6, 2, 2, 6]
    assert bits(0x7F, FORMATS["E4M3"]) == "0 1111 111" and special["E4M3"][0x7F] == special["E4M3"][0xFF] == "NaN"
    for name, top, normal, least in (("E4M3", 448, 2**-6, 2**-9), ("E5M2", 57_344, 2**-14, 2**-16)):
        fmt = FORMATS[name]
        assert (value_of(largest(fmt), fmt), value_of(2**fmt.mantissa_bits, fmt), value_of(1, fmt)) == (top, normal, least)
    for name, fmt in FORMATS.items():
        info = torch.finfo(fmt.dtype)
        assert (value_of(largest(fmt), fmt), value_of(2**fmt.mantissa_bits, fmt)) == (info.max, info.tiny), name


@each_small
def test_the_neighbours_are_those_of_the_sorted_list(name):
    fmt = FORMATS[name]
    order = sorted({x for x in as_torch(name, range(256)) if not math.isnan(x)})
    for code in range(256):
        value = value_of(code, fmt)
        for direction in (-1, 1):
            there = beside(code, fmt, direction)
            at = order.index(value) + direction if value in order else -1
            assert there is None if not 0 <= at < len(order) else value_of(there, fmt) == order[at]


def test_the_digits_are_those_of_the_mantissa():
    digits = {name: written((fmt.mantissa_bits + 1) * math.log10(2), 2) for name, fmt in FORMATS.items()}
    assert digits == {"FP32": "7.2", "FP16": "3.3", "BF16": "2.4", "E4M3": "1.2", "E5M2": "0.9"}
    fmt = FORMATS["E4M3"]
    assert [round(digits_of(code, fmt) / math.log10(2)) for code in (0, 1, 2, 3, 4, 7, 8, 126, 127)] == [0, 1, 2, 2, 3, 3, 4, 4, 0]


def test_a_code_or_number_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"code must be in \[0, 2\^8\), got 256"):
        value_of(256, FORMATS["E4M3"])
    with pytest.raises(ValueError, match="number must be finite, got inf"):
        code_of(math.inf, FORMATS["FP32"])
    with pytest.raises(TraitError, match=r"code must be below 2\^8, as E4M3 has 8 bits, got 256"):
        FloatBits(code=256)
    with pytest.raises(TraitError, match="number must be finite"):
        FloatBits().number = math.nan


def test_bits_of_another_width_go_to_the_typed_number():
    piece = FloatBits(format="FP32", code=2**31)
    piece.format = "E4M3"
    assert piece.value() == 0.1015625 and piece.summary() == "E4M3 0 0011 101 is 0.1015625; 0.1 is rounded to 0.1015625, 1.56 % away"
    piece.format = "E5M2"
    assert piece.code == 0b0_00111_01  # the same bits, read otherwise


# ---- numbers in words

@pytest.mark.parametrize("x, digits, words", [
    (0.0, None, "0"), (-0.0, None, "−0"), (math.inf, None, "∞"), (-math.inf, None, "−∞"), (math.nan, None, "NaN"), (-57_344.0, None, "−57,344"),
    (2.0**-9, None, "0.001953125"), (2.0**-16, None, "0.0000152587890625"), (0.1, None, "0.1"), (2.0**-149, None, "1.40129846 × 10⁻⁴⁵"),
    (3.125, 3, "3.13"), (99.96, 3, "100"), (0.0009996, 3, "0.001"), (1e12, None, "1 × 10¹²"), (123_456_789_012.0, None, "123,456,789,012")])
def test_a_number_is_written_with_as_many_digits_as_it_needs(x, digits, words):
    assert written(x, digits) == words


def test_what_is_written_is_within_half_a_unit_of_its_last_digit():
    for x in numbers(300, seed=5):
        text = written(x).replace("−", "-").replace(",", "")
        text = text.split(" × ")[0] + ("e" + text.split("10")[-1].translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) if "×" in text else "")
        assert abs(Fraction(text) - Fraction(x)) <= abs(Fraction(x)) * Fraction(1, 10**8)


# ---- in a browser

@pytest.fixture(scope="module")
def browser():
    with browsers.chromium() as running:
        yield running


def test_both_languages_agree(browser):
    """Values, neighbours, kinds and words of codes, and where numbers go, with random states of every format."""
    rng, page = random.Random(2), browser.new_page()
    page.goto("about:blank")
    facts = FloatBits().formats
    some = {name: codes(name, 400) if fmt.bits != 16 else rng.sample(codes(name), 600) for name, fmt in FORMATS.items()}
    values = rng.sample(numbers(), 500) + [rng.uniform(-1, 1) * 10.0 ** rng.randint(-60, 60) for _ in range(200)] + [-0.0, 0.0, 1e308, 5e-324, 0.1]
    given = json.dumps({"facts": facts, "codes": some, "values": values})
    found = page.evaluate("""async ([text, given]) => {
        const m = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" }))), { facts, codes, values } = JSON.parse(given);
        return Object.fromEntries(Object.entries(facts).map(([name, f]) => [name, {
            codes: codes[name].map(c => [m.written(m.valueOf(c, f)), m.bitsOf(c, f), m.kindOf(c, f), m.beside(c, f, -1), m.beside(c, f, 1),
                                         m.digitsOf(c, f).toFixed(6)]),
            exact: codes[name].map(c => m.valueOf(c, f)).map(x => Number.isFinite(x) ? x : null), largest: m.largest(f),
            values: values.map(x => [m.codeOf(x, f), m.percent(m.relativeError(x, f)), m.typed(x), m.written(x, 4)]),
        }]));
    }""", [scripts.module("float_bits"), given])
    page.close()
    for name, fmt in FORMATS.items():
        assert found[name]["largest"] == largest(fmt)
        for code, theirs in zip(some[name], found[name]["codes"], strict=True):
            ours = [written(value_of(code, fmt)), bits(code, fmt), kind(code, fmt), beside(code, fmt, -1), beside(code, fmt, 1)]
            assert theirs == [*ours, f"{digits_of(code, fmt):.6f}"], (name, code)
        exact = [value_of(code, fmt) for code in some[name]]
        assert [x if x is None else float(x) for x in found[name]["exact"]] == [x if math.isfinite(x) else None for x in exact]
        for x, theirs in zip(values, found[name]["values"], strict=True):
            assert theirs == [code_of(x, fmt), percent(relative_error(x, fmt)), typed(x), written(x, 4)], (name, x)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bits")
    write_statics(folder)
    return folder


@pytest.fixture
def visit(browser, folder):
    """Opens a page with one instance; at the end nothing may have gone wrong on it."""
    wrong, pages = [], []

    def open_page(piece=None, theme="light", width=1280):
        (folder / "page.html").write_text(f"""<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>Bits</title>
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="_static/tokens.css"><link rel="stylesheet" href="_static/fonts.css">
<link rel="stylesheet" href="_static/explorables/explorables.css">
<style>body {{ margin: 0; background: var(--paper); color: var(--ink); }} main {{ max-width: 39rem; margin: 1rem auto; padding: 0 1.25rem; }}</style></head>
<body><main><h1>Bits</h1>{(piece or FloatBits()).html()}</main><script src="_static/explorables.js"></script></body></html>""", "utf8")
        page = browser.new_page(viewport={"width": width, "height": 1000}, reduced_motion="reduce")
        pages.append(page)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((folder / "page.html").as_uri())
        page.wait_for_selector("[data-live]")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert wrong == []


def shown(page):
    """What the piece says: value, neighbours and the words of the readout."""
    above, here, below = page.locator(".xp-table").first.locator("tbody tr td:nth-child(2)").all_text_contents()
    return {"bits": "".join(page.locator(".fb-bit").all_text_contents()), "below": below, "value": here, "above": above,
            "readout": page.locator(".xp-readout").text_content()}


def wanted(name, code):
    fmt = FORMATS[name]
    sides = ["none" if (there := beside(code, fmt, side)) is None else written(value_of(there, fmt)) for side in (-1, 1)]
    return {"bits": bits(code, fmt).replace(" ", ""), "below": sides[0], "value": written(value_of(code, fmt)), "above": sides[1]}


@each_format
def test_bits_are_one_tab_stop_and_are_set_by_keys(visit, name):
    rng, fmt = random.Random(name), FORMATS[name]
    page = visit(FloatBits(format=name, code=0))
    page.locator(".fb-bit[tabindex='0']").focus()
    assert page.locator(".fb-bit[tabindex='0']").count() == 1
    code = rng.randrange(2**fmt.bits)
    page.keyboard.press("End")
    page.keyboard.press("Home")
    for digit in bits(code, fmt).replace(" ", ""):
        page.keyboard.press(rng.choice(["1", "Space", "Enter"]) if digit == "1" else "0")
        page.keyboard.press("ArrowRight")
    found = shown(page)
    assert found.items() >= wanted(name, code).items()
    assert found["readout"].startswith(f"{name} {bits(code, fmt)} is ")
    assert page.evaluate("document.activeElement === [...document.querySelectorAll('.fb-bit')].at(-1)")
    pressed = page.locator(".fb-bit").evaluate_all("all => all.map(one => one.ariaPressed === 'true' ? '1' : '0').join('')")
    assert pressed == wanted(name, code)["bits"]
    page.locator(".fb-bit").first.click()
    assert shown(page).items() >= wanted(name, code ^ 2 ** (fmt.bits - 1)).items()


@each_small
def test_keys_walk_through_every_number_of_the_line(visit, name):
    page, fmt = visit(FloatBits(format=name)), FORMATS[name]
    line = page.get_by_role("slider", name="Value, along all numbers of the format")
    line.focus()
    page.keyboard.press("Home")
    code, seen = 128 + largest(fmt) + fmt.has_infinity, []
    while code is not None:
        seen.append(line.get_attribute("aria-valuetext"))
        assert seen[-1] == written(value_of(code, fmt))
        page.keyboard.press("ArrowRight")
        code = beside(code, fmt, 1)
    assert len(set(seen)) == {"E4M3": 253, "E5M2": 247 + 2}[name]
    page.keyboard.press("PageDown")
    assert line.get_attribute("aria-valuenow") == str(largest(fmt) + fmt.has_infinity - 2**fmt.mantissa_bits)
    page.keyboard.press("End")
    assert line.get_attribute("aria-valuenow") == line.get_attribute("aria-valuemax")


def test_a_click_on_the_line_chooses_the_nearest_number(visit):
    page = visit()
    box = page.locator(".fb-line[role='slider']").bounding_box()
    for share, value in ((0.5, "0"), (1 - 1e-3, "448"), (1e-3, "−448")):
        page.mouse.click(box["x"] + share * box["width"], box["y"] + 20)
        assert shown(page)["value"] == value


def test_the_line_has_a_tick_for_every_number(visit):
    for name in EIGHT:
        page, fmt = visit(FloatBits(format=name)), FORMATS[name]
        drawn = page.locator(".fb-line[role='slider'] path").evaluate_all("all => Object.fromEntries(all.map(one => [one.getAttribute('class'), "
                                                                          "(one.getAttribute('d') ?? '').split('M').length - 1]))")
        assert drawn["fb-low"] == 2 * 2**fmt.mantissa_bits - 1  # subnormal numbers, zero once
        assert drawn["fb-low"] + drawn["fb-tick"] + drawn["fb-power"] == 2 * (largest(fmt) + fmt.has_infinity) + 1
        assert drawn["fb-here"] == 1


def test_a_typed_number_is_rounded_in_every_format(visit):
    page = visit()
    field = page.get_by_label("Your number")
    for text, x in (("0.3", 0.3), ("-1e6", -1e6), ("3,7", 3.7), ("−0.0001", -1e-4), ("448", 448.0)):
        field.fill(text)
        rows = page.locator(".xp-table").last.locator("tbody tr").evaluate_all("all => all.map(row => [...row.cells].map(cell => cell.textContent))")
        assert [[row[0], *row[2:]] for row in rows] == [[name, written(value_of(code_of(x, fmt), fmt)), percent(relative_error(x, fmt))]
                                                         for name, fmt in FORMATS.items()]
        assert shown(page).items() >= wanted("E4M3", code_of(x, FORMATS["E4M3"])).items()
    assert "448 is held exactly: 448, a relative error of 0 %" in shown(page)["readout"]
    before = shown(page)
    field.fill("four")
    assert field.get_attribute("aria-invalid") == "true" and shown(page) == before and page.get_by_text("Not a decimal number").is_visible()
    page.keyboard.press("Tab")
    assert field.input_value() == "448" and field.get_attribute("aria-invalid") == "false"
    field.fill("1e9")
    assert "1,000,000,000 is beyond the largest and becomes 448, a relative error of 100 %" in shown(page)["readout"]


def test_another_format_rounds_the_typed_number_anew_and_keeps_a_value_that_was_set(visit):
    page = visit()
    for name in ("FP32", "BF16", "FP16", "E5M2", "E4M3"):
        page.get_by_label(name, exact=True).check(force=True)
        assert shown(page).items() >= wanted(name, code_of(0.1, FORMATS[name])).items()
        assert page.locator(".fb-lines").is_visible() == (name in EIGHT)
    page.locator(".fb-bit").last.press("0")     # 0.09375
    page.get_by_label("FP32", exact=True).check(force=True)
    assert shown(page)["value"] == "0.09375"
    page = visit(FloatBits(format="E5M2", code=0b1_11111_00))
    assert "is minus infinity." in shown(page)["readout"]
    page.get_by_label("FP16", exact=True).check(force=True)
    assert shown(page)["value"] == "−∞"
    page.get_by_label("E4M3", exact=True).check(force=True)
    assert shown(page)["value"] == "−448" # it has no infinity


def test_how_a_value_is_made_is_said_and_shown(visit):
    page = visit(FloatBits(code=0b0_0011_101))
    assert page.locator(".fb-sum").text_content() == "= +1 × 23 − 7 × 1.101two= +1 × 2−4 × 1.625"
    assert page.get_by_role("math").first.get_attribute("aria-label") == "+1 times 2 to the power 3 minus 7, times 1.101 in binary"
    assert "A subnormal number" in visit(FloatBits(code=5)).locator(".fb-sum").text_content()
    assert "there is no infinity" in visit(FloatBits(code=0x7F)).locator(".fb-sum").text_content()
    assert "with mantissa 0 for infinity" in visit(FloatBits(format="E5M2", code=0x7C)).locator(".fb-sum").text_content()


def test_the_change_is_spoken_after_a_pause(visit):
    page = visit()
    page.locator(".fb-bit").last.press("0")
    page.get_by_role("status").filter(has_text="E4M3 0 0011 100 is 0.09375, normal. Its neighbours are 0.0078125 away.").wait_for(state="attached")


@pytest.mark.parametrize("width", [360, 390])
@each_format
def test_a_phone_is_wide_enough(visit, name, width):
    page = visit(FloatBits(format=name, number=-1.23456789e-3), width=width)
    assert page.evaluate("""() => [document.documentElement.scrollWidth, [...document.querySelectorAll(".xp-panel *")]
        .filter(e => !e.closest("svg") && e.getBoundingClientRect().right > e.closest(".xp-panel").getBoundingClientRect().right + 1)
        .map(e => e.outerHTML.slice(0, 80))]""") == [width, []]
    assert all(box["width"] >= 24 and box["height"] >= 24 for box in page.locator(".fb-bit").evaluate_all("all => all.map(e => e.getBoundingClientRect().toJSON())"))
    labels = page.locator(".fb-line[role='slider'] .fb-label:visible").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect()).map(b => [b.left, b.right]).sort((a, b) => a[0] - b[0])")
    assert all(a[1] < b[0] for a, b in zip(labels, labels[1:]))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["E4M3", "FP32"])
def test_the_piece_is_accessible_and_wears_the_books_colours(visit, name, theme):
    page = visit(FloatBits(format=name), theme=theme)
    page.add_script_tag(path=ROOT / "tests" / "vendor" / "axe.min.js")
    found = page.evaluate("async () => (await axe.run('main', { preload: false })).violations.map(v => [v.impact, v.id, v.nodes.slice(0, 3).map(n => n.html.slice(0, 160))])")
    assert found == []
    color = COLORS["fp8" if name == "E4M3" else "ink"][theme == "dark"]
    assert page.locator(".fb-bit[aria-pressed='true']").first.evaluate("e => getComputedStyle(e).backgroundColor") == \
        f"rgb({', '.join(str(int(color[i:i + 2], 16)) for i in (1, 3, 5))})"


def test_without_a_script_the_table_says_it(browser, folder):
    html = FloatBits(format="E5M2", code=0b1_11110_11).fallback()
    for words in ("E5M2, bits 1 11110 11", "<td>−57,344</td>", "−1 × 2^(30 − 15) × (1 + 3/4)", "<td>−∞</td>", "−49,152, a gap of 8,192"):
        assert words in html
    assert fields(0b1_11110_11, FORMATS["E5M2"]) == (1, 30, 3)

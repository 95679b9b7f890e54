"""Chapter 05: its exercises' solutions against torch, its studies' settings, its bugs, and the figures that its text writes."""

import itertools
import math
import statistics
from dataclasses import replace

import browser as browsers
import numpy as np
import pytest
import torch

from minimodels import lab
from minimodels.config import ModelConfig, TrainConfig
from minimodels.data import Batches
from minimodels.exercises import train as exercises
from minimodels.explorables import TrainingCurves, scripts, training_curves
from minimodels.model import Transformer
from minimodels.optim import orthogonalise, schedule
from minimodels.studies import find, recorded
from minimodels.studies import train as studies
from minimodels.train import train

TINY = ModelConfig(vocab_size=97, d_model=24, n_layers=2, max_seq_len=64, attention="mha", n_heads=3, d_head=8, d_value=8, d_ff=40, n_experts=0,
                   mtp_depth=0)
TOKENS = np.random.default_rng(0).integers(1, 97, 20_000).astype(np.uint16)


def text():
    """The chapter's text as one line of words."""
    path = lab.data_file("").parent / "chapters" / "05_train.py"
    return " ".join(path.read_text("utf8").replace("\n# > ", " ").replace("\n#", " ").split())


def scores(study, arm, seeds=None):
    found = {t["seed"]: t["bits_per_byte"] for t in recorded(study)["trials"] if t["arm"] == arm}
    return [found[seed] for seed in seeds or found]


def listed(values, form=".3f"):
    """Numbers as the chapter's text lists them: 1, 2 and 3."""
    *most, last = (format(value, form) for value in values)
    return f"{', '.join(most)} and {last}"


SEEDS = (1, 2, 3)


# ---- the exercises' solutions are what the chapter says that they are

def test_adamw_by_hand_is_torchs():
    torch.manual_seed(0)
    w = torch.randn(5, 3)
    p, m, v = torch.nn.Parameter(w.clone()), torch.zeros(5, 3), torch.zeros(5, 3)
    theirs = torch.optim.AdamW([p], lr=0.03, betas=(0.9, 0.95), weight_decay=0.1)
    for t in range(1, 8):
        p.grad = torch.randn(5, 3)
        w, m, v = exercises.adamw_step(w, p.grad, m, v, t, 0.03, 0.1)
        theirs.step()
        assert torch.allclose(w, p, atol=1e-6)


def test_the_worked_example_of_adamw():
    w, m, v = (torch.zeros(1) for _ in range(3))
    steps = []
    for t, g in enumerate((4.0, -2.0), start=1):
        new, m, v = exercises.adamw_step(w, torch.tensor([g]), m, v, t, 1.0, 0.0)
        steps.append((w - new).item())
        w = new
    assert steps == pytest.approx([1.0, 0.27], abs=5e-3)
    assert (m.item(), v.item()) == pytest.approx((0.16, 0.96))


def test_newton_schulz_by_hand_is_the_packages_and_close_to_an_svd():
    g = torch.randn(7, 19, generator=torch.Generator().manual_seed(0))
    U, _, Vh = torch.linalg.svd(g, full_matrices=False)
    assert torch.allclose(exercises.newton_schulz(g, 5), orthogonalise(g), atol=1e-4)
    assert (exercises.newton_schulz(g, 5) - U @ Vh).norm() / (U @ Vh).norm() < 0.3


def test_the_two_by_two_example_of_muon():
    U, S, Vh = torch.linalg.svd(torch.tensor([[3.0, 0.0], [4.0, 5.0]]))
    assert S.tolist() == pytest.approx([math.sqrt(45), math.sqrt(5)], abs=1e-5)
    assert torch.allclose(U @ Vh, torch.tensor([[2.0, -1.0], [1.0, 2.0]]) / math.sqrt(5), atol=1e-6)


def test_the_schedule_by_hand_is_the_packages():
    config = TrainConfig(steps=500)    # 10 steps of warm-up, 200 of decay
    for step in range(1, 501):
        assert exercises.rate_at(step, 500, 10, 200) == pytest.approx(schedule(step, config))


def test_the_first_loss_of_an_untrained_model_is_the_predicted_one():
    torch.manual_seed(0)
    logits, target = 0.7 * torch.randn(20_000, 512), torch.randint(0, 512, (20_000,))
    measured = torch.nn.functional.cross_entropy(logits, target).item()
    assert measured == pytest.approx(exercises.first_loss(512, 0.7), abs=0.02)
    assert exercises.first_loss(129_280, 0.006 * 7168**0.5) == pytest.approx(11.90, abs=5e-3)


def test_the_line_through_logarithms_is_numpys():
    sizes, found = [20e3, 50e3, 90e3, 300e3], [2.1, 1.9, 1.85, 1.6]
    slope, height = np.polyfit(np.log(sizes), np.log(found), 1)
    assert exercises.predict_score(sizes, found, 1e6) == pytest.approx(np.exp(height + slope * np.log(1e6)))


def test_the_sum_of_probabilities_is_one_for_the_yardsticks_kind_and_not_for_unshifted_targets():
    torch.manual_seed(0)
    model, tokens = Transformer(TINY), torch.randint(1, 97, (1, 9))

    def loss_of(tokens):
        with torch.no_grad():
            hidden = model(tokens).hidden[0]
            return torch.nn.functional.cross_entropy(model.head(hidden[0, :-1]), tokens[0, 1:], reduction="none")

    for p in model.parameters():
        p.data.mul_(5)
    assert exercises.is_honest(loss_of, tokens, 97)
    studies.unshifted(model)
    assert not exercises.is_honest(loss_of, tokens, 97)


# ---- the studies compare what they say

def test_the_yardstick_of_both_optimizers_is_one_setting():
    """Muon's runs are those of mla-quality and mla-rates: all settings but the optimizer, its rates and the evaluations are AdamW's."""
    muon = find("mla-quality").trials[0]
    assert muon.arm == "mha" and muon.model == studies.YARDSTICK and muon.data == "stdlib" and muon.max_bytes is None
    for trial in (*find("train-rates").trials, *find("train-optimizers").trials):
        assert trial.model == muon.model and (trial.data, trial.max_bytes) == (muon.data, muon.max_bytes)
        same = replace(trial.training, optimizer="muon", lr=muon.training.lr, seed=muon.training.seed, eval_every=muon.training.eval_every)
        assert same == muon.training and trial.training.optimizer == "adamw"
    for trial in find("mla-rates").trials[:4]:
        assert trial.model == muon.model and replace(trial.training, muon_lr=0.01, seed=muon.training.seed, eval_every=300) == muon.training


def test_the_family_has_one_shape():
    family = [studies.of_width(width) for width in (*studies.WIDTHS, 128)]
    assert family[-1] == studies.YARDSTICK
    for config in family:
        assert config.n_heads * config.d_head == config.d_model and config.d_ff / config.d_model == 2.5 and config.n_layers == 4
    assert find("mla-quality").trials[0].training == replace(find("train-sizes").trials[0].training, seed=1)


def test_a_right_run_has_no_fault_and_each_broken_one_has_one():
    trials = {t.arm: t for t in find("train-broken").trials}
    right = trials.pop("right")
    for trial in trials.values():
        differs = [name for name in ("training", "batches", "spoil") if getattr(trial, name) != getattr(right, name)]
        assert len(differs) == 1, trial.arm
    high = trials["rate too high"].training
    assert [getattr(high, n) / getattr(right.training, n) for n in ("lr", "muon_lr", "embed_lr")] == pytest.approx([studies.TOO_HIGH] * 3)


# ---- the bugs do what their names say

def batches(kind=Batches):
    return kind(TOKENS, batch_size=4, seq_len=16, seed=0)


def test_text_in_order_is_in_order():
    first = batches(studies.InOrder)
    assert torch.equal(torch.cat([first.at(s).flatten() for s in range(3)]), torch.from_numpy(TOKENS[:192].astype("int64")))


def test_the_same_batches_come_again():
    again = batches(studies.SameAgain)
    assert torch.equal(again.at(3), again.at(28)) and torch.equal(again.at(3), batches().at(3)) and not torch.equal(again.at(3), again.at(4))


def test_gradients_that_are_never_zeroed_add_up():
    torch.manual_seed(0)
    model, config = studies.never_zeroed(Transformer(TINY)), TrainConfig(steps=2, batch_size=4, seq_len=16, lr=1e-9, muon_lr=1e-9, embed_lr=1e-9, clip=1e9)
    once, twice = [r.grad_norm for r in train(model, batches(lambda *a, **k: Same(*a, **k)), config)]
    assert twice == pytest.approx(2 * once, rel=1e-3)


class Same(Batches):
    def at(self, step):
        return super().at(0)


def test_unshifted_targets_are_those_just_read():
    torch.manual_seed(0)
    model, tokens = Transformer(TINY), torch.randint(1, 97, (2, 9))
    right = model(tokens).logits
    assert torch.equal(studies.unshifted(model)(tokens).logits[:, :-1], right[:, 1:])


# ---- the figures that the chapter writes

def test_what_the_chapter_says_of_the_rates():
    trials = {t["arm"]: t for t in recorded("mla-rates")["trials"]}
    muon = {rate: trials[f"mha {rate:g}"] for rate in (0.005, 0.01, 0.02, 0.04)}
    found = [t["bits_per_byte"] for t in muon.values()]
    assert round(max(found) - min(found), 3) == 0.037 and "**0.037 bits**" in text()
    later = {rate: dict(t["curve"]) for rate, t in muon.items()}
    behind = [round(100 * (later[0.02][n * 2048] / later[0.01][n * 2048] - 1), 1) for n in (400, 600)]
    assert behind == [1.1, 0.0]
    assert "the rate 0.02 was 1 percent behind 0.01 at step 400 of 600; at the end they were equal" in text()
    mla = statistics.mean(scores("mla-quality", "mla")) - statistics.mean(scores("mla-quality", "mha"))
    assert f"a difference of {mla:.3f} bits" in text() and 2 * mla < max(found) - min(found)


def test_what_the_chapter_says_of_the_whole_model():
    run, config = recorded("cpu-long"), ModelConfig.preset("cpu")
    assert [round(n / 1e6, 1) for n in (config.n_params, config.n_active_params)] == [2.3, 1.4] and "2.3 million parameters, 1.4 of them at work" in text()
    assert run["train"]["steps"] == 10_000 and run["machine"]["threads"] == 1 and 3600 < run["seconds"] < 7200 and "less than two hours of one core" in text()
    assert run["bits_per_byte"] < recorded("yardstick")["bits_per_byte"]


def test_what_the_chapter_says_of_the_long_run():
    run = recorded("yardstick")
    assert run["model"] == ModelConfig.preset("yardstick").to_dict()
    assert TrainConfig.from_dict(run["train"]) == replace(TrainConfig.preset("yardstick"), steps=6000)
    short = statistics.mean(scores("mla-quality", "mha"))
    assert f"from {short:.3f} to {run['bits_per_byte']:.3f} bits per byte" in text() and run["bits_per_byte"] < run["lzma"] < run["zlib"]
    assert 5 < run["tokens"] / 2.3e6 < 6 and "its 2.3 million training tokens five times" in text()    # 2,299,706 tokens of the recorded Python
    loss = {r["step"]: r["loss"] for r in run["records"]}
    near = {step: statistics.mean(loss[n] for n in range(step - 190, step + 1, 10)) for step in (600, 3600, 6000)}
    assert [round(x, 1) for x in near.values()] == [4.6, 3.7, 2.8] and "to about 4.6 nats in the first million tokens and slowly to 3.7" in text()
    assert 0.8 < near[3600] - near[6000] < 1 and "the decay takes off nearly a nat" in text() and 3600 * 2048 == pytest.approx(7.4e6, rel=0.01)
    assert f"{recorded('train-broken')['trials'][0]['bytes_per_token']:.2f} on our unseen text" in text()


def test_what_the_chapter_says_of_the_clip():
    runs = {t["arm"]: t for t in recorded("train-broken")["trials"]}
    norms = runs["right"]["grad_norm"]
    assert f"it bites in {100 * sum(n > 1 for n in norms) / len(norms):.0f} percent of the steps" in text()


def test_what_the_chapter_says_of_runs_without_a_clip():
    right = scores("train-live", "yardstick", SEEDS)
    tight, none = ([a - b for a, b in zip(scores("train-clip", arm, SEEDS), right)] for arm in ("clip 0.01", "no clip"))
    assert max(map(abs, tight)) < 0.001 and "a clip of 0.01 changes nothing" in text()
    assert f"none costs {statistics.mean(none):.2f} bits." in text() and max(none) < 0.02
    even = 12 / recorded("train-clip")["trials"][2]["bytes_per_token"]    # bits per byte of even bets on 4,096 tokens
    assert min(scores("train-clip", "never zeroed, no clip", SEEDS)) > 2 * even and "far worse than knowing nothing" in text()
    assert all(0.02 < a - b < 0.06 for a, b in zip(scores("train-clip", "never zeroed", SEEDS), right))


def test_the_clip_study_changes_nothing_but_the_clip_and_the_zeroing():
    live = find("train-live").trials[0].training
    assert live.clip == 1
    for trial in find("train-clip").trials:
        assert replace(trial.training, clip=1.0, seed=live.seed, eval_every=live.eval_every) == live and trial.max_bytes == studies.LIVE_BYTES
        assert ("never zeroed" in trial.arm) == (getattr(trial, "spoil", None) is studies.never_zeroed)


def test_what_the_chapter_says_of_formats():
    more = [b - f for b, f in zip(scores("train-formats", "bf16", SEEDS), scores("mla-quality", "mha", SEEDS))]
    assert min(more) < 0 < max(more) and max(map(abs, more)) < 0.002 and "In the score three seeds show no difference." in text()


def test_what_the_chapter_says_of_muons_directions():
    muon, same = ({rate: scores("train-directions", f"{arm} {rate:g}", [0])[0] for rate in rates}
                  for arm, rates in (("Muon", (0.005, 0.01, 0.02)), ("same size", (0.001, 0.0025, 0.005, 0.01))))
    assert min(muon, key=muon.get) == 0.01 and min(same, key=same.get) == studies.SAME_SIZE_BEST == 0.0025
    for row in (f"| Muon | | | {muon[0.005]:.3f} | **{muon[0.01]:.3f}** | {muon[0.02]:.3f} |",
                f"| same size | {same[0.001]:.3f} | **{same[0.0025]:.3f}** | {same[0.005]:.3f} | {same[0.01]:.3f} | |"):
        assert row in text()
    gap, rate = same[0.01] - muon[0.01], same[0.01] - same[0.0025]
    assert f"of the {gap:.2f} bits, {rate:.2f} were the rate. What is left is {gap - rate:.2f}" in text()
    left = [a - b for a, b in zip(scores("train-directions", "same size 0.0025", SEEDS), scores("train-live", "yardstick", SEEDS))]
    assert f"with three other seeds {listed(left, '.2f')}" in text()


def test_what_the_chapter_says_of_a_lost_memory():
    trials = {(t["arm"], t["seed"]): t for t in recorded("train-memory")["trials"]}
    for seed in SEEDS:
        keeps, forgets = trials["keeps", seed], trials["forgets", seed]
        assert keeps["loss"][:41] == forgets["loss"][:41] and keeps["bits_per_byte"] == scores("train-live", "yardstick", [seed])[0]
        more = [round(b - a, 1) for a, b in zip(keeps["loss"][41:51], forgets["loss"][41:51])]
        assert 0.3 <= min(more) and max(more) <= 0.8 and "For the next ten it is 0.3 to 0.8 nats too high" in text()
        assert 0.055 < forgets["bits_per_byte"] - keeps["bits_per_byte"] < 0.07 and "0.06 bits per byte more at the end, with each seed" in text()


def test_what_the_chapter_says_of_warm_up():
    without, with_it = scores("train-warmup", "no warm-up", SEEDS), scores("mla-quality", "mha", SEEDS)
    trial = find("train-warmup").trials[0]
    assert replace(trial.training, warmup=0.02) == find("mla-quality").trials[0].training
    assert f"{listed(without)} bits per byte; with it {listed(with_it)}" in text()
    assert max(abs(a - b) for a, b in zip(without, with_it)) < 0.003


def test_what_the_chapter_says_of_the_broken_runs():
    runs = {t["arm"]: t for t in recorded("train-broken")["trials"]}
    letter = {fault: x for x, fault in training_curves.RUNS.items()}
    nats = {arm: [bits * t["bytes_per_token"] * math.log(2) for _, bits in t["curve"]] for arm, t in runs.items()}
    behind = {arm: round(100 * (t["bits_per_byte"] / runs["right"]["bits_per_byte"] - 1)) for arm, t in runs.items()}
    assert behind["gradients never zeroed"] == 2 and behind["rate too high"] == 3 and "it ends two percent behind" in text() and "to 3 percent behind" in text()
    assert min(b for arm, b in behind.items() if arm not in ("right", "targets not shifted")) == 2    # none is less visible
    for fault, said in (("targets not shifted",) * 2, ("the same batches again", "the same 25 batches again"), ("text in order",) * 2, ("rate too high",) * 2,
                        ("gradients never zeroed",) * 2):
        assert f"**{letter[fault]}, {said}**" in text()
    first = runs["targets not shifted"]["loss"][0]
    assert f"its first loss is {first:.2f}, and equation (5.1) allows {exercises.first_loss(4096, 0.02 * 128**0.5):.2f}" in text()
    again = runs["the same batches again"]
    assert f"{statistics.mean(again['loss'][-10:]):.2f} nats in the end. On unseen text it stands at {nats['the same batches again'][-1]:.1f}" in text()
    assert nats["the same batches again"] == sorted(nats["the same batches again"]) and "worse than at step 50" in text()
    order = runs["text in order"]["loss"]
    assert f"{order[39]:.1f} at step 40, {order[44]:.1f} five steps later" in text()
    assert f"climbs to {max(runs['rate too high']['loss']):.0f} nats" in text()
    assert [step for step, _ in again["curve"]] == [50, 100, 150]
    right, zeroed = runs["right"]["loss"], runs["gradients never zeroed"]["loss"]
    assert max(right[3:12]) > min(right[:5]) + 0.5 and max(zeroed[3:12]) > max(right[3:12]) + 0.5 and "the right run's hump, but higher" in text()
    assert all(a < b for a, b in zip(right[12:], zeroed[12:])) and "then always a little too high" in text()


def test_what_the_chapter_says_of_batches():
    recipe, eight = find("mla-quality").trials[0].training, statistics.mean(scores("mla-quality", "mha", (1, 2)))
    for trial in find("train-batch").trials:
        config, windows = trial.training, trial.training.batch_size
        assert config.steps * windows == 4800 == recipe.steps * recipe.batch_size
        factor = (windows / 8) ** 0.5 if "root" in trial.arm else 1
        assert [getattr(config, r) / getattr(recipe, r) for r in ("lr", "muon_lr", "embed_lr")] == pytest.approx([factor] * 3)
    lost = {windows: statistics.mean(scores("train-batch", f"{windows} windows, root", (1, 2))) - eight for windows in (2, 32)}
    assert f"Eight is best: 32 lose {lost[32]:.2f} bits, two lose {lost[2]:.2f}." in text()
    assert min(scores("train-batch", f"{windows} windows, same", [1])[0] for windows in (2, 32)) > eight
    rule = scores("train-batch", "32 windows, same", [1])[0] - scores("train-batch", "32 windows, root", [1])[0]
    assert f"at 32 the rule alone is worth {rule:.2f}" in text()


def test_what_the_chapter_says_of_the_parts_of_muons_recipe():
    plain, muon = scores("train-optimizers", "adamw", SEEDS), scores("mla-quality", "mha", SEEDS)
    embedding, norms = (scores("train-embedding", f"adamw, {arm} apart", SEEDS) for arm in ("embedding", "embedding and norms"))
    gap, of_embedding, of_norms, left = (statistics.mean(a - b for a, b in zip(*two)) for two in ((plain, muon), (plain, embedding), (embedding, norms), (norms, muon)))
    assert f"was {of_embedding:.2f} of the {gap:.2f} bits, the norms' rate hardly anything. What is left for Muon is {left:.2f} bits." in text()
    assert f"by {gap:.2f} bits per byte: {of_embedding:.2f} by the embedding's rate, {left:.2f} by Muon." in text() and 0 < of_norms < 0.006
    every = scores("mla-quality", "mha")
    assert min(a - b for a, b in zip(norms, muon)) > 3 * (max(every) - min(every)) and "More than seeds differ" in text()
    slope = math.log(statistics.mean(every) / recorded("yardstick")["bits_per_byte"]) / math.log(10)    # 600 steps and 6,000
    assert statistics.mean(norms) * (1 - 1.2**-slope) == pytest.approx(0.04, abs=0.005) and "would bring AdamW some 0.04" in text()


# ---- the explorable

def test_a_guess_is_answered_and_the_table_keeps_the_secret():
    piece = TrainingCurves(run="B")
    assert piece.verdict() == ""
    piece.guess = "rate too high"
    assert piece.verdict().startswith("No. ")
    piece.guess = "targets not shifted"
    assert piece.verdict().startswith("Yes: targets not shifted.")
    assert not any(fault in TrainingCurves().fallback() for fault in training_curves.RUNS.values())


def test_the_curves_are_the_recorded_ones():
    runs = {t["arm"]: t for t in recorded("train-broken")["trials"]}
    piece = TrainingCurves()
    assert set(training_curves.RUNS.values()) | {"right"} == set(runs) == set(studies.FAULTS)
    for one in piece.runs.values():
        trial = runs[one["fault"]]
        assert one["loss"] == [pytest.approx(trial["loss"][step - 1], abs=0.0051) for step in piece.steps]
        nats = [bits * trial["bytes_per_token"] / math.log2(math.e) for _, bits in trial["curve"]]
        assert [loss for _, loss in one["valid"]] == pytest.approx(nats, abs=0.0051)


def test_a_reader_can_find_every_fault_by_keys_alone_and_both_languages_say_the_same():
    with browsers.chromium() as browser:
        page = browser.new_page(reduced_motion="reduce")
        wrong = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.set_content(f"<main></main><script>{scripts.classic('training_curves')}</script>")
        page.evaluate("""state => {
            const heard = {};
            const model = { get: key => state[key], save_changes: () => {},
                set: (key, value) => { state[key] = value; (heard[`change:${key}`] ?? []).forEach(f => f()); },
                on: (name, f) => (heard[name] ??= []).push(f), off: () => {} };
            window.explorables.training_curves.render({ model, el: document.querySelector("main") });
        }""", TrainingCurves().state())
        for letter, fault in training_curves.RUNS.items():
            page.get_by_label(letter, exact=True).check()
            for guess in ("text in order", fault):
                page.get_by_label(guess, exact=True).focus()
                page.keyboard.press("Space")
                assert page.locator(".xp-readout").last.text_content() == TrainingCurves(run=letter, guess=guess).verdict()
        assert wrong == []


# ---- the comparison of optimizers, and the law

def test_adamws_rate_is_the_best_of_its_search_which_ends_inside_its_range():
    found = {float(t["arm"].split()[1]): t["bits_per_byte"] for t in recorded("train-rates")["trials"]}
    assert min(found, key=found.get) == studies.ADAMW_BEST and min(found) < studies.ADAMW_BEST < max(found)
    muon = {rate: scores("mla-rates", f"mha {rate:g}")[0] for rate in (0.005, 0.01, 0.02, 0.04)}
    assert min(muon, key=muon.get) == studies.RECIPE.muon_lr == 0.01


def test_what_the_chapter_says_of_the_optimizers():
    muon, adamw = scores("mla-quality", "mha", SEEDS), scores("train-optimizers", "adamw", SEEDS)
    more = [a - m for a, m in zip(adamw, muon)]
    assert round(statistics.mean(more), 2) == 0.36 and "**0.36 bits**, at first sight" in text()
    assert max(more) - min(more) < 0.03 and "seeds agreed to three hundredths of a bit" in text()
    searched, of_muon = scores("train-rates", "adamw 0.002")[0], scores("mla-rates", "mha 0.01")[0]
    assert f"scored {searched:.3f}, better than these three" in text() and searched < min(adamw)
    assert f"(With it the gap would be {searched - of_muon:.2f} to {max(more):.2f}.)" in text() and f"AdamW is {searched - of_muon:.2f} bits behind" in text()


def test_the_parts_of_muons_recipe_differ_by_what_they_say():
    plain = find("train-optimizers").trials[0]
    for trial in find("train-embedding").trials:
        assert (trial.model, replace(trial.training, seed=plain.seed)) == (plain.model, plain.training)
        assert trial.norms == (0.005 if "norms" in trial.arm else None)
    assert plain.training.embed_lr / plain.training.lr == pytest.approx(15) and "fifteen times as slowly" in text()


def test_what_the_chapter_says_of_the_law():
    by_size = {}
    for t in recorded("train-sizes")["trials"]:
        by_size.setdefault(t["n_params"], []).append(t["bits_per_byte"])
    sizes, mean, n = list(by_size), [statistics.mean(one) for one in by_size.values()], studies.YARDSTICK.n_params
    seen = scores("mla-quality", "mha")
    lines = [exercises.predict_score(sizes, one, n) for one in itertools.product(*by_size.values())]
    assert len(lines) == 16 and "sixteen lines: a prediction" in text() and max(lines) < min(seen) and "It is not inside." in text()
    assert ", ".join(f"{m:.3f}" for m in mean[:3]) + f" and {mean[3]:.3f} in the mean" in text()
    assert ", ".join(f"{size / 1e6:.2f}" for size in sizes[:3]) + f" and {sizes[3] / 1e6:.2f} million" in text()
    assert f"**{statistics.mean(seen):.3f} bits per byte.** The straight line says {statistics.mean(lines):.3f}" in text()

    def bent(floor, at):
        return floor + exercises.predict_score(sizes, [m - floor for m in mean], at)

    miss = {floor: max(abs(bent(floor, size) - m) for size, m in zip(sizes, mean)) for floor in [i / 100 for i in range(156)]}
    assert max(miss[floor] for floor in (0.0, 0.6, 1.2, 1.45, 1.5)) < 0.01 and "less than a hundredth of a bit" in text()
    assert min(miss, key=miss.get) == 1.45 and f"says {bent(1.45, n):.3f} for the yardstick" in text()
    assert bent(1.5, 1e9) - bent(0.0, 1e9) == pytest.approx(0.5, abs=0.02) and "disagree by half a bit" in text()
    beyond = studies.of_width(studies.LARGER).n_params
    assert f"{beyond / 1e6:.2f} million parameters, two seeds: the straight line says {bent(0.0, beyond):.3f}, the best floor {bent(1.45, beyond):.3f}" in text()
    larger = scores("train-larger", "D=192")
    missed = [statistics.mean(larger) - bent(floor, beyond) for floor in (0.0, 1.45)]
    assert f"The straight line misses by {missed[0]:.3f}. The curve with the floor misses by {missed[1]:.3f}, about as much as the seeds differ" in text()
    assert missed[1] == pytest.approx(max(larger) - min(larger), abs=0.003) and min(larger) > bent(1.45, beyond) and "both lie above it" in text()
    held_out = exercises.predict_score(sizes[:3], mean[:3], sizes[3])
    assert f"the line through three misses the fourth by {mean[3] - held_out:.3f}" in text()

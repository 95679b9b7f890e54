"""Generation: the filters, one law with drafts and without, and drafts that cost passes but never a token."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from minimodels.attention import Place
from minimodels.config import ModelConfig
from minimodels.data import train_tokenizer
from minimodels.generate import Drafter, TextStream, decode, encode, generate
from minimodels.model import Transformer
from minimodels.sampling import Sampling, distribution, sample

TINY = ModelConfig(vocab_size=7, d_model=22, n_layers=2, max_seq_len=41, n_heads=3, n_kv_heads=1, d_head=10, d_value=10, d_rope=4,
                   d_latent=13, n_experts=5, top_k=2, d_expert=11, d_ff=17, init_std=0.3)
PROMPTS = [[1, 2, 3, 4, 5], [6], [3, 1, 4, 1, 5, 2, 6, 5, 3, 5, 0], [2, 6]]


def build(seed=0, **changes):
    # float64, so that two ways of computing a logit cannot round to different argmaxes (norms and RoPE stay in float32)
    torch.manual_seed(seed)
    return Transformer(replace(TINY, **changes)).double()


def without_cache(model, prompt, n):
    """Greedy text by the slow road: the whole text anew for each token."""
    text = list(prompt)
    with torch.no_grad():
        for _ in range(n):
            text.append(model(torch.tensor([text])).logits[0, -1].argmax().item())
    return text[len(prompt):]


def bigram_model(**changes):
    """A model whose next token depends on the last alone, and whose MTP modules know that: every draft is right."""
    model = build(n_experts=0, **changes)
    for block in [*model.layers, *(m.block for m in model.mtp)]:
        block.attention.w_o.weight.data.zero_()
        block.ffn.w_down.weight.data.zero_()
    for mtp in model.mtp:
        mtp.project.weight.data = torch.cat([torch.zeros(22, 22), torch.eye(22)], dim=1).double()
    model.head.weight = torch.nn.Parameter(torch.randn(7, 22).double())
    return model


# the filters

def test_filters_keep_what_their_papers_say():
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()[..., [2, 0, 3, 1]]  # in the order .15, .5, .1, .25

    def kept(**settings):
        return distribution(logits, **settings)[0].tolist()

    assert kept() == pytest.approx([0.15, 0.5, 0.1, 0.25])
    assert kept(top_k=2) == pytest.approx([0, 2 / 3, 0, 1 / 3])
    assert kept(top_p=0.7) == pytest.approx([0, 2 / 3, 0, 1 / 3])
    assert kept(top_p=0.8) == pytest.approx([1 / 6, 5 / 9, 0, 5 / 18])
    assert kept(top_p=1e-9) == [0, 1, 0, 0]
    assert kept(min_p=0.29) == pytest.approx([1 / 6, 5 / 9, 0, 5 / 18])
    # top_p counts what top_k has left: 0.5 / 0.75 is enough for 0.6
    assert kept(top_k=2, top_p=0.6) == [0, 1, 0, 0]
    assert kept(top_k=9, top_p=1.0, min_p=0.0) == pytest.approx([0.15, 0.5, 0.1, 0.25])


def test_temperature_goes_from_the_argmax_to_uniform():
    logits = torch.tensor([1.0, 3.0, 2.0])
    assert distribution(logits, temperature=0).tolist() == [0, 1, 0]
    assert distribution(logits, temperature=1e-30).tolist() == [0, 1, 0]
    assert distribution(logits, temperature=2.0).tolist() == pytest.approx((logits / 2).softmax(0).tolist())
    assert distribution(logits, temperature=1e9).tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("setting", [dict(temperature=-1), dict(temperature=math.nan), dict(temperature=math.inf), dict(top_k=0),
                                     dict(top_k=1.5), dict(top_p=0), dict(top_p=1.1), dict(min_p=-0.1), dict(min_p=2)])
def test_a_setting_out_of_range_is_named(setting):
    name, value = next(iter(setting.items()))
    with pytest.raises(ValueError, match=rf"{name} must be .*got {value}"):
        distribution(torch.zeros(3), **setting)
    with pytest.raises(ValueError, match=f"{name} must be"):
        decode(build(), [[1]], max_new_tokens=1, **setting)


def test_sample_draws_from_p():
    p, n = torch.tensor([0.5, 0.0, 0.2, 0.3]), 20_000
    count = torch.bincount(sample(p.expand(n, 4), torch.Generator().manual_seed(0)), minlength=4)
    assert count[1] == 0
    assert chi_square(count[p > 0], p[p > 0] * n) < critical(2)


# greedy

@pytest.mark.parametrize("attention", ["mla", "mha", "gqa"])
def test_a_ragged_batch_writes_what_each_prompt_writes_alone(attention):
    model = build(attention=attention)
    expected = [without_cache(model, p, 13) for p in PROMPTS]
    assert decode(model, PROMPTS, max_new_tokens=13).tokens == expected
    assert [decode(model, [p], max_new_tokens=13).tokens[0] for p in PROMPTS] == expected
    assert decode(model, torch.tensor([PROMPTS[1]]), max_new_tokens=13).tokens == expected[1:2]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_drafts_never_change_a_greedy_token(depth, seed):
    attention, n_experts = ("mla", "mha", "gqa")[seed % 3], (5, 0)[seed // 3]
    model = build(seed, attention=attention, n_experts=n_experts, mtp_depth=depth)
    n_new = (3, 20)[seed % 2]
    plain = decode(model, PROMPTS, max_new_tokens=n_new)
    assert plain.tokens == [without_cache(model, p, n_new) for p in PROMPTS]
    for n_draft in (None, 1, 5):
        drafted = decode(model, PROMPTS, max_new_tokens=n_new, draft="mtp", n_draft=n_draft)
        assert drafted.tokens == plain.tokens
        assert drafted.n_passes <= plain.n_passes == n_new - 1
    alone = [decode(model, [p], max_new_tokens=n_new, draft="mtp").tokens[0] for p in PROMPTS]
    assert alone == plain.tokens


@pytest.mark.parametrize("stop", range(7))
def test_a_stop_token_ends_a_row_even_inside_a_draft(stop):
    model = bigram_model(mtp_depth=3)
    full = decode(model, PROMPTS, max_new_tokens=20).tokens
    expected = [t[:t.index(stop) + 1] if stop in t else t for t in full]
    assert decode(model, PROMPTS, max_new_tokens=20, stop_token=stop).tokens == expected
    assert decode(model, PROMPTS, max_new_tokens=20, stop_token=stop, draft="mtp").tokens == expected


@pytest.mark.parametrize("n_new", range(1, 10))
def test_the_last_token_may_fall_inside_a_draft(n_new):
    model = bigram_model(mtp_depth=3)
    out = decode(model, [[1, 2]], max_new_tokens=n_new, draft="mtp")
    assert out.tokens == decode(model, [[1, 2]], max_new_tokens=n_new).tokens
    # all drafts stand, so a pass gives 4 tokens; the prompt's pass gave the first
    assert out.n_passes == math.ceil((n_new - 1) / 4)


def test_a_text_may_fill_max_seq_len_to_the_last_token():
    model = bigram_model(mtp_depth=2)
    prompts = [[1] * 31, [2] * 3]
    plain = decode(model, prompts, max_new_tokens=10).tokens
    assert decode(model, prompts, max_new_tokens=10, draft="mtp", n_draft=6).tokens == plain
    with pytest.raises(ValueError, match=r"max_new_tokens must be at most max_seq_len - the prompt's length = 41 - 31, got 11; shorten"):
        decode(model, prompts, max_new_tokens=11)


# drafts

@pytest.mark.parametrize("depth, attention", list(itertools.product([1, 2, 3], ["mla", "gqa"])))
def test_a_draft_is_what_the_modules_say_without_a_cache(depth, attention, monkeypatch):
    model, checked = build(attention=attention, mtp_depth=depth, n_experts=0), []
    propose = Drafter.propose

    def checking(self, h, old, new, text, n_draft, sampling):
        q = propose(self, h, old, new, text, n_draft, sampling)
        for row, n in zip(text.tolist(), new):
            for k in range(1, min(n_draft, depth) + 1):
                with torch.no_grad():
                    expected = model(torch.tensor([row[:n + k]])).mtp_logits[k - 1][0, -1].argmax().item()
                assert row[n + k] == expected
                checked.append(k)
        return q

    monkeypatch.setattr(Drafter, "propose", checking)
    decode(model, PROMPTS, max_new_tokens=20, draft="mtp")
    assert set(checked) == set(range(1, depth + 1))


def test_the_last_module_drafts_further_from_its_own_output(monkeypatch):
    model = build(mtp_depth=1, n_experts=0)
    mtp, propose, checked = model.mtp[0], Drafter.propose, []

    def checking(self, h, old, new, text, n_draft, sampling):
        q = propose(self, h, old, new, text, n_draft, sampling)
        for row, n in zip(text.tolist(), new):
            with torch.no_grad():
                h = model(torch.tensor([row[:n + 1]])).hidden[0][:, :n]
                for k in range(1, n_draft + 1):
                    place = Place.of(model.rope, h.shape[1], "cpu")
                    last = mtp(h, model.embed(torch.tensor([row[1:n + k]])), place)[0][:, -1:]
                    assert row[n + k] == model.head(last).argmax().item()
                    h = torch.cat([h, last], dim=1)
                    checked.append(k)
        return q

    monkeypatch.setattr(Drafter, "propose", checking)
    decode(model, PROMPTS, max_new_tokens=15, draft="mtp", n_draft=4)
    assert set(checked) == {1, 2, 3, 4}


@pytest.mark.parametrize("n_draft", [1, 2, 5])
def test_a_pass_tells_its_drafts_and_how_many_of_them_stand(n_draft):
    model, passes = build(mtp_depth=2), [[] for _ in PROMPTS]
    out = decode(model, PROMPTS, max_new_tokens=19, draft="mtp", n_draft=n_draft, on_pass=lambda row, *told: passes[row].append(told))
    for told, text in zip(passes, (without_cache(model, p, 19 + n_draft) for p in PROMPTS)):
        assert told[0] == ([], 0)
        at = 1
        for drafts, n in told[1:]:
            # those that stand are the text's own, and the first that does not is not
            assert drafts[:n] == text[at:at + n] and (n == len(drafts) or drafts[n] != text[at + n])
            at += n + 1
        assert at >= 19
    checked = [one for told in passes for one in told]
    assert (sum(len(drafts) for drafts, _ in checked), sum(n for _, n in checked)) == (out.n_drafted, out.n_accepted)
    assert len(checked) == len(PROMPTS) + out.n_row_passes


def test_right_drafts_make_a_pass_worth_one_token_more_each():
    model = bigram_model(mtp_depth=2)
    plain = decode(model, PROMPTS, max_new_tokens=19)
    out = decode(model, PROMPTS, max_new_tokens=19, draft="mtp")
    assert (plain.n_passes, plain.n_row_passes, plain.n_drafted, plain.tokens_per_pass) == (18, 72, 0, 1.0)
    assert (out.n_passes, out.n_row_passes, out.n_drafted, out.acceptance, out.tokens_per_pass) == (6, 24, 48, 1.0, 3.0)
    assert math.isnan(plain.acceptance)
    # float64: C + Dr = 17 values a token and layer, for 4 rows of up to 11 + 19 tokens
    assert plain.cache_bytes == 4 * 30 * 17 * 2 * 8
    assert out.cache_bytes == plain.cache_bytes * 2


# sampled

def exact_law(model, prompt, **settings):
    """p(a, b, c | prompt) for all continuations of three tokens, from full passes: 343 numbers."""
    V = model.config.vocab_size
    texts = torch.tensor([[*prompt, *abc] for abc in itertools.product(range(V), repeat=3)])
    with torch.no_grad():
        p = distribution(model(texts).logits, **settings)[:, len(prompt) - 1:-1]
    return p.gather(2, texts[:, len(prompt):, None]).prod(1).flatten()


def chi_square(count, expected):
    """Pearson's statistic, cells expected fewer than 5 times taken as one."""
    rare = expected < 5
    count, expected = (torch.cat([x[~rare].double(), x[rare].double().sum()[None]]) for x in (count, expected))
    count, expected = (count[:-1], expected[:-1]) if expected[-1] == count[-1] == 0 else (count, expected)
    return (((count - expected) ** 2) / expected).sum().item()


def critical(df, z=3.72):
    """What chi-square with df degrees of freedom exceeds with probability 1e-4 (Wilson and Hilferty, 1931)."""
    return df * (1 - 2 / (9 * df) + z * math.sqrt(2 / (9 * df))) ** 3


def statistic(model, prompts, n=10_000, n_draft=None, **settings):
    """Chi-square of n sampled continuations of each prompt against the exact law, as a share of the critical value."""
    out = decode(model, prompts * n, max_new_tokens=3, draft="mtp" if model.mtp else None, n_draft=n_draft,
                 generator=torch.Generator().manual_seed(1), **settings)
    shares = []
    for i, prompt in enumerate(prompts):
        a, b, c = torch.tensor(out.tokens[i::len(prompts)]).T
        count = torch.bincount(a * 49 + b * 7 + c, minlength=343)
        expected = exact_law(model, prompt, **settings) * n
        shares.append(chi_square(count, expected) / critical(max(int((expected >= 5).sum()), 1)))
    return max(shares)


CASES = [dict(temperature=1.0), dict(temperature=0.7, top_k=4), dict(temperature=1.5, top_p=0.8), dict(temperature=1.0, min_p=0.2)]


@pytest.mark.parametrize("settings", CASES, ids=str)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_sampled_text_has_the_exact_law_with_drafts_and_without(depth, settings):
    # significance 1e-4 a case; the seeds are fixed, so the test does not flicker
    model = build(2, mtp_depth=depth, n_experts=0, attention="mha")
    assert statistic(model, [[1, 2, 3], [5]], **settings) < 1


def test_the_law_is_exact_when_the_last_module_drafts_twice():
    assert statistic(build(3, mtp_depth=1), [[1, 2, 3]], n=5_000, n_draft=2, temperature=1.0) < 1


def accept_all(self, logits, draft, q):
    n, p = draft.shape[1], self.distribution(logits)
    return torch.cat([draft, sample(p[:, -1], self.generator)[:, None]], dim=1), [n] * len(draft)


MUTANTS = {
    "every draft is accepted": (Sampling, "verify", accept_all),
    "a rejected draft is replaced from p": ("minimodels.sampling", "residual", lambda p, q: p),
    "a rejected draft is replaced from |p - q|": ("minimodels.sampling", "residual", lambda p, q: (p - q).abs()),
    "q leaves out the temperature": (Sampling, "draft", lambda self, logits: (sample(self.distribution(logits), self.generator),
                                                                              logits.softmax(-1))),
    "drafts are greedy, but q is not": (Sampling, "draft", lambda self, logits: (logits.argmax(-1), self.distribution(logits))),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_test_of_the_law_fails_a_wrong_rule(name, monkeypatch):
    target, attribute, wrong = MUTANTS[name]
    monkeypatch.setattr(*((f"{target}.{attribute}", wrong) if isinstance(target, str) else (target, attribute, wrong)))
    assert statistic(build(2, mtp_depth=1, n_experts=0, attention="mha"), [[1, 2, 3], [5]], temperature=0.5) > 1


def test_equal_generators_draw_equal_text():
    model = build()
    draws = [decode(model, PROMPTS, max_new_tokens=9, temperature=1.0, draft="mtp", generator=torch.Generator().manual_seed(s)).tokens
             for s in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]


# edges

def test_the_model_is_left_as_it_was():
    model = build().train()
    decode(model, [[1]], max_new_tokens=2, draft="mtp")
    assert model.training
    model.eval()
    decode(model, [[1]], max_new_tokens=2)
    assert not model.training


def test_tokens_are_handed_on_in_order_as_soon_as_they_are_certain():
    seen = {row: [] for row in range(4)}
    out = decode(build(), PROMPTS, max_new_tokens=9, draft="mtp", on_token=lambda row, token: seen[row].append(token))
    assert list(seen.values()) == out.tokens


@pytest.mark.parametrize("tokens, settings, message", [
    ([], {}, "tokens must be at least one prompt"),
    ([[1], []], {}, "tokens must be at least one prompt of at least one token"),
    ([[1, 7]], {}, r"tokens must be in \[0, vocab_size=7\), got 7"),
    ([[1]], dict(max_new_tokens=0), "max_new_tokens must be at least 1, got 0"),
    ([[1]], dict(draft="eagle"), "draft must be 'mtp', or None for no drafts, got 'eagle'"),
    ([[1]], dict(n_draft=2), "n_draft must be None without draft='mtp', got 2"),
    ([[1]], dict(draft="mtp", n_draft=0), "n_draft must be at least 1, got 0"),
])
def test_a_wrong_call_is_refused_in_one_clear_line(tokens, settings, message):
    with pytest.raises(ValueError, match=message):
        decode(build(), tokens, **{"max_new_tokens": 3, **settings})


def test_a_model_without_modules_cannot_draft():
    with pytest.raises(ValueError, match="draft must be None for a model with mtp_depth=0, got 'mtp'"):
        decode(build(mtp_depth=0), [[1]], max_new_tokens=3, draft="mtp")


# text

@pytest.fixture(scope="module")
def speaker():
    tokenizer = train_tokenizer(["def main():\n    return 'naïve café 😀'\n" * 9], 300)
    torch.manual_seed(5)
    model = Transformer(replace(TINY, vocab_size=tokenizer.get_vocab_size()))
    model.tokenizer = tokenizer
    return model


def test_generate_returns_the_continuation_alone(speaker):
    prompts = ["def main(", "", "café"]
    texts = generate(speaker, prompts, max_new_tokens=11)
    ids = [speaker.tokenizer.encode(p).ids or [0] for p in prompts]
    expected = [speaker.tokenizer.decode(t) for t in decode(speaker, ids, max_new_tokens=11, stop_token=0).tokens]
    assert texts == expected
    assert generate(speaker, prompts[0], max_new_tokens=11) == texts[0]
    assert generate(speaker, prompts[0], max_new_tokens=11, draft="mtp") == texts[0]


def test_generate_refuses_what_it_cannot_read(speaker):
    with pytest.raises(ValueError, match="tokenizer must be given for a model that was loaded without one"):
        generate(build(), "a")
    with pytest.raises(ValueError, match="max_seq_len - the prompt's length"):
        generate(speaker, "é?" * 50)
    assert encode(speaker.tokenizer, "") == [0]


def test_a_stream_writes_whole_characters_and_loses_none(speaker):
    text, pieces = "naïve 😀 café", []
    stream = TextStream(speaker.tokenizer, pieces.append)
    for token in byte_tokens(speaker.tokenizer, text):
        stream(0, token)
    assert "".join(pieces) == text and not any("\ufffd" in piece for piece in pieces)
    for token in byte_tokens(speaker.tokenizer, "😀")[:2]:
        stream(0, token)
    assert "".join(pieces) == text
    stream.close()
    assert "".join(pieces).startswith(text + "\ufffd")


def byte_tokens(tokenizer, text):
    """The text as one token a byte, so that characters are split."""
    from tokenizers.pre_tokenizers import ByteLevel
    pieces = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return [tokenizer.token_to_id(character) for piece, _ in pieces for character in piece]

"""Which expert gets which token: a few texts as a trained model routes them, and what kinds of token each expert was sent."""

import math

import traitlets as t

from minimodels.explorables.attention_pattern import LETTERS, percent, shown
from minimodels.explorables.base import Explorable, table
from minimodels.kinds import KINDS, of_tokens

STEPS = len(LETTERS)**2 - 1     # a weight of n/4095 is two letters
FEW = 5                         # where an expert got fewer tokens of a kind, and chance gives it fewer, a ratio says little
WINDOW = 256                    # tokens that the book's models are trained on at once
PASSES = ("first", "any")       # what counts: the first choice of a token, or all its choices


def letters(choices) -> str:
    """The choices of T tokens, (T, K) pairs of expert and weight, as three letters a choice: the expert, and its weight in two."""
    return "".join(LETTERS[e] + LETTERS[n // len(LETTERS)] + LETTERS[n % len(LETTERS)]
                   for token in choices for e, n in ((e, round(STEPS * w)) for e, w in token))


def counted(kinds: list[int], chosen, n_experts: int) -> list[list[list[int]]]:
    """How many tokens of each kind went to each expert, by first choices and by all: (2, number of KINDS, E).

    kinds: of each token, its place in KINDS. chosen: (T, K) experts, the first choice first.
    """
    counts = [[[0] * n_experts for _ in KINDS] for _ in PASSES]
    for kind, experts in zip(kinds, chosen, strict=True):
        counts[0][kind][experts[0]] += 1
        for e in experts:
            counts[1][kind][e] += 1
    return counts


# four tokens, four experts, two a token: what a piece shows that is given no model
_HAND = [[(2, 0.7), (0, 0.3)], [(1, 0.6), (2, 0.4)], [(3, 0.5), (1, 0.5)], [(1, 0.9), (3, 0.1)]]
_HAND_KINDS = [KINDS.index(kind) for kind in ("keyword", "name", "white space", "name")]
BY_HAND = {"texts": [{"name": "by hand", "tokens": ["def", " add", "():\n  ", "it"], "kinds": _HAND_KINDS, "choices": [letters(_HAND)]}],
           "n_experts": 4, "top_k": 2, "counts": [counted(_HAND_KINDS, [[e for e, _ in token] for token in _HAND], 4)]}


class ExpertText(Explorable):
    """Each token of some texts with the expert that it is sent to in a layer; one expert's tokens can be made to stand out.

    Of a token's K choices the first is the one with the largest weight. An expert's row of the table compares, for each kind of token,

        share = its tokens of that kind / all its tokens,   by chance = all tokens of that kind / all tokens,   times = share / by chance

    so 1 is what a gate that throws dice would give. Weights are shares of a token's routed sum, in steps of 1/4095.
    Source: DeepSeek-V3 eqs. 12-16 for the routing. Left out: shared experts, which get every token, and the text before a token, by
    which a gate may choose too.
    """

    name = "expert_text"

    texts = t.List(BY_HAND["texts"]).tag(sync=True)
    kinds = t.List(list(KINDS)).tag(sync=True)
    layers = t.List([0]).tag(sync=True)                    # those that have experts, as the model numbers them
    n_experts = t.Int(BY_HAND["n_experts"], min=1).tag(sync=True)
    top_k = t.Int(BY_HAND["top_k"], min=1).tag(sync=True)
    counts = t.List(BY_HAND["counts"]).tag(sync=True)      # (layers, first or any, kinds, E)
    source = t.Unicode("the texts above").tag(sync=True)   # what was counted, in words
    text = t.Int(0, min=0).tag(sync=True)
    layer = t.Int(0, min=0).tag(sync=True)                 # one of layers
    expert = t.Int(-1, min=-1).tag(sync=True)              # the one that stands out; -1: none
    token = t.Int(0, min=0).tag(sync=True)                 # the one whose choices are shown
    count = t.Enum(PASSES, "first").tag(sync=True)

    @classmethod
    def of(cls, model, texts: dict[str, str], *, also: list[str] = (), **values) -> "ExpertText":
        """What a model with a tokenizer does with texts {name: text}; values go on top. Without a value for layer it is the last one.

        also: texts that are counted and not shown (give `source` as well); they are read in windows of 256 tokens. A few hundred
        tokens a text are too few for a table to be trusted.
        Raises ValueError for a model without experts or with more than 64, and for a layer or an expert that it does not have.
        """
        import torch

        from minimodels.data import token_bytes

        config = model.config
        layers = [i for i in range(config.n_layers) if config.is_moe_layer(i)]
        if not layers or config.n_experts > len(LETTERS):
            raise ValueError(f"model must have experts, at most {len(LETTERS)}, got n_experts={config.n_experts} in {len(layers)} layers")
        for what, allowed in ("layer", layers), ("expert", range(-1, config.n_experts)):
            if values.get(what, allowed[-1]) not in allowed:
                raise ValueError(f"{what} must be one of {', '.join(map(str, allowed))}, got {values[what]}")
        sizes, device = token_bytes(model.tokenizer), model.embed.weight.device

        def routed(ids):
            """For each layer: experts and weights (T, K), the largest weight first."""
            with torch.inference_mode():
                routing = model(torch.tensor([ids], device=device)).routing
            for layer in layers:
                weight, order = routing[layer].weight.sort(dim=-1, descending=True, stable=True)
                yield routing[layer].expert.gather(1, order).tolist(), (weight / weight.sum(-1, keepdim=True)).tolist()

        counts, facts = [counted([], [], config.n_experts) for _ in layers], []
        for name, text in [*texts.items(), *((None, text) for text in also)]:
            ids = model.tokenizer.encode(text).ids
            kinds = [KINDS.index(kind) for kind in of_tokens(text, sizes[ids].tolist())]
            choices, window = [], max(1, len(ids) if name is not None else WINDOW)
            for start in range(0, len(ids), window):
                for i, (experts, weights) in enumerate(routed(ids[start:start + window])):
                    _add(counts[i], counted(kinds[start:start + window], experts, config.n_experts))
                    choices.append(letters(map(zip, experts, weights)))
            if name is not None:
                facts.append({"name": name, "tokens": pieces(text, sizes[ids].tolist()), "kinds": kinds, "choices": choices})
        return cls(**{"layer": layers[-1]} | values, texts=facts, layers=layers, n_experts=config.n_experts, top_k=config.top_k, counts=counts)

    def choices(self, token: int | None = None) -> list[tuple[int, float]]:
        """The experts of a token (default: the chosen one) in the chosen layer, with their weights, the largest first."""
        line = self.texts[self.text]["choices"][self.layers.index(self.layer)]
        at = 3 * self.top_k * (self.token if token is None else token)
        n = [LETTERS.index(letter) for letter in line[at:at + 3 * self.top_k]]
        return [(e, (len(LETTERS) * high + low) / STEPS) for e, high, low in zip(n[::3], n[1::3], n[2::3])]

    def ranks(self) -> list[int]:
        """Of each token of the text, which of its choices the chosen expert is: 0 the first, -1 none."""
        experts = [[e for e, _ in self.choices(i)] for i in range(len(self.texts[self.text]["tokens"]))]
        return [line.index(self.expert) if self.expert in line else -1 for line in experts]

    def numbers(self) -> list[dict]:
        """A row of the table for each kind that occurs: its place in `kinds`, its tokens, and the chosen expert's or the favourite's part."""
        counts = self.counts[self.layers.index(self.layer)]
        every, number = [sum(line) for line in counts[0]], counts[PASSES.index(self.count)]
        rows, own = [], sum(line[self.expert] for line in number)
        for kind, n in enumerate(every):
            chance = n / sum(every) if n else 0
            if n and self.expert < 0:
                best = number[kind].index(max(number[kind]))
                rows.append({"kind": kind, "n": n, "share": chance, "best": best, "part": number[kind][best] / n})
            elif n:
                got = number[kind][self.expert]
                share = got / own if own else 0
                rows.append({"kind": kind, "n": got, "share": share, "chance": chance, "times": share / chance,
                             "is_few": max(got, chance * own) < FEW})
        return rows

    def head(self) -> list[str]:
        return ["Kind", "Tokens", "Share", *(("By chance", "Times") if self.expert >= 0 else ("Most go to", "Of them"))]

    def cells(self) -> list[list[str]]:
        """The table in words, as the page shows it."""
        last = (lambda row: (percent(row["chance"]), times(row))) if self.expert >= 0 else (lambda row: (str(row["best"]), percent(row["part"])))
        return [[self.kinds[row["kind"]], f"{row['n']:,}", percent(row["share"]), *last(row)] for row in self.numbers()]

    def sentence(self) -> str:
        """What the table says, in a line or two."""
        rows, n = self.numbers(), sum(sum(line) for line in self.counts[self.layers.index(self.layer)][0])
        if self.expert < 0:
            return f"Layer {self.layer}, {n:,} tokens. Choose an expert, and its tokens stand out."
        what, k = ("the first choice", 1) if self.count == "first" else (f"among the {self.top_k} choices", self.top_k)
        even = math.floor(n * k / self.n_experts + 0.5)
        told = f"In layer {self.layer}, expert {self.expert} is {what} of {sum(row['n'] for row in rows):,} of {n:,} tokens; an even share is {even:,}."
        sure = [row for row in rows if not row["is_few"]]
        most = max(sure, key=lambda row: row["times"], default={"times": 0})
        if most["times"] > 1:
            told += f" Most above chance: {self.kinds[most['kind']]}, {times(most)} times ({most['n']:,} tokens)."
        return told

    def summary(self) -> str:
        return f"{self.texts[self.text]['name']}, {shown(self.texts[self.text]['tokens'][self.token])} goes to " + \
            ", ".join(f"{e} ({percent(w)})" for e, w in self.choices()) + f". {self.sentence()}"

    def fallback(self) -> str:
        return table(f"{self.sentence()} Counted: {self.source}.", self.head(), self.cells())


def _add(counts, more):
    for line, other in zip((line for part in counts for line in part), (line for part in more for line in part), strict=True):
        line[:] = [a + b for a, b in zip(line, other, strict=True)]


def pieces(text: str, sizes: list[int]) -> list[str]:
    """The text of each token; the bytes of a character that several tokens share are written as numbers, '‹F0›'."""
    data, start, found = text.encode(), 0, []
    for size in sizes:
        piece, start = data[start:start + size], start + size
        try:
            found.append(piece.decode())
        except UnicodeDecodeError:
            found.append("".join(chr(byte) if byte < 128 else f"‹{byte:02X}›" for byte in piece))
    return found


def times(row: dict) -> str:
    """One digit after the point, halves up; what rests on few tokens says so."""
    return f"{math.floor(10 * row['times'] + 0.5) / 10:.1f}" + (" (few)" if row["is_few"] else "")

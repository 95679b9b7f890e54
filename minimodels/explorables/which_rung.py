"""Which rung of the efficiency ladder for what: the reader's prices, the recorded figures, and a bill for every rung."""

from functools import reduce
from operator import add

import traitlets as t

from minimodels.explorables.base import COUNTS, Explorable, figures, table, with_unit
from minimodels.ladder import rungs as ladder
from minimodels.studies import recorded
from minimodels.studies.together import PROMPT, Measured

KNOBS = ("tokens", "texts", "context", "train_price", "write_price", "memory_price", "bit_price")
PARTS = {"training": "training", "writing": "writing", "memory": "memory", "score": "its score"}
NOTES = {"+ FP8": "eight bits are emulated here, which takes longer"}
PURPOSES = {
    "A phone, one text": dict(tokens=1e6, texts=1, context=1024, train_price=0.0, write_price=50.0, memory_price=50.0, bit_price=0.1,
                              says="Somebody else has paid for training. You wait for every word, and memory is scarce."),
    "A server, 32 texts": dict(tokens=1e9, texts=32, context=1024, train_price=5.0, write_price=5.0, memory_price=0.5, bit_price=0.1,
                               says="A billion tokens, 32 texts side by side: the training is soon forgotten."),
    "A long context": dict(tokens=1e8, texts=32, context=131_072, train_price=5.0, write_price=5.0, memory_price=0.5, bit_price=0.1,
                           says=f"32 texts of 131,072 tokens each, whose caches stay in memory as long as the writing takes; its speed is still that behind {PROMPT}."),
    "A fixed training bill": dict(tokens=0.0, texts=1, context=1024, train_price=5.0, write_price=5.0, memory_price=0.5, bit_price=0.01,
                                  says="Nothing but training and its score: a bit costs what the dense model pays for it in longer training, up to 1,000 steps."),
    "No more text to train on": dict(tokens=0.0, texts=1, context=1024, train_price=5.0, write_price=5.0, memory_price=0.5, bit_price=1.0,
                                     says="The text is used up, and more steps would only repeat it: let a hundredth of a bit be worth a whole cent."),
}
BY_HAND = [    # three models with round figures, for an example whose bills are told by hand
    {"name": "fast", "bits": [2.0, 2.0], "train_s": [3600, 3600], "write_ms": {"1": [3.6, 3.6], "32": [0.36, 0.36]},
     "params": {"1": 500_000, "32": 500_000}, "cache_bytes": 2000, "note": {}},
    {"name": "small", "bits": [2.1, 2.1], "train_s": [3600, 3600], "write_ms": {"1": [7.2, 7.2], "32": [0.36, 0.36]},
     "params": {"1": 500_000, "32": 500_000}, "cache_bytes": 500, "note": {}},
    {"name": "good", "bits": [1.8, 1.9], "train_s": [7200, 7200], "write_ms": {"1": [7.2, 7.2], "32": [0.72, 0.72]},
     "params": {"1": 2_500_000, "32": 2_500_000}, "cache_bytes": 2000, "note": {}},
]


class WhichRung(Explorable):
    """What each rung costs for a purpose, in cents: training, writing, memory while it writes, and what its score lacks.

        training = hours x train_price              hours to train on the tokens of the record
        writing  = hours x write_price              hours = tokens x seconds a token, with `texts` side by side
        memory   = hours x GB x memory_price        GB = 2 x parameters + cache bytes a token x context x texts, in 10^9
        score    = 100 (bits - least bits) x bit_price

    Prices are the reader's; all else is recorded (`measured`), a figure a seed, or counted. A model with an MTP module writes with
    drafts where that is faster. Left out: memory to train, and that a longer context slows every rung.
    """

    name = "which_rung"

    tokens = t.Float(min=0.0).tag(sync=True)           # to write, in all
    texts = t.Enum([1, 32]).tag(sync=True)             # written side by side
    context = t.Int(min=1).tag(sync=True)              # tokens of a text, whose cache is kept
    train_price = t.Float(min=0.0).tag(sync=True)      # of an hour, in cents
    write_price = t.Float(min=0.0).tag(sync=True)      # of an hour
    memory_price = t.Float(min=0.0).tag(sync=True)     # of a GB for an hour
    bit_price = t.Float(min=0.0).tag(sync=True)        # of a hundredth of a bit per byte
    rungs = t.List(BY_HAND).tag(sync=True)
    presets = t.Dict(PURPOSES).tag(sync=True)
    about = t.Unicode("By hand").tag(sync=True)        # what the figures are

    def __init__(self, **values):
        """What values do not name is the first purpose's."""
        purpose = next(iter(values.get("presets", PURPOSES).values()))
        super().__init__(**{key: purpose[key] for key in KNOBS} | values)

    @classmethod
    def of(cls, table: list[Measured], tier: str = "cpu", **values) -> "WhichRung":
        """The recorded ladder of a tier; values go on top. A fixed training bill prices bits as the dense model does by training on."""
        facts = [fact(row, rung) for row, rung in zip(table, ladder(tier), strict=True)]
        bill = PURPOSES["A fixed training bill"]
        dense, training = facts[0], ladder(tier)[0].training
        price = seconds_a_hundredth(mean(dense["train_s"]) / training.steps) / 3600 * bill["train_price"]
        about = (f"Every model trained on the same {with_unit(training.steps * training.batch_size * training.seq_len, COUNTS)} tokens. Speeds are those behind "
                 f"{PROMPT} tokens; memory is counted, weights and cache at two bytes a number. Score: what its bits above the best rung's are worth "
                 f"to you. Means of {min(map(seeds_of, facts))} seeds; the prices are yours.")
        presets = PURPOSES | {"A fixed training bill": bill | {"bit_price": round(price, 4)}}
        return cls(**{"rungs": facts, "presets": presets, "about": about} | values)

    @property
    def purpose(self) -> str | None:
        """The purpose that sets just these knobs, or None."""
        return next((name for name, p in self.presets.items() if all(p[key] == getattr(self, key) for key in KNOBS)), None)

    def parts(self, pick=None) -> list[list[float]]:
        """The four parts of every rung's bill, cents. pick: of a list with a figure a seed the one that counts; its mean if None."""
        pick = pick or mean
        best = min(mean(rung["bits"]) for rung in self.rungs)
        found = []
        for rung in self.rungs:
            hours = self.tokens * pick(rung["write_ms"][str(self.texts)]) / 1000 / 3600
            gb = (2 * rung["params"][str(self.texts)] + rung["cache_bytes"] * self.context * self.texts) / 1e9
            found.append([pick(rung["train_s"]) / 3600 * self.train_price, hours * self.write_price, hours * gb * self.memory_price,
                          (pick(rung["bits"]) - best) * 100 * self.bit_price])
        return found

    def bills(self, pick=None) -> list[float]:
        """The sum of the four parts of every rung."""
        return [total(parts) for parts in self.parts(pick)]

    def seeds_won(self) -> tuple[int, int]:
        """With how many seeds the rung that is cheapest in the mean is cheapest, and how many there are."""
        first, n = cheapest(self.bills()), min(map(seeds_of, self.rungs))
        return sum(cheapest(self.bills(lambda each: each[i])) == first for i in range(n)), n

    def turns(self) -> list[tuple[float, str] | None]:
        """Below and above which number of tokens to write another rung is cheapest, and which; None where none is.

        A bill is a line in the tokens: what is paid once, and the price of a token.
        """
        one = {key: getattr(self, key) for key in KNOBS}
        at = [type(self)(rungs=self.rungs, presets=self.presets, **one | {"tokens": n}).bills() for n in (0.0, 1e6)]
        once, each = at[0], [(b - a) / 1e6 for a, b in zip(*at)]
        first = cheapest(self.bills())
        cross = [((once[i] - once[first]) / (each[first] - each[i]), i) for i in range(len(each)) if abs(each[first] - each[i]) > 1e-15]
        below = [(n, i) for n, i in cross if each[i] > each[first] and n > 0]
        above = [(n, i) for n, i in cross if each[i] < each[first] and n > 0]
        named = [max(below, default=None), min(above, default=None)]
        return [found and (found[0], self.rungs[found[1]]["name"]) for found in named]

    def beaten_by(self) -> list[str]:
        """For each rung another that is as good or better in everything that is paid for, and in something better; '' where none is."""
        key = str(self.texts)
        sizes = [[mean(rung["train_s"]), mean(rung["write_ms"][key]), rung["params"][key], rung["cache_bytes"], mean(rung["bits"])] for rung in self.rungs]
        return [next((self.rungs[j]["name"] for j, other in enumerate(sizes) if other != own and all(a <= b for a, b in zip(other, own))), "")
                for own in sizes]

    def said(self) -> str:
        """The answer in words: what is cheapest, how sure that is, what the next one costs more, and where the answer turns."""
        bills, parts, names = self.bills(), self.parts(), [rung["name"] for rung in self.rungs]
        if max(bills) - min(bills) < 1e-9:
            return "At these prices it is all one: every rung costs the same."
        first, (won, n) = cheapest(bills), self.seeds_won()
        second = cheapest([float("inf") if i == first else bill for i, bill in enumerate(bills)])
        seeds = f"in each of {n} runs" if won == n else f"but in {won} of {n} runs only"
        more = [(b - a, words) for a, b, words in zip(parts[first], parts[second], PARTS.values())]
        least = max(abs(by) for by, _ in more) / 20    # what is less does not explain much
        why = ", ".join(f"{money(abs(by))} {'more' if by > 0 else 'less'} for {words}" for by, words in more if abs(by) >= least)
        below, above = self.turns()
        lower, upper = (found and f"{with_unit(found[0], COUNTS)} tokens to write, {found[1]} would be cheapest" for found in (below, above))
        end = f"Below {lower}" if below else f"Above {upper}" if above else "It stays so however much is written"
        end += f"; above {with_unit(above[0], COUNTS)}, {above[1]}" if below and above else ""
        return (f"The cheapest is {names[first]}, {money(bills[first])}, {seeds}. Next comes {names[second]}, {money(bills[second])}"
                f"{': ' + why if why else ''}. {end}.")

    def beside(self) -> list[str]:
        """Each bill beside the least, in words."""
        bills = self.bills()
        least, first = min(bills), cheapest(bills)
        return ["cheapest" if i == first else "dearer" if least <= 0 else f"+{figures(100 * (bill / least - 1))} %" if bill < 2 * least
                else f"{figures(bill / least)} times" for i, bill in enumerate(bills)]

    def notes(self) -> list[str]:
        """Below each bar: the parts of its bill, and what else there is to say."""
        more = [f"never cheapest: {by} is as good or better in everything" if by else "" for by in self.beaten_by()]
        return ["; ".join(filter(None, [", ".join(f"{words} {money(part)}" for words, part in zip(PARTS, parts)), rung["note"].get(str(self.texts)), never]))
                for rung, parts, never in zip(self.rungs, self.parts(), more)]

    def summary(self) -> str:
        return f"{self.purpose or 'Your own prices'}: {self.said()}"

    def fallback(self) -> str:
        rows = [[rung["name"], *map(money, [*parts, bill])] for rung, parts, bill in zip(self.rungs, self.parts(), self.bills())]
        ends = []
        for name, knobs in self.presets.items():
            one = type(self)(rungs=self.rungs, presets=self.presets, **{key: knobs[key] for key in KNOBS})
            bills, (won, n) = one.bills(), one.seeds_won()
            first = cheapest(bills)
            ends.append([name, self.rungs[first]["name"], money(bills[first]), f"{won} of {n}"])
        return "\n".join([table("The cheapest rung by purpose", ["Purpose", "Cheapest", "Its bill", "With seeds"], ends),
                          table(f"{self.purpose or 'Your own prices'}. {self.about}", ["Rung", *(part.capitalize() for part in PARTS), "Bill"], rows)])


def fact(row: Measured, rung) -> dict:
    """What the page knows of a rung: bits and seconds a seed, and by texts side by side the faster way to write."""
    training, write, params, note = rung.training, {}, {}, {}
    for B, plain in row.decode_tokens_per_s.items():
        drafting = row.drafting_tokens_per_s.get(B)
        faster = drafting is not None and mean(drafting) > mean(plain)
        write[str(B)] = [float(f"{1000 / speed:.4g}") for speed in (drafting if faster else plain)]
        params[str(B)] = row.n_params + (rung.model.parameters["mtp"] if faster else 0)
        note[str(B)] = "; ".join(filter(None, [NOTES.get(row.name), faster and "writes with drafts"]))
    tokens = training.steps * training.batch_size * training.seq_len
    return {"name": row.name, "bits": [round(bits, 4) for bits in row.bits_per_byte], "train_s": [round(tokens / speed, 1) for speed in row.train_tokens_per_s],
            "write_ms": write, "params": params, "cache_bytes": row.cache_bytes, "note": {B: words for B, words in note.items() if words}}


def seeds_of(rung: dict) -> int:
    """Seeds of which everything is known."""
    return min(map(len, [rung["bits"], rung["train_s"], *rung["write_ms"].values()]))


def seconds_a_hundredth(step_seconds: float) -> float:
    """Seconds in which the dense model gains a hundredth of a bit per byte, by training for 1,000 steps and not 600."""
    short, long = ([t["bits_per_byte"] for t in recorded(name)["trials"] if t["arm"] == arm] for name, arm in (("mla-quality", "mha"), ("moe-seconds", "dense")))
    return step_seconds * (1000 - 600) / (100 * (mean(short) - mean(long)))


def total(values: list[float]) -> float:
    """The sum from first to last, as the script does it."""
    return reduce(add, values)


def mean(values: list[float]) -> float:
    return total(values) / len(values)


def cheapest(bills: list[float]) -> int:
    """The place of the least, the first of equals."""
    return min(range(len(bills)), key=bills.__getitem__)


def money(cents: float) -> str:
    """Cents, or dollars from ten, in one piece: '31.2 ¢', '$12.5'."""
    if cents < 0:
        return f"−{money(-cents)}" if figures(-cents) != "0" else "0\u00a0¢"
    return f"${figures(cents / 100)}" if cents >= 1000 else f"{figures(cents)}\u00a0¢"

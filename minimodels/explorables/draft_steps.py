"""What drafts save, pass by pass: a generation as it went, with what the MTP module proposed and what the main model made of it."""

import traitlets as t

from minimodels.explorables.base import Explorable, figures, table

SHOWN = 8       # passes that the table lists, at most

# an example by hand: what a pass writes is n drafts that stand, and one token more
BY_HAND = {"name": "by hand", "prompt": "one two", "tokens": [" three", " four", " five", " six", " seven"],
           "passes": [[1, " four"], [0, " nine"], [0]]}


def record(model, name: str, prompt: str, *, max_new_tokens: int, n_draft: int | None = None) -> dict:
    """One run for `runs`: greedy text after the prompt, with what each pass after the prompt's checked: [n that stand, *drafts].

    The text is that of `decode` without drafts, which is asserted, and which takes a pass for each token after the first.
    """
    from minimodels.corpus import END
    from minimodels.generate import decode, encode

    passes, ids, stop = [], encode(model.tokenizer, prompt), model.tokenizer.token_to_id(END)

    def word(token):
        return model.tokenizer.decode([token], skip_special_tokens=False)

    drafted = decode(model, [ids], max_new_tokens=max_new_tokens, stop_token=stop, draft="mtp", n_draft=n_draft,
                     on_pass=lambda row, drafts, n: passes.append([n, *map(word, drafts)]))
    plain = decode(model, [ids], max_new_tokens=max_new_tokens, stop_token=stop)
    assert drafted.tokens == plain.tokens, "drafts changed the text: two logits tie to the last bit"
    assert plain.n_passes == len(plain.tokens[0]) - 1 and drafted.n_passes == len(passes) - 1
    return {"name": name, "prompt": prompt, "tokens": [word(token) for token in plain.tokens[0]], "passes": passes[1:]}


class DraftSteps(Explorable):
    """Generations with drafts, which the reader steps through pass by pass, beside the same text without drafts.

    A pass of the main model reads its last token and n drafts, and writes the a drafts that are what it would have written, and
    one token more: a + 1 tokens, where a pass without drafts writes one. Passes and tokens are counted after the pass that reads
    the prompt, which writes the first token either way, as `Generation.tokens_per_pass` counts them.
    Source: Leviathan et al. (2023), section 2; DeepSeek-V3, section 5.4.3, for MTP modules as drafters.
    """

    name = "draft_steps"

    runs = t.List([BY_HAND]).tag(sync=True)
    run = t.Int(0, min=0).tag(sync=True)
    step = t.Int(0, min=0).tag(sync=True)       # passes so far; beyond the last, all

    @classmethod
    def of(cls, model, prompts: dict[str, str], *, max_new_tokens: int = 48, n_draft: int | None = None, **values) -> "DraftSteps":
        """What a model with MTP modules and a tokenizer writes after each prompt {name: text}; values go on top."""
        runs = [record(model, name, prompt, max_new_tokens=max_new_tokens, n_draft=n_draft) for name, prompt in prompts.items()]
        return cls(runs=runs, **values)

    def counts(self, step: int | None = None) -> dict[str, int]:
        """Of the chosen run after so many passes (self.step if None): passes, tokens, and drafts that were checked and that stand."""
        run = self.runs[self.run]
        done = run["passes"][:self.step if step is None else step]
        tokens = min(sum(n + 1 for n, *_ in done), len(run["tokens"]) - 1)
        return {"passes": len(done), "tokens": tokens, "drafted": sum(len(drafts) for _, *drafts in done), "accepted": sum(n for n, *_ in done)}

    def said(self) -> str:
        """What the last pass did, in words."""
        run, c = self.runs[self.run], self.counts()
        step, tokens = c["passes"], run["tokens"]
        waiting = listed(run["passes"][step][1:]) if step < len(run["passes"]) else ""
        ahead = f" The module drafts {waiting}." if waiting else ""
        if step == 0:
            return f"The pass that reads the prompt writes {shown(tokens[0])}.{ahead}"
        n, *drafts = run["passes"][step - 1]
        new = tokens[1 + self.counts(step - 1)["tokens"]:1 + c["tokens"]]
        wrote = f"{len(new)} tokens" if len(new) > 1 else "one token"
        end = f" The text is complete: {c['tokens']} tokens in {step} passes; without drafts it takes {c['tokens']}."
        falls = f"rejects {listed(drafts[n:])}, " if n < len(drafts) else ""
        if not drafts:
            what = f"has no draft to check, and writes {shown(new[-1])}"
        elif n == 0:
            what = f"rejects {listed(drafts)}, and writes {shown(new[-1])} instead"
        elif len(new) <= n:
            what = f"accepts {listed(new)}, and the text ends"
        else:
            what = f"accepts {listed(drafts[:n])}, {falls}and writes {shown(new[-1])}"
        return f"Pass {step} {what}: {wrote}.{ahead}{end if step == len(run['passes']) else ''}"

    def rows(self) -> list[list[str]]:
        """The table below the texts, so far: a name, with drafts, without."""
        c = self.counts()
        share = f", {percent(c['accepted'] / c['drafted'])}" if c["drafted"] else ""
        return [["Passes", str(c["passes"]), str(c["tokens"])], ["Tokens", str(c["tokens"]), str(c["tokens"])],
                ["Tokens a pass", figures(c["tokens"] / c["passes"]) if c["passes"] else "none yet", "1" if c["passes"] else "none yet"],
                ["Drafts accepted", f"{c['accepted']} of {c['drafted']}{share}", "no drafts"]]

    def summary(self) -> str:
        so_far = "; ".join(f"{name.lower()} {with_drafts}" for name, with_drafts, _ in self.rows())
        return f"{self.runs[self.run]['name']}: {self.said()} {so_far}"

    def fallback(self) -> str:
        ends, steps = [], []
        for i, run in enumerate(self.runs):
            whole = type(self)(runs=self.runs, run=i, step=len(run["passes"]))
            passes, _, each, accepted = (cells[1] for cells in whole.rows())
            ends.append([run["name"], passes, str(whole.counts()["tokens"]), each, accepted])
        run = self.runs[self.run]
        for i, (n, *drafts) in enumerate(run["passes"][:SHOWN]):
            new = run["tokens"][1 + self.counts(i)["tokens"]:1 + self.counts(i + 1)["tokens"]]
            verdict = f"{n} of {len(drafts)} accepted" if len(drafts) > 1 else "accepted" if n else "rejected" if drafts else "no draft"
            steps.append([str(i + 1), listed(drafts), verdict, listed(new)])
        first = "The first passes" if len(run["passes"]) > SHOWN else "The passes"
        heads = ["Prompt", "Passes with drafts", "Passes without", "Tokens a pass", "Drafts accepted"]
        caption = f"{first} after {shown(run['prompt'])} and its first token, {shown(run['tokens'][0])}"
        return "\n".join([table("Each text to its end, counted after the pass that reads the prompt", heads, ends),
                          table(caption, ["Pass", "Draft", "Verdict", "Written"], steps)])


def listed(tokens: list[str]) -> str:
    """Tokens in quotes: '“·four”, “·five”'."""
    return ", ".join(map(shown, tokens))


def shown(token: str) -> str:
    """A token in quotes, with its line breaks and spaces to be seen: '“⏎····”'."""
    return f"“{token.replace(chr(10), '⏎').replace(' ', '·')}”"


def percent(share: float) -> str:
    """Whole percents, halves up, as the script writes them."""
    return f"{int(100 * share + 0.5)} %"

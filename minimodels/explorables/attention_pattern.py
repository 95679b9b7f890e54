"""Where a head looks: the attention weights of a trained model on a few texts, layer by layer, head by head, token by token."""

import traitlets as t

from minimodels.explorables.base import Explorable, table

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"    # a weight of n/63 is the letter n
SHOWN = 4                                                                          # tokens that the table lists, at most

# the example that chapter 03 works by hand: three tokens, one head
BY_HAND = {"name": "three words", "tokens": ["the", " cat", " sat"], "weights": [[[[1], [0.2, 0.8], [0.1, 0.8, 0.1]]]]}


def letters(rows) -> str:
    """Weights of T queries as one letter each, row after row, each row up to its own token. rows: (T, at least t + 1)."""
    return "".join(LETTERS[round((len(LETTERS) - 1) * float(w))] for i, row in enumerate(rows) for w in row[:i + 1])


def encoded(name: str, tokens: list[str], weights) -> dict:
    """One text for `texts`. weights: layers of heads of rows, (n_layers, H, T, T)."""
    return {"name": name, "tokens": tokens, "weights": [[letters(head) for head in layer] for layer in weights]}


class AttentionPattern(Explorable):
    """The attention weights of every head on some texts; the reader chooses a token, and sees what it looks at.

    Weights are in steps of 1/63, which is finer than the eye: a whole model fits into some ten kilobytes a text.
    """

    name = "attention_pattern"

    texts = t.List([encoded(**BY_HAND)]).tag(sync=True)
    notes = t.Dict({}).tag(sync=True)          # "layer head": what the head was measured to do, in words
    text = t.Int(0, min=0).tag(sync=True)
    layer = t.Int(0, min=0).tag(sync=True)
    head = t.Int(0, min=0).tag(sync=True)
    query = t.Int(0, min=0).tag(sync=True)     # the token that looks

    @classmethod
    def of(cls, model, texts: dict[str, str], **values) -> "AttentionPattern":
        """The patterns of a model with a tokenizer on texts {name: text}; values go on top."""
        import torch

        from minimodels.patterns import patterns

        tokens = {name: model.tokenizer.encode(text).ids for name, text in texts.items()}
        facts = [encoded(name, [model.tokenizer.decode([i]) for i in ids], patterns(model, torch.tensor([ids]))[:, 0].tolist())
                 for name, ids in tokens.items()]
        return cls(texts=facts, **values)

    def row(self) -> list[float]:
        """The weights of the chosen token, for the tokens up to itself."""
        line, q = self.texts[self.text]["weights"][self.layer][self.head], self.query
        return [LETTERS.index(letter) / (len(LETTERS) - 1) for letter in line[q * (q + 1) // 2:(q + 1) * (q + 2) // 2]]

    def seen(self) -> list[tuple[int, float]]:
        """What the chosen token looks at most: (place, weight), the largest first, the earlier first among equals."""
        return sorted(enumerate(self.row()), key=lambda at: (-at[1], at[0]))[:SHOWN]

    def summary(self) -> str:
        tokens = self.texts[self.text]["tokens"]
        seen = ", ".join(f"{place} {shown(tokens[place])} {percent(w)}" for place, w in self.seen() if w)
        return f"layer {self.layer}, head {self.head}, from {self.query} {shown(tokens[self.query])}: {seen}"

    def fallback(self) -> str:
        tokens = self.texts[self.text]["tokens"]
        rows = [[shown(tokens[place]), str(place), percent(w)] for place, w in self.seen() if w]
        caption = f"{self.texts[self.text]['name']}: layer {self.layer}, head {self.head} looks from token {self.query}, {shown(tokens[self.query])}, at"
        return table(caption, ["Token", "Place", "Weight"], rows)


def shown(token: str) -> str:
    """A token in quotes, with its line breaks to be seen: '“⏎····”'."""
    return f"“{token.replace(chr(10), '⏎').replace(' ', '·')}”"


def percent(weight: float) -> str:
    """Whole percents, halves up, as the script writes them."""
    return f"{int(100 * weight + 0.5)} %"

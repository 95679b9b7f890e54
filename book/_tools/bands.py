"""Make data/bands.json from the recorded studies: the mean of a measured number over seeds, and three standard deviations around it.

    python book/_tools/bands.py
"""

import json
import statistics
import sys
from pathlib import Path

from minimodels import studies
from minimodels.studies.cost import utilisation

ROOT = Path(__file__).resolve().parents[2]
ANOTHER_TEXT = dict(if_below="another Python has another standard library, and so another text.",
                    if_above="another Python has another standard library, and so another text; or the run was stopped early.")
# chapter, metric: the study and arm whose trials it is taken from, its key there (or the function of a trial that gives it), unit, and what
# explains a value outside
BANDS = {
    ("cost", "share of the peak in a step"): dict(
        study="cost-utilisation", arm="D=128", key=lambda trial: 100 * utilisation(trial), unit="% of a large product's speed",
        if_below="another program was busy; or a processor with wider units, whose peak is higher and harder to use.",
        if_above="a processor with narrower units or faster memory, whose peak is easier to use."),
    ("data", "five tokens, split by file"): dict(
        study="data-splits", arm="by file", key="5-gram", unit="bits per byte",
        if_below="other files were drawn, or another Python has another standard library; or the split leaks.",
        if_above="other files were drawn, or another Python has another standard library."),
} | {
    ("mla", f"{scheme} after 60 steps"): dict(
        study="mla-live", arm=scheme, key="bits_per_byte", unit="bits per byte", **ANOTHER_TEXT)
    for scheme in ("mha", "mla")
}
BANDS["attention", "right after 120 steps"] = dict(
    study="attention-bugs", arm="right", key="bits_per_byte", unit="bits per byte", **ANOTHER_TEXT)
BANDS["model", "steps to learn a page"] = dict(
    study="model-overfit", arm="right", key="steps_to_learn", unit="steps",
    if_below="another version of torch draws other weights.",
    if_above="another version of torch draws other weights; or something in the model is broken.")
BANDS["train", "yardstick after 80 steps"] = dict(
    study="train-live", arm="yardstick", key="bits_per_byte", unit="bits per byte", **ANOTHER_TEXT)

BANDS["fp8", "FP8 after 30 steps"] = dict(
    study="fp8-live", arm="V3's", key="bits_per_byte", unit="bits per byte", **ANOTHER_TEXT)
BANDS |= {
    ("balance", f"{arm} after 120 steps"): dict(
        study="balance-live", arm=arm, key="bits_per_byte", unit="bits per byte", **ANOTHER_TEXT)
    for arm in ("none", "bias")
}
BANDS["moe", "fine after 60 steps"] = dict(
    study="moe-live", arm="fine", key="bits_per_byte", unit="bits per byte", **ANOTHER_TEXT)
BANDS["mtp", "drafts that stand, sampled"] = dict(
    study="mtp-acceptance", arm="T=1", key=lambda trial: 100 * trial["free"], unit="%",
    if_below="another Python has another standard library, and so other excerpts.",
    if_above="another Python has another standard library, and so other excerpts; or the text repeats itself.")
BANDS |= {
    ("together", f"{arm} after 30 steps"): dict(
        study="ladder-live", arm=arm, key="bits_per_byte", unit="bits per byte", **ANOTHER_TEXT)
    for arm in ("dense", "top")
}
BANDS["grpo", "steps to a start"] = dict(
    study="grpo-live", arm="live", key="start_steps", unit="steps",
    if_below="another version of torch draws other weights.", if_above="another version of torch draws other weights.")
BANDS["grpo", "gained in 40 rollouts"] = dict(
    study="grpo-live", arm="live", key=lambda trial: 100 * (trial["after"]["greedy"] - trial["before"]["greedy"]), unit="points of 500 new sums",
    if_below="another version of torch draws other answers; or a better start, which has less to gain.",
    if_above="another version of torch draws other answers; or a weaker start, which has more to gain.")


def bands() -> dict:
    """The contents of data/bands.json: {chapter: {metric: band}}."""
    table = {}
    for (chapter, metric), entry in BANDS.items():
        trials = [t for t in studies.recorded(entry["study"])["trials"] if t["arm"] == entry["arm"]]
        values = [entry["key"](t) if callable(entry["key"]) else t[entry["key"]] for t in trials]
        mean, spread = statistics.mean(values), statistics.stdev(values)
        recorded = {"mean": round(mean, 4), "low": round(mean - 3 * spread, 4), "high": round(mean + 3 * spread, 4), "n_runs": len(values),
                    "hardware": trials[0]["hardware"], "command": f"minimodels study {entry['study']}", "commit": trials[0]["commit"]}
        table.setdefault(chapter, {})[metric] = {name: entry[name] for name in ("unit", "if_below", "if_above")} | {"tiers": {"cpu": recorded}}
    return table


if __name__ == "__main__":
    try:
        path = ROOT / "data" / "bands.json"
        path.write_text(json.dumps(bands(), indent=1) + "\n", "utf8")
        print(path.relative_to(ROOT))
    except FileNotFoundError as error:
        sys.exit(f"bands: error: {error}")

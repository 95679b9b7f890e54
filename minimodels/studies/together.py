"""Chapter 13: the efficiency ladder of the tier `cpu`."""

from dataclasses import replace

from minimodels.ladder import rungs
from minimodels.studies import Study, Training

CPU = {rung.name: rung for rung in rungs("cpu")}
RATES = (0.01, 0.02)                # Muon's peak rates that are tried, with seed 0; for the dense model and MLA they are in mla-rates

STUDIES = [
    Study(name="ladder-rates", is_planned=True, question="Which learning rate suits each rung with experts?",
          trials=tuple(Training(arm=f"{name} {rate:g}", seed=0, model=CPU[name].model, training=replace(CPU[name].training, muon_lr=rate, seed=0))
                       for name in ("+ experts", "+ MTP") for rate in RATES)),
]

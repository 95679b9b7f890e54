"""Small interactive pieces that run live in a notebook and, from the same script, on the static site.

An explorable is two files of one name. `kv_cache.py` holds its state as traits, what Python knows, and a plain table;
`kv_cache.js` is a module that draws it: `render({ model, el })`, which reads and writes through model alone. Live, anywidget
runs the module. The site has no kernel: the committed output is HTML that carries the state, and
`book/_static/explorables.js` gives that to the same module.
"""

from minimodels.explorables.absorb import Absorb
from minimodels.explorables.attention_pattern import AttentionPattern
from minimodels.explorables.expert_text import ExpertText
from minimodels.explorables.draft_steps import DraftSteps
from minimodels.explorables.float_bits import FloatBits
from minimodels.explorables.grpo_step import GRPOStep
from minimodels.explorables.kv_cache import KVCache
from minimodels.explorables.model_shape import ModelShape
from minimodels.explorables.router import Router
from minimodels.explorables.tokens import Tokens
from minimodels.explorables.traces import Traces
from minimodels.explorables.training_cost import TrainingCost
from minimodels.explorables.training_curves import TrainingCurves
from minimodels.explorables.which_rung import WhichRung

ALL = (KVCache, Absorb, AttentionPattern, ExpertText, ModelShape, Tokens, TrainingCost, TrainingCurves, Router, DraftSteps, FloatBits, WhichRung, GRPOStep,
       Traces)

__all__ = ["ALL", "Absorb", "AttentionPattern", "DraftSteps", "ExpertText", "FloatBits", "GRPOStep", "KVCache", "ModelShape", "Router", "Tokens", "Traces", "TrainingCost",
           "TrainingCurves", "WhichRung"]

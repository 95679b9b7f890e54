"""Chapter 02: what the size of the vocabulary does to a model that may read so much text and have so many parameters."""

from dataclasses import replace

from minimodels.config import ModelConfig, TrainConfig
from minimodels.studies import Study, Training

# rows of the vocabulary: tokens in a window, so that a window holds as many bytes of training text as 256 tokens of 4,096 rows do
WINDOWS = {512: 454, 2048: 296, 4096: 256, 6144: 239}
SEEDS = (1, 2, 3)
RECIPE = replace(TrainConfig.preset("yardstick"), steps=200, eval_every=100)


def with_vocabulary(rows: int) -> ModelConfig:
    """The yardstick with so many rows, its feed-forward part changed until it has as many parameters as before, to a unit of width.

    Raises ValueError where the embedding leaves nothing for the feed-forward part, which is at 7,930 rows and more.
    """
    yardstick = ModelConfig.preset("yardstick")
    config = replace(yardstick, vocab_size=rows)
    per_unit = 3 * config.d_model * config.n_layers
    return replace(config, d_ff=config.d_ff + round((yardstick.n_params - config.n_params) / per_unit))


STUDIES = [
    Study(name="data-vocabulary", question="At equal parameters and equal text, which vocabulary gives the fewest bits per byte?",
          trials=tuple(Training(arm=f"{rows} rows", seed=seed, model=with_vocabulary(rows), training=replace(RECIPE, seq_len=window, seed=seed))
                       for seed in SEEDS for rows, window in WINDOWS.items())),
]

"""The fair timer: it measures what is called, in turns, and leaves the number of threads alone."""

import time

import pytest
import torch

from minimodels.config import ModelConfig
from minimodels.studies.mla import schemes_at
from minimodels.timing import decode_step, interleaved


def test_a_sleep_takes_as_long_as_it_says_and_functions_take_turns():
    calls = []
    times = interleaved({"short": lambda: (calls.append("s"), time.sleep(0.004)), "long": lambda: (calls.append("l"), time.sleep(0.012))},
                        rounds=3, least_ms=1)
    assert [len(each) for each in times.values()] == [3, 3]
    assert 4 <= min(times["short"]) < 40 and 12 <= min(times["long"]) < 60    # a busy machine may sleep longer, once or twice
    assert "".join(calls) == "sss" + "lll" + "sl" * 3    # three looks at each, then three rounds


def test_a_quick_function_is_called_often_enough_to_be_measured():
    calls = []
    interleaved({"quick": lambda: calls.append(1)}, rounds=2, least_ms=1.0)
    assert len(calls) > 100


def test_threads_are_as_before_even_after_a_failure():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        interleaved({"bad": lambda: 1 / 0}, threads=before + 1)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", list(schemes_at(96)))
def test_a_step_reads_the_whole_cache_and_gives_one_token(name):
    config, absorb = schemes_at(96)[name]
    torch.manual_seed(0)
    step = decode_step(config, 7, absorb=absorb)
    out = step()
    assert out.shape == (1, 1, 96) and torch.equal(out, step())
    # by another way: the same numbers whichever path reads them
    if config.attention == "mla":
        torch.manual_seed(0)
        other = decode_step(config, 7, absorb=not absorb)
        assert torch.allclose(out, other(), atol=1e-4)


def test_the_layer_chooses_its_path_by_itself():
    config = ModelConfig(n_experts=0, mtp_depth=0)
    assert decode_step(config, 5)().shape == (1, 1, config.d_model)

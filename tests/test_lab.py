"""Tiers, bands, the install cell and the doctor."""

import json
import re
from pathlib import Path

import pytest

from minimodels import lab

ROOT = Path(__file__).parents[1]
GIB = 2**30
T4 = lab.Gpu("Tesla T4", round(14.7 * GIB), (7, 5), False)
GTX_1080 = lab.Gpu("GTX 1080", 8 * GIB, (6, 1), False)
RTX_3060_12 = lab.Gpu("RTX 3060", round(11.6 * GIB), (8, 6), True)
RTX_4060_8 = lab.Gpu("RTX 4060", round(7.6 * GIB), (8, 9), True)
RTX_5090 = lab.Gpu("RTX 5090", 32 * GIB, (12, 0), True)
RTX_3050_4 = lab.Gpu("RTX 3050", 4 * GIB, (8, 6), True)

BANDS = {"start": {"valid_bpb": {
    "unit": "bits per byte", "if_below": "a smaller corpus.", "if_above": "fewer steps.",
    "tiers": {"cpu": {"mean": 1.5, "low": 1.4, "high": 1.6, "n_runs": 3, "hardware": "a test"}}}}}


@pytest.mark.parametrize("gpu, tier, reason", [
    (None, "cpu", "no NVIDIA GPU"),
    (GTX_1080, "cpu", "no tensor cores"),
    (RTX_3050_4, "cpu", "less than 7 GiB"),
    (T4, "t4", "no bf16 in hardware"),
    (RTX_4060_8, "t4", "less than 11 GiB"),
    (RTX_3060_12, "gaming", "bf16"),
    (RTX_5090, "gaming", "bf16"),
])
def test_a_machine_gets_its_tier_and_the_reason(gpu, tier, reason):
    found = lab.tier(gpu=lambda: gpu, environ={})
    assert found.name == tier and reason in found.reason
    assert str(found) == repr(found) == f"Tier {tier}: {found.reason}."


@pytest.mark.parametrize("name", lab.TIERS)
def test_the_variable_overrides_what_is_detected(name):
    def never():
        raise AssertionError("nothing needs detecting")

    assert lab.tier(gpu=never, environ={"MINIMODELS_TIER": name}) == lab.Tier(name, "MINIMODELS_TIER says so")


def test_a_tier_that_does_not_exist_is_refused_by_name():
    with pytest.raises(ValueError, match=r"MINIMODELS_TIER must be one of cpu, t4, gaming, got 'a100'"):
        lab.tier(environ={"MINIMODELS_TIER": "a100"})


def test_a_t4_is_asked_without_emulation(monkeypatch):
    import torch
    from types import SimpleNamespace

    properties = SimpleNamespace(name="Tesla T4", total_memory=T4.memory, major=7, minor=5)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: properties)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)    # as a T4 answers
    assert lab.gpu() == T4
    assert lab.formats(lab.gpu()) == ["fp32", "fp16"]


def test_fp8_begins_with_sm89():
    assert "fp8" not in lab.formats(RTX_3060_12)
    assert "fp8" in lab.formats(RTX_4060_8) and "fp8" in lab.formats(RTX_5090)


@pytest.mark.parametrize("value, words", [
    (1.4, ["lies inside the cpu band, 1.4 to 1.6 bits per byte (mean 1.500 of 3 runs, a test)"]),
    (1.39, ["lies below", "a smaller corpus."]),
    (1.61, ["lies above", "fewer steps."]),
])
def test_a_band_says_inside_or_what_explains_it(value, words):
    said = lab.band("start", "valid_bpb", value, bands=BANDS, tier_name="cpu")
    assert all(word in said for word in words)


@pytest.mark.parametrize("chapter, metric, tier", [("start", "valid_bpb", "t4"), ("start", "other", "cpu"), ("mla", "valid_bpb", "cpu")])
def test_a_metric_without_a_band_says_so(chapter, metric, tier):
    assert "No band is recorded" in lab.band(chapter, metric, 1.5, bands=BANDS, tier_name=tier)


def test_every_recorded_band_has_the_shape_that_the_readme_describes():
    bands = json.loads((ROOT / "data" / "bands.json").read_text("utf8"))
    for metrics in bands.values():
        for entry in metrics.values():
            assert set(entry) == {"unit", "if_below", "if_above", "tiers"}
            assert entry["tiers"] and set(entry["tiers"]) <= set(lab.TIERS)
            for band in entry["tiers"].values():
                assert set(band) == {"mean", "low", "high", "n_runs", "hardware", "command", "commit"}
                assert band["low"] <= band["mean"] <= band["high"] and band["n_runs"] >= 1


def test_the_doctor_names_what_matters():
    report = lab.doctor()
    assert [line.split("  ")[0].strip() for line in report.splitlines()] == [
        "tier", "python", "torch", "cores", "memory", "gpu", "formats", "compiler", "free disk"]
    assert "fp32" in report and re.search(r"cores +[1-9]", report)


def test_memory_is_what_the_system_says():
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        pytest.skip("no /proc here")
    total = int(re.search(r"MemTotal:\s+(\d+) kB", meminfo.read_text())[1]) * 1024
    assert 0 < lab.memory() <= total


def test_the_install_cell_does_nothing_where_the_package_is(monkeypatch):
    import subprocess

    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("it installed"))
    exec(lab.install_cell("https://github.com/a/b"), {})


def test_the_install_cell_installs_where_the_package_is_missing(monkeypatch):
    import builtins
    import subprocess
    import sys

    commands = []
    real = builtins.__import__

    def without_minimodels(name, *args):
        if name == "minimodels":
            raise ModuleNotFoundError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_minimodels)
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    exec(lab.install_cell("https://github.com/a/b"), {})
    assert commands == [[sys.executable, "-m", "pip", "install", "-q", "git+https://github.com/a/b"]]

"""visual.py as a user runs it, and the figures of persona/figures.py measured: sizes, findings, no text over text."""

import json
import math
import os
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import visual
from persona import figures

ROOT = Path(__file__).resolve().parents[1]
PNG_HEAD = b"\x89PNG\r\n\x1a\n"


# --- sample inputs ----------------------------------------------------------------------------------------------


def entry(value: float | None, spread: float | None, n: int = 118) -> dict:
    """A value with an interval of `spread` on both sides; none where spread is None."""
    return {"value": value, "ci95": None if spread is None else [value - spread, value + spread * 1.2], "n": n}


def sample_loss(points: int = 190, epochs: float = 3.0, evaluations: int = 6, nulls: tuple[int, ...] = ()) -> dict:
    """A loss curve like the reference's: 1.55 down to 0.2, cosine learning rate with warm-up."""
    rng, train = random.Random(7), []
    for i in range(1, points + 1):
        part = i / points
        rate = 2e-4 * min(1.0, part / 0.05) * (0.5 * (1 + math.cos(math.pi * part)))
        value = 0.2 + 1.35 * math.exp(-4.5 * part) + rng.gauss(0, 0.04)
        point = {"step": 10 * i, "epoch": epochs * part, "loss": None if i in nulls else value}
        train.append(point | {"learning_rate": rate, "grad_norm": 0.5, "token_accuracy": 0.4 + 0.5 * part})
    evaluation = [
        {"step": 10 * points * k // evaluations, "epoch": epochs * k / evaluations, "loss": 0.3 + 1.2 * 0.4**k, "token_accuracy": None}
        for k in range(1, evaluations + 1)
    ]
    borders = [0.0, epochs / 6, epochs / 2, epochs]
    names = ("rapid adaptation", "refinement", "convergence")
    phases = [
        {"name": name, "from_epoch": borders[i], "to_epoch": borders[i + 1], "loss_from": 1.0, "loss_to": 0.5}
        for i, name in enumerate(names)
    ]
    milestones = [{"epoch": 0.5, "loss": 0.896, "token_accuracy": 0.88, "step": 310}]
    head = {"run": "sherlock-tiny", "total_steps": 10 * points, "epochs": epochs, "milestones": milestones}
    return head | {"phases": phases, "train": train, "evaluation": evaluation}


def sample_report() -> dict:
    """Base against tuned, with a metric of every direction."""

    def metric(better, base, tuned, spread, difference, target=None):
        shift = {"tuned-base": {"value": tuned - base, "ci95": [tuned - base - difference, tuned - base + difference]}}
        values = {"base": entry(base, spread), "tuned": entry(tuned, spread)}
        return {"better": better, "target": target, "values": values, "differences": shift}

    return {
        "run": "sherlock-tiny",
        "protocol": "held-out stories, teacher forcing and greedy decoding",
        "n": 118,
        "seeds": [42, 43, 44],
        "items_sha256": "9f" * 32,
        "systems": {
            "base": {"model": "Qwen/Qwen2.5-7B-Instruct", "adapter": None, "prompt": "persona"},
            "tuned": {"model": "Qwen/Qwen2.5-7B-Instruct", "adapter": "result/sherlock-tiny/adapter", "prompt": "persona"},
        },
        "metrics": {
            "conditional_perplexity": metric("lower", 38.4, 21.7, 1.9, 1.6),
            "conditional_perplexity/modern": metric("lower", 19.2, 20.4, 1.4, 1.9),
            "bits_per_byte": metric("lower", 1.21, 1.02, 0.03, 0.02),
            "token_accuracy": metric("higher", 0.361, 0.428, 0.012, 0.01),
            "evaluation_loss": metric("lower", 3.648, 3.077, 0.05, 0.04),
            "jaccard": metric("higher", 0.074, 0.091, 0.006, 0.006),
            "rouge_l": metric("higher", 0.102, 0.105, 0.008, 0.009),
            "victorian_term_frequency": metric("target", 0.0061, 0.0284, 0.0021, 0.003, target=0.0319),
            "term_frequency_distance": metric("lower", 1.654, 0.116, 0.1, 0.2),
            "distinct_2": metric("higher", 0.81, 0.74, 0.02, 0.02),
        },
        "controls": {"shuffled_reference": {"jaccard": 0.07, "rouge_l": 0.09}, "note": "other lines as references"},
        "leakage": {"eight_gram_overlap": {"base": 0.0, "tuned": 0.012}, "identical_rows": 0},
    }


def long_report(systems: int = 10) -> dict:
    """Ten systems, long names, metrics of many sizes, intervals partly missing."""
    rng, report = random.Random(3), sample_report()
    names = ["base", "tuned"] + [f"sherlock-qwen2.5-7b-instruct-lora-rank-{2**i}-prompted-{i}" for i in range(systems - 2)]
    names[-1] = "WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW"
    report["run"] = "a-run-with-quite-a-long-name-" * 4
    report["systems"] = {name: {"model": "m", "adapter": None, "prompt": ""} for name in names}
    long = "a_metric_with_a_name_that_goes_on_and_on_for_longer_than_any_axis_could_hold_in_one_line"
    for name, metric in report["metrics"].items():
        values = metric["values"]
        for system in names[2:]:
            value = values["base"]["value"] * math.exp(rng.gauss(0, 0.4))
            values[system] = entry(value, None if rng.random() < 0.3 else 0.1 * value, n=rng.randint(30, 118))
    for extra in (long, f"rouge_l/{long}", f"jaccard/{long}"):
        report["metrics"][extra] = json.loads(json.dumps(report["metrics"]["distinct_2"]))
    report["metrics"][long]["differences"]["tuned-base"] = {"value": 4000.0, "ci95": [-1e9, 1e9]}
    return report


def sample_predictions() -> list[dict]:
    """Two dialogues and a probe; an answer that would be markup if it were not escaped."""
    evil = '<script src="http://example.com/x.js">alert(1)</script> & "quoted"'
    return [
        {
            "id": f"{kind}-{i}",
            "story": story,
            "kind": kind,
            "prompt": "What is your method, Mr. Holmes?",
            "reference": None if kind == "probe" else "It is founded upon the observation of trifles.",
            "answers": {"base": evil, "tuned": "You see, but you do not observe.\n\nThe distinction is clear."},
        }
        for i, (kind, story) in enumerate([("dialogue", "the-speckled-band"), ("dialogue", "silver-blaze"), ("probe", None)])
    ]

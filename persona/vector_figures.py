"""Figures of the persona vector reports: separability, projections, steering, radar, trajectory, cosines.

Drawn from the JSON reports, each with what it shows in its title and n in its caption. Systems differ by
colour (Okabe and Ito) and by line or marker.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from persona.figures import BLUE, DPI, GREEN, GREY, INK, PALETTE, STYLE, VERMILION, WIDTH, balanced

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def _figure(height: float, title: str, caption: str) -> "Figure":
    """A figure with its title above and its caption below; panels go into what is between."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained", dpi=DPI)
    figure.suptitle(balanced(title, WIDTH - 0.4, 10), fontsize=10, fontweight="bold", color=INK)
    figure.supxlabel(balanced(caption, WIDTH - 0.4, 7.5, lines=4), fontsize=7.5, color="#555555")
    return figure


def _save(figure: "Figure", path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path


def _axes(panel) -> None:
    panel.grid(True)
    panel.tick_params(length=3)


def draw_score(report: dict, folder: Path) -> list[Path]:
    """AUC and separation by layer, and the projections of both sides as distributions."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        return [
            _save(_by_layer(report), folder / f"{report['trait']}-layers.png"),
            _save(_distributions(report), folder / f"{report['trait']}-projections.png"),
        ]


def _by_layer(report: dict) -> "Figure":
    first, rows = next((c, f) for c, f in report["conditions"].items())
    best = rows["best"]["quality"] if rows["best"] else None
    chosen = f", {best['auc_on_the_other_half']:.2f} at layer {best['layer']}" if best else ""
    figure = _figure(
        3.3,
        f"{report['trait']}: held-out AUC {first}{chosen}",
        f"Unseen questions ({rows['questions']}), answers {report['responses']}. Layer i is the output of "
        "block i. "
        "Shaded: 95% interval over questions. Grey: 5th to 95th percentile of 50 random directions; "
        "dotted: mean of "
        "vectors from shuffled labels. An AUC near 1 is common with contrastive texts.",
    )
    left, right = figure.subplots(1, 2)
    for k, (name, found) in enumerate(report["conditions"].items()):
        layers = [r["layer"] for r in found["layers"]]
        style = {"color": PALETTE[k], "ls": LINES[k], "marker": MARKERS[k], "ms": 4}
        left.plot(layers, [r["auc"] for r in found["layers"]], label=name, **style)
        if all(r["auc_ci95"] for r in found["layers"]):
            low, high = zip(*(r["auc_ci95"] for r in found["layers"]), strict=True)
            left.fill_between(layers, low, high, color=PALETTE[k], alpha=0.15, lw=0)
        right.plot(layers, [r["separation_in_sd"] or 0 for r in found["layers"]], label=name, **style)
    layers = rows["layers"]
    places = [r["layer"] for r in layers]
    low, high = ([r["random"][end] for r in layers] for end in ("p5", "p95"))
    left.fill_between(
        places, low, high, color=GREY, alpha=0.3,
        lw=0, label="random directions",
    )  # fmt: skip
    if layers[0]["shuffled"]:
        left.plot(places, [r["shuffled"]["mean"] for r in layers], color=INK, ls=":", label="shuffled labels")
    left.set(ylim=(0, 1.03), xlabel="layer", ylabel="AUC")
    right.set(xlabel="layer", ylabel="mean separation (pooled sd)", ylim=(0, None))
    left.legend(frameon=False, fontsize=7, loc="lower right")
    for panel in (left, right):
        _axes(panel)
        panel.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _distributions(report: dict) -> "Figure":
    import numpy as np

    figure = _figure(
        2.9,
        f"{report['trait']}: projections of answers on the vector, both sides",
        "h . v / |v| of each answer's average activation, at the layer that was chosen for quality. Unseen "
        "questions; "
        "a tick is one answer. Overlap of the sides is what the AUC counts.",
    )
    panels = figure.subplots(1, len(report["conditions"]), squeeze=False)[0]
    for panel, (name, found) in zip(panels, report["conditions"].items(), strict=True):
        shown = found["projections"]
        bins = np.histogram_bin_edges(shown["on"] + shown["off"], bins=14)
        for side, colour, hatch in (("off", VERMILION, "..."), ("on", BLUE, "///")):
            label = "shows the trait" if side == "on" else "shows the opposite"
            panel.hist(
                shown[side], bins=bins, color=colour, alpha=0.45, hatch=hatch, edgecolor="white", label=label
            )
            panel.plot(shown[side], [-0.02] * len(shown[side]), "|", color=colour, ms=6, clip_on=False,
                       transform=panel.get_xaxis_transform())  # fmt: skip
        panel.tick_params(axis="x", pad=7)
        panel.set_title(
            f"{name}, layer {shown['layer']}, n {len(shown['on'])} + {len(shown['off'])}", fontsize=8.5
        )
        panel.set(xlabel="projection", ylabel="answers")
        panel.legend(frameon=False, fontsize=7)
        _axes(panel)
    return figure


def draw_steering(report: dict, folder: Path) -> Path:
    """Effect and coherence over the coefficient, a line a layer."""
    from matplotlib import rc_context

    measures = [
        (key, label)
        for key, label in (
            ("margin", "likelihood margin, high - low\n(nats a token)"),
            ("expression", "projection of the answers"),
            ("style", "style score of the answers"),
        )
        if any(row[key] for row in report["cells"])
    ]
    with rc_context(STYLE):
        best = report["recommended"]
        found = f"layer {best['layer']} at {best['coefficient']:g}" if best else "no coherent setting"
        figure = _figure(
            2.7 * math.ceil((len(measures) + 1) / 2) + 0.8,
            f"{report['trait']}: what steering changes ({found} recommended)",
            f"Differences to the unsteered model, 95% intervals; {report['prompts']} unseen questions, "
            f"{report['samples']} answers each, {report['pairs']} pairs of written answers. Perplexity: of "
            "the answers "
            "under the unsteered model, as a multiple of the unsteered answers'. Dotted: 1.5, the limit of "
            "coherence.",
        )
        panels = figure.subplots(math.ceil((len(measures) + 1) / 2), 2, squeeze=False).ravel()
        layers = list(dict.fromkeys(row["layer"] for row in report["cells"]))
        for k, layer in enumerate(layers):
            rows = sorted((r for r in report["cells"] if r["layer"] == layer), key=lambda r: r["coefficient"])
            style = {
                "color": PALETTE[k % len(PALETTE)],
                "ls": LINES[k % len(LINES)],
                "marker": MARKERS[k % len(MARKERS)],
                "ms": 4,
            }
            for panel, (key, _) in zip(panels, measures, strict=False):
                _with_zero(panel, [r for r in rows if r[key]], key, style, f"layer {layer}", k)
            ratios = [(0.0, 1.0)] + [(r["coefficient"], r["perplexity_ratio"]) for r in rows]
            ratios = sorted((x, y) for x, y in ratios if y is not None)
            panels[len(measures)].plot(*zip(*ratios, strict=True), label=f"layer {layer}", **style)
        for panel, (_, label) in zip(panels, measures, strict=False):
            panel.axhline(0, color=INK, lw=0.8)
            panel.set(xlabel="coefficient", ylabel=label)
        panels[len(measures)].axhline(1.5, color=INK, lw=0.8, ls=":")
        panels[len(measures)].set(xlabel="coefficient", ylabel="perplexity (multiple)", ylim=(0, None))
        panels[0].legend(frameon=False, fontsize=7)
        for panel in panels[: len(measures) + 1]:
            _axes(panel)
        for panel in panels[len(measures) + 1 :]:
            panel.set_axis_off()
        return _save(figure, folder / f"{report['trait']}-steering.png")


def _with_zero(panel, rows: Sequence[dict], key: str, style: dict, label: str, k: int) -> None:
    """A line through its cells and the unsteered model at (0, 0), with intervals a little apart."""
    points = [(0.0, 0.0, None)] + [
        (r["coefficient"], r[key]["difference"]["value"], r[key]["difference"]["ci95"]) for r in rows
    ]
    points.sort(key=lambda p: p[0])
    panel.plot([p[0] for p in points], [p[1] for p in points], label=label, **style)
    for x, y, ci in points:
        if ci:
            panel.errorbar(
                x + 0.03 * k,
                y,
                [[max(0, y - ci[0])], [max(0, ci[1] - y)]],
                color=style["color"],
                capsize=2,
                lw=0.8,
            )


def draw_trajectory(report: dict, folder: Path) -> Path:
    """Shift over checkpoints, a line a trait; with several runs, a group of bars a run."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        kinds = report["kinds"]
        figure = _figure(
            3.2,
            "how far fine-tuning moved the model along each vector",
            f"Tuned minus base at each trait's own layer, in standard deviations of the base over "
            f"{report['questions']} "
            "questions; left to right the checkpoints in their order, then the final adapter (or one run "
            "after "
            "another). A shift of activations is not yet a change of behaviour.",
        )
        panels = figure.subplots(1, len(kinds), squeeze=False)[0]
        for panel, kind in zip(panels, kinds, strict=True):
            for k, (name, found) in enumerate(report["traits"].items()):
                layer = report["layers"][name]
                models = list(found[kind])
                values = [found[kind][m][layer]["shift_in_sd"] for m in models]
                names = [_short(m, len(report["runs"]) > 1) for m in models]
                line = LINES[k % len(LINES)] if len(report["runs"]) == 1 else "none"
                panel.plot(
                    ["base", *names] if len(report["runs"]) == 1 else names,
                    [0.0, *values] if len(report["runs"]) == 1 else values,
                    color=PALETTE[k % len(PALETTE)], ls=line, marker=MARKERS[k % len(MARKERS)], ms=5,
                    label=f"{name}, layer {layer}",
                )  # fmt: skip
            panel.axhline(0, color=INK, lw=0.8)
            panel.set(ylabel="shift (sd of the base)")
            where = "at the prompt's last token" if kind == "prompt_last" else "over its own answers"
            panel.set_title(where, fontsize=8.5)
            for label in panel.get_xticklabels():
                label.set(rotation=20, ha="right", rotation_mode="anchor")
            _axes(panel)
        panels[0].legend(frameon=False, fontsize=7)
        return _save(figure, folder / "shift.png")


def _short(model: str, several: bool) -> str:
    run, _, name = model.rpartition("/")
    return run if several else name.replace("checkpoint-", "step ")


def draw_radar(report: dict, folder: Path) -> list[Path]:
    """Questionnaire ratings as a radar, models laid over one another; TRAIT scores as bars."""
    from matplotlib import rc_context

    paths = []
    with rc_context(STYLE):
        if report["questionnaire"]:
            paths.append(_save(_radar(report), folder / "radar.png"))
        if report["trait"]:
            paths.append(_save(_bars(report), folder / "trait.png"))
    return paths


def _radar(report: dict) -> "Figure":
    models = report["questionnaire"]
    names = list(next(iter(models.values())))
    figure = _figure(
        4.6,
        "questionnaire: how the models rate themselves",
        f"{report['statements']} statements, expected rating from 1 (disagree) to 5 (agree), both "
        "directions of the "
        "scale averaged; 3 is undecided. What a model says of itself is not how it behaves.",
    )
    panel = figure.add_subplot(projection="polar")
    angles = [2 * math.pi * k / len(names) for k in range(len(names))]
    for k, (model, found) in enumerate(models.items()):
        values = [found[name]["score"] for name in names]
        panel.plot(
            [*angles, angles[0]], [*values, values[0]],
            color=PALETTE[k % len(PALETTE)], ls=LINES[k % len(LINES)], marker=MARKERS[k % len(MARKERS)],
            ms=4, label=model,
        )  # fmt: skip
    panel.set_xticks(angles, names)
    panel.tick_params(axis="x", pad=18)
    panel.set(ylim=(1, 5), yticks=[1, 2, 3, 4, 5])
    panel.legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1.25, 0.5))
    return figure


def _bars(report: dict) -> "Figure":
    models = report["trait"]
    names = list(next(iter(models.values())))
    agree = [found["orders_agree"] for model in models.values() for found in model.values()]
    title = "TRAIT: share of situations in which the high answer is preferred"
    if max(agree) < 0.5:
        title = "TRAIT: the letter's place decides, not the trait"
    figure = _figure(
        1.6 + 0.34 * len(models) * len(names),
        title,
        f"{report['items']} situations, both option orders, which alone agree in {min(agree):.0%} to "
        f"{max(agree):.0%} of them; dots are 100 x high / (high + low) with 95% intervals over statements, "
        "50 is what guessing gives.",
    )
    panel = figure.subplots()
    labels = [(model, name) for model in models for name in names]
    for k, (model, name) in enumerate(reversed(labels)):
        found = models[model][name]
        ci = found["score_ci95"]
        if ci:
            panel.plot(ci, [k, k], color=INK, lw=1)
        panel.plot(found["score"], k, "o", color=BLUE)
        panel.plot(found["probability"], k, "D", color=GREEN, ms=4)
    panel.axvline(50, color=INK, lw=0.8, ls=":")
    panel.set_yticks(
        range(len(labels)), [f"{m}{f', {n}' if len(names) > 1 else ''}" for m, n in reversed(labels)]
    )
    panel.plot([], [], "o", color=BLUE, label="choices")
    panel.plot([], [], "D", color=GREEN, ms=4, label="mean probability")
    panel.set(xlim=(0, 100), xlabel="score")
    panel.legend(frameon=False, fontsize=7)
    _axes(panel)
    return figure


def draw_cosines(names: Sequence[str], cosines: list, folder: Path) -> Path:
    """Cosine between every two traits' vectors, at the middle layer as a map and over all layers as lines."""
    from matplotlib import rc_context

    middle = len(cosines) // 2
    with rc_context(STYLE):
        figure = _figure(
            4.2,
            "how alike the traits' vectors are",
            f"Cosine of response-average vectors; the map is of layer {middle}. Vectors of one model share "
            "what all "
            "contrasts share, so that small cosines need not mean anything.",
        )
        left, right = figure.subplots(1, 2)
        left.imshow(cosines[middle], vmin=-1, vmax=1, cmap="RdBu_r", aspect="auto")
        for row in range(len(names)):
            for column in range(len(names)):
                value = cosines[middle][row][column]
                left.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7.5,
                          color="white" if abs(value) > 0.6 else INK)  # fmt: skip
        left.set_xticks(range(len(names)), names, rotation=30, ha="right")
        left.set_yticks(range(len(names)), names)
        k = 0
        for a in range(len(names)):
            for b in range(a + 1, len(names)):
                right.plot(
                    range(len(cosines)), [c[a][b] for c in cosines], color=PALETTE[k % len(PALETTE)],
                    ls=LINES[k // len(PALETTE) % len(LINES)], label=f"{names[a]}, {names[b]}",
                )  # fmt: skip
                k += 1
        right.axhline(0, color=INK, lw=0.8)
        right.set(xlabel="layer", ylabel="cosine", ylim=(-1, 1))
        if k <= 10:
            right.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.25))
        _axes(right)
        return _save(figure, folder / "cosines.png")

"""What the demo shows: a table, a picture and whether federated learning kept its promise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

MINIMUM_ACCURACY = 0.93
MARGIN = 0.01


def table(models: Mapping[str, Any]) -> Table:
    """All scores, one row per model and way of training."""
    shown = Table(title="On the same held-out patients, whom no node has seen")
    for column in ("model", "trained on"):
        shown.add_column(column, no_wrap=True)
    for column in ("patients", "accuracy", "ROC AUC"):
        shown.add_column(column, justify="right")
    for name, results in models.items():
        everyone = sum(alone["patients"] for alone in results["alone"])
        for alone in results["alone"]:
            shown.add_row(name, f"{alone['hospital']} alone", str(alone["patients"]), *_figures(alone))
        shown.add_row(name, "federated", str(everyone), *_figures(results["federated"]), style="bold")
        shown.add_row(name, "pooled", str(everyone), *_figures(results["pooled"]), end_section=True)
    return shown


def _figures(result: Mapping[str, Any]) -> tuple[str, str]:
    return f"{result['accuracy']:.3f}", f"{result['roc_auc']:.3f}"


def show(models: Mapping[str, Any], console: Console) -> None:
    """Print the table."""
    console.print(table(models))


def shortfalls(models: Mapping[str, Any]) -> list[str]:
    """Where a federated model is worse than the best single hospital by over a point, or below 0.93: one sentence each."""
    found = []
    for name, results in models.items():
        accuracy = results["federated"]["accuracy"]
        best = max(alone["accuracy"] for alone in results["alone"])
        if accuracy < best - MARGIN:
            found.append(f"{name}: federated accuracy {accuracy:.3f} is over a point below the best single hospital's {best:.3f}")
        if accuracy < MINIMUM_ACCURACY:
            found.append(f"{name}: federated accuracy {accuracy:.3f} is below {MINIMUM_ACCURACY}")
    return found


def draw(models: Mapping[str, Any], path: Path) -> None:
    """Draw accuracy after each round beside each hospital's own and the pooled one, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(models), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, results) in zip(figure.subplots(1, len(models), squeeze=False)[0], models.items(), strict=True):
        curve = results["federated"]["accuracy_per_round"]
        rounds = range(1, len(curve) + 1)
        for alone, style in zip(results["alone"], (":", "--", "-.") * len(results["alone"]), strict=False):
            axes.axhline(
                alone["accuracy"], linestyle=style, color="grey", label=f"{alone['hospital']} alone ({alone['patients']} patients)"
            )
        axes.axhline(results["pooled"]["accuracy"], color="tab:green", label="pooled in one place")
        axes.plot(rounds, curve, marker="o", color="tab:blue", linewidth=2, label="federated")
        axes.axvline(len(curve) // 2 + 0.5, color="tab:orange", linewidth=1, alpha=0.6, label="stopped, resumed from breakpoint")
        axes.set(title=name, xlabel="round", ylabel="accuracy on held-out patients", xticks=list(rounds))
        axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=120)

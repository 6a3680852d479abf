"""How likely a flight is to be disrupted, judged before it leaves, and how good that judgement is.

Rule: the past predicts the future. The model learns from the months up to `LAST_TRAINING_MONTH`
and is judged on the months after it; the baselines are fitted on the same past and judged on the
same future. Nothing is chosen by looking at the test months.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
    roc_curve,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from steps import features

LAST_TRAINING_MONTH = 9
SEED = 7
#: A carrier's hour with few flights is drawn to the mean as if it had this many average ones.
PRIOR_FLIGHTS = 50
#: Resamples of the test days, for the interval of the gain.
RESAMPLES = 100
#: Test flights on which the importance of a group is measured.
SAMPLE = 20_000


@dataclass(frozen=True)
class Habit:
    """The baseline a frequent flyer would use: how this airline did at this hour in the past."""

    rates: dict[tuple[str, int], float]
    mean: float

    @classmethod
    def fit(cls, flights: pd.DataFrame) -> Habit:
        mean = float(flights.disrupted.mean())
        past = flights.groupby(["carrier", "hour"]).disrupted.agg(["sum", "size"])
        rates = (past["sum"] + PRIOR_FLIGHTS * mean) / (past["size"] + PRIOR_FLIGHTS)
        return cls({key: float(rate) for key, rate in rates.items()}, mean)

    def predict(self, flights: pd.DataFrame) -> np.ndarray:
        keys = zip(flights.carrier, flights.hour, strict=True)
        return np.array([self.rates.get(key, self.mean) for key in keys])


def split(flights: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Masks of (the past to learn from, the future to be judged on)."""
    past = flights.month <= LAST_TRAINING_MONTH
    return past, ~past


def train(table: pd.DataFrame, truth: pd.Series) -> Pipeline:
    """Gradient boosting on the features `table` of past flights; `truth` is 0 or 1.

    Its settings were chosen by learning from January to June and judging on July to September.
    """
    categories = list(features.CATEGORIES)
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    prepare = make_column_transformer(
        (encode, categories), remainder="passthrough", verbose_feature_names_out=False
    ).set_output(transform="pandas")
    boosting = HistGradientBoostingClassifier(
        max_iter=120,
        learning_rate=0.05,
        max_leaf_nodes=16,
        min_samples_leaf=500,
        l2_regularization=5.0,
        categorical_features=categories,
        early_stopping=False,
        random_state=SEED,
    )
    return make_pipeline(prepare, boosting).fit(table[list(features.COLUMNS)], truth)


def predict(model: Pipeline, table: pd.DataFrame) -> np.ndarray:
    """Probability of a disruption, for each row."""
    return model.predict_proba(table[list(features.COLUMNS)])[:, 1]


def evaluate(
    model: Pipeline, habit: Habit, table: pd.DataFrame, flights: pd.DataFrame
) -> dict[str, Any]:
    """Everything the report says about the model, as JSON values. Test months only."""
    truth = flights.disrupted.to_numpy()
    guesses = {
        "model": predict(model, table),
        "habit": habit.predict(flights),
        "constant": np.full(len(truth), habit.mean),
    }
    days = flights.month.to_numpy() * 100 + flights.day.to_numpy()
    return {
        "flights": len(truth),
        "rate": float(truth.mean()),
        "past_rate": habit.mean,
        "scores": {name: scores(truth, guess) for name, guess in guesses.items()},
        "gain": gain(truth, guesses["model"], guesses["habit"], days),
        "roc": {name: roc(truth, guesses[name]) for name in ("model", "habit")},
        "calibration": {name: calibration(truth, guesses[name]) for name in ("model", "habit")},
        "capture": {name: capture(truth, guesses[name]) for name in ("model", "habit")},
        "avoid": {name: avoid(truth, guesses[name]) for name in ("model", "habit")},
        "by_month": [
            {
                "month": int(month),
                "rate": float(truth[at].mean()),
                "expected": float(guesses["model"][at].mean()),
                "auc": float(roc_auc_score(truth[at], guesses["model"][at])),
                "habit_auc": float(roc_auc_score(truth[at], guesses["habit"][at])),
            }
            for month in sorted(flights.month.unique())
            for at in [(flights.month == month).to_numpy()]
        ],
        "importance": importance(model, table, truth),
    }


def scores(truth: np.ndarray, guess: np.ndarray) -> dict[str, float]:
    """AUC and average precision: order; Brier and log loss: probabilities (lower is better)."""
    return {
        "auc": float(roc_auc_score(truth, guess)),
        "precision": float(average_precision_score(truth, guess)),
        "brier": float(brier_score_loss(truth, guess)),
        "log_loss": float(log_loss(truth, guess)),
    }


def gain(
    truth: np.ndarray, model: np.ndarray, other: np.ndarray, days: np.ndarray
) -> dict[str, float]:
    """How much AUC the model adds, with a 95 % interval over resampled days.

    Whole days are drawn, not flights: flights of one day share its weather, and an interval that
    takes them as independent would be far too narrow.
    """
    draw = np.random.default_rng(SEED)
    _, day = np.unique(days, return_inverse=True)
    count = int(day.max()) + 1
    gains = []
    for _ in range(RESAMPLES):
        weight = np.bincount(draw.integers(0, count, count), minlength=count)[day]
        at = weight > 0
        pair = [
            roc_auc_score(truth[at], guess[at], sample_weight=weight[at])
            for guess in (model, other)
        ]
        gains.append(pair[0] - pair[1])
    low, high = np.quantile(gains, [0.025, 0.975])
    value = roc_auc_score(truth, model) - roc_auc_score(truth, other)
    return {"auc": float(value), "low": float(low), "high": float(high)}


def roc(truth: np.ndarray, guess: np.ndarray, points: int = 80) -> list[tuple[float, float]]:
    """(false alarms, disruptions found), both shares, at `points` even steps."""
    alarms, found, _ = roc_curve(truth, guess)
    steps = np.linspace(0, 1, points)
    # The curve may rise at once; it starts in the corner all the same.
    heights = np.interp(steps, alarms, found).tolist()
    return [(0.0, 0.0), *zip(steps.tolist(), heights, strict=True)]


def calibration(truth: np.ndarray, guess: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """Predicted and observed share in `bins` groups of equal size, by rising prediction."""
    order = np.argsort(guess, kind="stable")
    return [
        {
            "expected": float(guess[part].mean()),
            "observed": float(truth[part].mean()),
            "flights": len(part),
        }
        for part in np.array_split(order, bins)
        if len(part)
    ]


def capture(truth: np.ndarray, guess: np.ndarray, points: int = 50) -> list[tuple[float, float]]:
    """(share of flights avoided, riskiest first; share of all disruptions among them)."""
    found = np.concatenate([[0], np.cumsum(truth[np.argsort(-guess, kind="stable")])])
    total = max(int(found[-1]), 1)
    return [
        (step / points, float(found[round(len(truth) * step / points)]) / total)
        for step in range(points + 1)
    ]


def avoid(truth: np.ndarray, guess: np.ndarray, share: float = 0.1) -> dict[str, float]:
    """What happens to somebody who avoids the riskiest `share` of the flights."""
    order = np.argsort(-guess, kind="stable")
    worst, rest = np.split(truth[order], [round(len(truth) * share)])
    return {
        "share": share,
        "caught": float(worst.sum() / max(truth.sum(), 1)),
        "worst_rate": float(worst.mean()),
        "rest_rate": float(rest.mean()),
    }


def importance(model: Pipeline, table: pd.DataFrame, truth: np.ndarray) -> list[dict[str, Any]]:
    """AUC lost when the columns of a group are shuffled together; the greatest loss first."""
    draw = np.random.default_rng(SEED)
    at = draw.choice(len(truth), min(SAMPLE, len(truth)), replace=False)
    sample, known = table.iloc[at].reset_index(drop=True), truth[at]
    whole = roc_auc_score(known, predict(model, sample))
    losses = []
    for group, columns in features.GROUPS.items():
        shuffled = sample.copy()
        order = draw.permutation(len(sample))
        for column in columns:
            shuffled[column] = sample[column].to_numpy()[order]
        losses.append(
            {"group": group, "loss": float(whole - roc_auc_score(known, predict(model, shuffled)))}
        )
    return sorted(losses, key=lambda entry: -entry["loss"])

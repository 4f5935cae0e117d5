"""Training: from labelled molecules to a model, and what it is worth."""

from vpotjax.train.config import Training
from vpotjax.train.descent import Descent
from vpotjax.train.evaluate import Evaluation, evaluated
from vpotjax.train.fit import Fitted, fit, linear_fit, whitened
from vpotjax.train.growth import Calibrated, calibrate
from vpotjax.train.pipeline import evaluate, train_run
from vpotjax.train.predict import predictions
from vpotjax.train.property_fit import fit_property
from vpotjax.train.samples import Labels, prepared_buckets
from vpotjax.train.uncertainty import calibrated

__all__ = [
    "Calibrated",
    "Descent",
    "Evaluation",
    "Fitted",
    "Labels",
    "Training",
    "calibrate",
    "calibrated",
    "evaluate",
    "evaluated",
    "fit",
    "fit_property",
    "linear_fit",
    "predictions",
    "prepared_buckets",
    "train_run",
    "whitened",
]

"""Models: representation, whitening, closed-form linear map, and a network's correction."""

from vpotjax.models.calibration import Calibration
from vpotjax.models.domain import Domain
from vpotjax.models.ensemble import Ensemble, Prediction
from vpotjax.models.matrix_model import MatrixModel, MatrixSettings
from vpotjax.models.property_model import PropertyModel, PropertySettings

__all__ = [
    "Calibration",
    "Domain",
    "Ensemble",
    "MatrixModel",
    "MatrixSettings",
    "Prediction",
    "PropertyModel",
    "PropertySettings",
]

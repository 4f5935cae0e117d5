"""Files: data sets, run folders with models, predictions."""

from vpotjax.io.dataset import Dataset, DatasetFile, DatasetWriter, embedded_dataset_path, read_dataset, write_dataset
from vpotjax.io.model import load_model, save_model
from vpotjax.io.predictions import prediction_writer, read_predictions
from vpotjax.io.pretrained import load_pretrained, pretrained_path
from vpotjax.io.run import training_data
from vpotjax.io.sample import Sample
from vpotjax.io.stream import sample_batches

__all__ = [
    "Dataset",
    "DatasetFile",
    "DatasetWriter",
    "Sample",
    "embedded_dataset_path",
    "load_model",
    "load_pretrained",
    "prediction_writer",
    "pretrained_path",
    "read_dataset",
    "read_predictions",
    "sample_batches",
    "save_model",
    "training_data",
    "write_dataset",
]

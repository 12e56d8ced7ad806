"""Images and labels: data sets by name, batches, and random changes of training images."""

from jaxcnn.data.augment import cutmix, cutout, mixup, random_crop, random_flip
from jaxcnn.data.dataset import Dataset, load_dataset
from jaxcnn.data.images import read_image
from jaxcnn.data.pipeline import evaluation_batches, training_batches
from jaxcnn.data.split import Split, StreamedSplit

__all__ = [
    "Dataset",
    "Split",
    "StreamedSplit",
    "cutmix",
    "cutout",
    "evaluation_batches",
    "load_dataset",
    "mixup",
    "random_crop",
    "random_flip",
    "read_image",
    "training_batches",
]

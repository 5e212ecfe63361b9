from .archives import unpack as unpack
from .cache import cache_folder as cache_folder
from .dataset import DRIVEDataset as DRIVEDataset
from .drive import Drive as Drive
from .drive import folds as folds
from .drive import load_drive as load_drive
from .find import DriveFolder as DriveFolder
from .find import find_dataset as find_dataset
from .find import find_drive as find_drive
from .painted import (
    PaintedStream as PaintedStream,
)
from .painted import (
    embedded_folder as embedded_folder,
)
from .painted import (
    painted_dataset as painted_dataset,
)
from .pairing import Pair as Pair
from .reading import read_image as read_image
from .reading import read_mask as read_mask
from .reading import read_prediction as read_prediction
from .sample import Sample as Sample
from .sample import collate as collate

from .contrast import clahe as clahe
from .contrast import green_channel as green_channel
from .fov import detect_fov as detect_fov
from .levels import Levels as Levels
from .levels import levels as levels
from .patches import (
    extract_patches as extract_patches,
)
from .patches import (
    sample_patch_corners as sample_patch_corners,
)
from .patches import (
    squash as squash,
)
from .patches import (
    vanished_fraction as vanished_fraction,
)
from .prepare import (
    Prepared as Prepared,
)
from .prepare import (
    Preprocessing as Preprocessing,
)
from .prepare import (
    as_photograph as as_photograph,
)
from .prepare import (
    prepare as prepare,
)
from .prepare import (
    rescale as rescale,
)
from .prepare import (
    rescale_mask as rescale_mask,
)
from .prepare import (
    standardise as standardise,
)
from .quality import Quality as Quality
from .quality import assess as assess
from .rim import Rim as Rim

from .loop import BEST as BEST
from .loop import LAST as LAST
from .loop import TrainingRun as TrainingRun
from .loop import fit as fit
from .loop import processes as processes
from .provenance import seen as seen
from .provenance import trained_on as trained_on
from .provenance import versions as versions

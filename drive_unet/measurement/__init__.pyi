from .fractal import box_counting_dimension as box_counting_dimension
from .table import MEASURES as MEASURES
from .table import Disc as Disc
from .table import Measurements as Measurements
from .table import measure as measure
from .tracing import Segment as Segment
from .tracing import Trace as Trace
from .tracing import trace as trace

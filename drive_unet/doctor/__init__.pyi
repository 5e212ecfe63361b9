from .copies import DataReport as DataReport
from .copies import check_data as check_data
from .networks import Diagnosis as Diagnosis
from .networks import diagnose as diagnose

from .checking import Exercise as Exercise
from .checking import check as check

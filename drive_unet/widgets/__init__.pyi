from .exercises import check as check
from .explorer import explore as explore
from .eye_explorer import explore_eye as explore_eye
from .numbers import measured as measured

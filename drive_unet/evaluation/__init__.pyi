from .evaluator import Comparison as Comparison
from .evaluator import Evaluation as Evaluation
from .evaluator import compare as compare
from .evaluator import evaluate as evaluate
from .evaluator import evaluate_second_observer as evaluate_second_observer

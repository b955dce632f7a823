from . import partition as partition, task as task, training as training
from .task import Task as Task, digits as digits, spambase as spambase
from .training import train as train

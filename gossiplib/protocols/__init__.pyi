from . import (
    byzantine as byzantine,
    codecs as codecs,
    compressed as compressed,
    privacy as privacy,
    push_sum as push_sum,
    robust as robust,
)
from .byzantine import lying as lying
from .codecs import Parts as Parts, Qsgd as Qsgd, RandomK as RandomK, TopK as TopK
from .compressed import (
    Choco as Choco,
    Compressed as Compressed,
    Partial as Partial,
    Shared as Shared,
)
from .push_sum import AgeWeighted as AgeWeighted, PushSum as PushSum
from .robust import (
    clipped as clipped,
    coordinate_median as coordinate_median,
    trimmed_mean as trimmed_mean,
)

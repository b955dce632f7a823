from . import (
    byzantine as byzantine,
    codecs as codecs,
    compressed as compressed,
    privacy as privacy,
    push_sum as push_sum,
    robust as robust,
)
from .byzantine import (
    ALittleIsEnough as ALittleIsEnough,
    Byzantine as Byzantine,
    Dissensus as Dissensus,
    Inconsistent as Inconsistent,
    Noise as Noise,
    SignFlip as SignFlip,
)
from .codecs import Parts as Parts, Qsgd as Qsgd, RandomK as RandomK, TopK as TopK
from .compressed import (
    Choco as Choco,
    Compressed as Compressed,
    Partial as Partial,
    Shared as Shared,
)
from .privacy import HonestButCurious as HonestButCurious
from .push_sum import PushSum as PushSum
from .robust import (
    ClippedGossip as ClippedGossip,
    TrimmedMean as TrimmedMean,
    coordinate_median as coordinate_median,
)

"""What clients may send and how they may average: beyond the weighted mean.

All average functions, for ``gossip(app, average=...)`` and
``gossip_learning(..., average=...)``; the first two are in `core.averaging`:

=====================  ===============================================================
`weighted_mean`        FED-0002's Algorithm 1, the default
`SoftmaxDistance`      FED-0002's Algorithm 2: weights by what the models predict
`variance_corrected`   a mean that keeps the variance of the models
`GradientTracking`     corrects drift: tracks what moves all models, at twice the bytes
`ExactDiffusion`       corrects drift: D², gives back what averaging took away
`QuasiGlobalMomentum`  momentum of the averages, in place of a client's own
`PushSum`              the mean of all clients, also on directed graphs
`Compressed`           a mean of encoded models, as if they were exact
`Partial`              a mean of what was sent alone
`DeepSqueeze`          a mean of encoded models, with error feedback
`Choco`                the mean, in the end, from encoded differences
`Shared`               a mean of some arrays of the model; the rest stays private
`coordinate_median`    robust: the median of each parameter
`TrimmedMean`          robust: the mean of each parameter without its extremes
`ClippedGossip`        robust: a mean with clipped differences
`Krum`                 robust: the model, or some, with the nearest others
`Byzantine`            another one, under attack
`HonestButCurious`     another one, overheard
`Masked`               the mean of a group, where no member sees another's model
=====================  ===============================================================

Discover functions, for ``gossip(app, discover=...)``; two are in `core.client`:

===============  =====================================================================
`accept_all`     all candidates, the default
`choose`         some candidates at random
`LikeModels`     each once, and then those whose models were nearest to its own
`LikeLabels`     those whose labels are most alike
`UnlikeLabels`   those who make up for its own labels
===============  =====================================================================

`tell_labels` is what clients tell of their labels, `d_cliques` a graph made of it.

Codecs are `TopK`, `RandomK`, `Qsgd` and `Parts`; attacks are `SignFlip`, `Noise`,
`ALittleIsEnough`, `Inconsistent` and `Dissensus`.
"""

from typing import TYPE_CHECKING

from gossiplib._face import face

if TYPE_CHECKING:
    from . import byzantine as byzantine, privacy as privacy, robust as robust
    from .byzantine import (
        ALittleIsEnough as ALittleIsEnough,
        Byzantine as Byzantine,
        Dissensus as Dissensus,
        Inconsistent as Inconsistent,
        Noise as Noise,
        SignFlip as SignFlip,
    )
    from .codecs import (
        Codec as Codec,
        Parts as Parts,
        Qsgd as Qsgd,
        RandomK as RandomK,
        TopK as TopK,
    )
    from .compressed import (
        Choco as Choco,
        Compressed as Compressed,
        DeepSqueeze as DeepSqueeze,
        Partial as Partial,
        Shared as Shared,
    )
    from .diffusion import ExactDiffusion as ExactDiffusion
    from .labels import d_cliques as d_cliques, tell_labels as tell_labels
    from .masked import Masked as Masked
    from .momentum import QuasiGlobalMomentum as QuasiGlobalMomentum
    from .neighbours import (
        LikeLabels as LikeLabels,
        LikeModels as LikeModels,
        UnlikeLabels as UnlikeLabels,
    )
    from .privacy import HonestButCurious as HonestButCurious
    from .push_sum import PushSum as PushSum
    from .robust import (
        ClippedGossip as ClippedGossip,
        Krum as Krum,
        TrimmedMean as TrimmedMean,
        coordinate_median as coordinate_median,
    )
    from .tracking import GradientTracking as GradientTracking
    from .variance import variance_corrected as variance_corrected

__getattr__, __dir__, __all__ = face(__name__)

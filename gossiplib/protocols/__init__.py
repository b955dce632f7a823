"""What clients may send and how they may average: beyond the weighted mean.

All average functions, for ``gossip(app, average=...)`` and
``gossip_learning(..., average=...)``:

===============================  =====================================================
`averaging.weighted_mean`        FED-0002's Algorithm 1, the default (in `core`)
`averaging.SoftmaxDistance`      FED-0002's Algorithm 2 (in `core`)
`averaging.variance_corrected`   keeps the variance of the start (in `core`)
`PushSum`                        the true mean, on directed graphs
`Compressed`, `Partial`,         fewer bytes by a codec: `TopK`, `RandomK`, `Qsgd`,
`Choco`                          `Parts`
`Shared`                         some arrays of the model, the rest private
`coordinate_median`,             withstand Byzantine neighbours
`TrimmedMean`, `ClippedGossip`
`Byzantine`                      another one, attacked: `SignFlip`, `Noise`,
                                 `ALittleIsEnough`, `Inconsistent`, `Dissensus`
`HonestButCurious`               another one, overheard
===============================  =====================================================
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

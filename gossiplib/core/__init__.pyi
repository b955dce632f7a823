from . import (
    averaging as averaging,
    calls as calls,
    checkpoint as checkpoint,
    client as client,
    context as context,
    grid as grid,
    membership as membership,
    mixing as mixing,
    models as models,
    result as result,
    server as server,
    topology as topology,
)
from .averaging import (
    SoftmaxDistance as SoftmaxDistance,
    variance_corrected as variance_corrected,
    weighted_mean as weighted_mean,
)
from .client import accept_all as accept_all, choose as choose, gossip as gossip
from .context import RoundContext as RoundContext, uniforms as uniforms
from .grid import (
    LocalGrid as LocalGrid,
    LocalNode as LocalNode,
    run_on_ray as run_on_ray,
)
from .models import (
    array_bytes as array_bytes,
    dump as dump,
    load as load,
    pack as pack,
    ravel as ravel,
    unpack as unpack,
    unravel as unravel,
)
from .result import GossipResult as GossipResult, Loss as Loss
from .server import Gossip as Gossip
from .topology import churn as churn, drop_links as drop_links, named as named

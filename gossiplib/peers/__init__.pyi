from . import (
    bootstrap as bootstrap,
    launch as launch,
    log as log,
    messages as messages,
    node as node,
    transport as transport,
)
from .launch import (
    Peers as Peers,
    can_start as can_start,
    stored_events as stored_events,
)
from .messages import (
    Mailbox as Mailbox,
    PeerMessage as PeerMessage,
    Refused as Refused,
    decode as decode,
    encode as encode,
)
from .node import Peer as Peer, PeerConfig as PeerConfig
from .transport import Channels as Channels, Server as Server

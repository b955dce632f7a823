"""Gossip with no server: clients that talk to each other over gRPC."""

from typing import TYPE_CHECKING

from gossiplib._face import face

if TYPE_CHECKING:
    from .config import PeerConfig as PeerConfig
    from .launch import Peers as Peers, can_start as can_start
    from .messages import (
        Mailbox as Mailbox,
        PeerMessage as PeerMessage,
        Refused as Refused,
        decode as decode,
        encode as encode,
    )
    from .transport import Channels as Channels, Server as Server

__getattr__, __dir__, __all__ = face(__name__)

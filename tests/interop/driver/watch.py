"""The transactions of one service, in the order in which they come."""

from .ingest import Received
from .peers import Peer, PeerFailed, Peers
from .traces import Transaction, transactions


class Watch:
    """From now on. One watch at a time, of a peer that nobody else calls."""

    def __init__(self, peers: Peers, peer: Peer) -> None:
        self._ingest = peers.ingest
        self._peer = peer
        self._peer.flush()
        self._seen = len(self._all(self._ingest.wait_for(lambda _: True)))

    def take(self, count: int) -> list[Transaction]:
        """The next ones, and there must be no others."""
        expected = self._seen + count
        self._peer.flush()
        received = self._ingest.wait_for(lambda received: len(self._all(received)) >= expected)
        found = self._all(received)[self._seen :]
        if len(found) != count:
            names = [transaction.root.description for transaction in found]
            raise PeerFailed(f"{self._peer.service} sent {len(found)} of {count}: {names[:20]}")
        self._seen = expected
        return found

    def _all(self, received: list[Received]) -> list[Transaction]:
        service = self._peer.service
        return transactions([one for one in received if one.service == service])

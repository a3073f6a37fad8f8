"""How long a peer may take, and how much of it we take at a time: the same at every listener.

Alone owns these numbers. Nobody configures them, so that no one can be talked into patience without end.
"""

from __future__ import annotations

HANDSHAKE_S = 10.0
"""From connecting to the end of the TLS handshake."""
KEEP_ALIVE_S = 60.0
"""Between requests, until the first byte of the next one."""
HEAD_S = 10.0
"""From the first byte of a request's head to its end, and from connecting (under TLS: from the handshake) to
the first head."""
LINGER_S = 2.0
"""For taking leave, and after an answer to a request whose body we did not want, so that closing does not
destroy the answer."""
SEND_CHUNK_BYTES = 64 * 1024
"""Each chunk may take the whole stall limit: slow readers are served, standing ones are not."""
HEAD_BYTES_MAX = 16 * 1024
REQUESTS_PER_CONNECTION_MAX = 10_000
TURNED_AWAY_MAX = 64
"""So many refused connections get a word of explanation at a time; the others wait to be accepted."""
TURNED_AWAY_PER_S = 50.0
"""Connections that come back as fast as they are refused must not take the time of those that are served."""
TURN_AWAY_S = 1.0
TOLD_TOO_MANY_AFTER_S = (0.15, 0.35)
"""Who is over a limit hears of it so much later, at random between the two so that his connections do not
come back together. One who asks again at once, on all of them, would otherwise be refused thousands of times
a second. Who waits as told loses nothing by it."""

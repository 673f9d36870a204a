"""What waits for one link: frames in order, bounded in bytes, each due a fixed delay after it was put."""

from __future__ import annotations

from collections import deque

from epaxos.net.signal import Signal


class Outbox:
    """Closed until its link is up. What it does not take is lost: protocols send again what matters."""

    def __init__(self, *, max_bytes: int, delay_us: int = 0) -> None:
        self._max_bytes = max_bytes
        self._delay_us = delay_us
        self._frames: deque[tuple[int, bytes]] = deque()
        self._open = False
        self.filled = Signal()
        """Set when a frame was put."""
        self.queue_bytes = 0
        """Of the frames that wait."""
        self.queued = 0
        """Frames taken in, in the life of the replica."""
        self.taken_bytes = 0
        """Of the frames that `take` gave, in the life of the replica."""
        self.dropped = 0
        """Frames not taken, in the life of the replica."""

    def open(self) -> None:
        """Take frames from now on."""
        self._open = True

    def close(self) -> None:
        """Forget what waits, and take nothing."""
        self._open = False
        self.dropped += len(self._frames)
        self.queued -= len(self._frames)
        self._frames.clear()
        self.queue_bytes = 0

    def put(self, now_us: int, frame: bytes, *, always: bool = False) -> None:
        """Queue `frame`, unless the queue is full or closed. `always`: the bound does not count for the link's own."""
        if not self._open or (self.queue_bytes + len(frame) > self._max_bytes and not always):
            self.dropped += 1
            return
        self._frames.append((now_us + self._delay_us, frame))
        self.queued += 1
        self.queue_bytes += len(frame)
        self.filled.set()

    def take(self, now_us: int, max_bytes: int) -> bytes:
        """The frames that are due, as one piece of `max_bytes` or little more; empty when there are none."""
        due: list[bytes] = []
        size = 0
        while self._frames and self._frames[0][0] <= now_us and size < max_bytes:
            frame = self._frames.popleft()[1]
            due.append(frame)
            size += len(frame)
        self.queue_bytes -= size
        self.taken_bytes += size
        return due[0] if len(due) == 1 else b"".join(due)

    @property
    def taken(self) -> int:
        """Frames that `take` gave, in the life of the replica."""
        return self.queued - len(self._frames)

    @property
    def due_us(self) -> int | None:
        """When the first frame is due; None when nothing waits."""
        return self._frames[0][0] if self._frames else None

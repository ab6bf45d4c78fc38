"""What the drivers over brokers share: they get an address and a count of messages, and print seconds for a message."""

import json
import os
import sys
import time
from typing import NoReturn

URL, COUNT = sys.argv[1], int(sys.argv[2])
MESSAGE = {
    "meeting_id": 1,
    "user_id": 8,
    "name": "Somebody Important",
    "tags": ["host", "guest", "late"],
    "note": "x" * 100,
}


class Countdown:
    """Measures from the moment when handling begins until the last message was handled."""

    def __init__(self) -> None:
        self.left = COUNT
        self.began = 0.0
        self.seconds = 0.0

    def begin(self) -> None:
        self.began = time.perf_counter()

    def handled(self) -> bool:
        """Note one; whether it was the last."""
        self.left -= 1
        self.seconds = time.perf_counter() - self.began
        return self.left == 0

    def tell(self) -> NoReturn:
        """Print the seconds for one message, and end at once: not every receiver ends when it is told to."""
        print(json.dumps(self.seconds / COUNT), flush=True)
        os._exit(0)

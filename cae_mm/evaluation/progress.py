"""How far a long computation is."""
import sys
import time
from datetime import timedelta

BAR_WIDTH = 20


class Progress:
    """A bar on a terminal; elsewhere, as in the log of a cluster job, a line now and then.

    Args:
        name (str): what is computed.
        total (int): number of its items.
        unit (str): what an item is, in the plural.
        show (bool): print at all.
        interval (float): seconds between two lines; the last one always comes.
    """

    def __init__(self, name: str, total: int, unit: str, show: bool = True, interval: float = 30.):
        self.name, self.total, self.unit, self.show = name, total, unit, show
        self.terminal = sys.stdout.isatty()
        self.interval = 0.2 if self.terminal else interval
        self.done, self.start = 0, time.monotonic()
        self.due = self.start + self.interval

    def update(self, number: int = 1) -> None:
        """Count ``number`` more items."""
        self.done += number
        now = time.monotonic()
        if not self.show or (now < self.due and self.done < self.total):
            return
        self.due = now + self.interval
        elapsed, finished = max(now - self.start, 1e-9), self.done == self.total
        rate = self.done / elapsed
        seconds = elapsed if finished else (self.total - self.done) / rate
        text = (f'{self.name}: {self.done} of {self.total} {self.unit}, {rate:.3g}/s, '
                f'{timedelta(seconds=round(seconds))} {"in all" if finished else "left"}')
        if self.terminal:
            bar = f'{"#" * (BAR_WIDTH * self.done // self.total):<{BAR_WIDTH}}'
            # The clearing code removes what is left of a longer line.
            print(f'\r[{bar}] {text}\033[K', end='\n' if finished else '', flush=True)
        else:
            print(text, flush=True)

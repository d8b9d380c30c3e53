"""How tests wait for what another thread or process does: they look again and again."""


def pause_after(waited: float) -> float:
    """Return the seconds until the next look, after so many seconds of waiting.

    Short at first, for most comes true at once; each look takes time from what it waits for.
    """
    return min(0.02, max(0.001, waited / 10))

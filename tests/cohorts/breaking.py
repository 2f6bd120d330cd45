"""Stands for a library that breaks down over a file. Imports little, since each of its processes does so anew."""

import os
import time


def upper_case(raw, names):
    """Each name in capitals, unless one of them is not to be borne."""
    for name in names:
        if name == "crash":
            os.abort()
        if name == "hang":
            time.sleep(60)
    return [name.upper() for name in names]

"""What is said of errors that are the machine's matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sg.errors import in_words


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**60), lambda: np.empty(2**60, np.uint8)])
def test_memory_that_ran_out_is_told_whichever_library_asked_for_it(allocate):
    with pytest.raises((RuntimeError, MemoryError)) as raised:
        allocate()
    assert in_words(raised.value).startswith("the memory ran out; ")


def test_any_other_complaint_of_a_library_is_a_bug():
    with pytest.raises(RuntimeError) as raised:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert in_words(raised.value) is None

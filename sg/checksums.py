"""HDF5's checksum of a block, computed while it is copied, so that reading and writing can do without HDF5's."""

from __future__ import annotations

import numpy as np

from sg.compiled import compiled


@compiled
def copied_fletcher32(source: np.ndarray, offsets: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Copy blocks of little-endian words out of `source` and give their Fletcher's sums as HDF5 stores them.

    Block i is the bytes of `source`, uint8 (m,), from offsets[i] on (int64 (n,)) that fill targets[i], int16
    (n, words). Sums are int64 (n, 2): of the words, and what the four bytes behind them say it is, -1 if the source
    ends before. (Whoever looks there once all are copied waits for the memory again, 3 % of the whole.)

    HDF5 adds the words big-endian, first themselves and then their running sums, each modulo 65535 by carrying
    round, and keeps the second sum in the upper half. A sum that is a multiple of 65535 is 65535, and 0 only if
    every word is 0. HDF5 also takes what its versions before 1.6.3 stored, with swapped bytes; nobody here does.
    Source: H5_checksum_fletcher32 in H5checksum.c, H5Z__filter_fletcher32 in H5Zfletcher32.c.
    """
    # Words are signed while they are added, 32768 less than HDF5's: the machine multiplies and adds such words in
    # one step. A block of 256 fits into 32 bits, and the sums of a stretch of 2^20 words into 64.
    sums = np.empty((len(offsets), 2), np.int64)
    for number in range(len(offsets)):
        target = targets[number]
        words = source[offsets[number] : offsets[number] + 2 * target.size].view(np.int16)
        first, second, nothing = np.int64(0), np.int64(0), True
        start = 0
        while start < words.size:
            stretch, copy = words[start : start + 2**20], target[start : start + 2**20]
            count = stretch.size
            sum1, sum2 = np.int64(0), np.int64(0)
            done = 0
            while done + 256 <= count:
                block, block_copy = stretch[done : done + 256], copy[done : done + 256]
                low, high = np.int32(0), np.int32(0)
                for place in range(256):
                    block_copy[place] = block[place]
                    word = np.int32(np.int16(block[place] ^ np.int16(-32768)))
                    low = np.int32(low + word)
                    high = np.int32(high + np.int32(word * np.int32(256 - place)))
                sum2 += sum1 * 256 + np.int64(high)
                sum1 += np.int64(low)
                done += 256
            while done < count:
                copy[done] = stretch[done]
                sum1 += np.int64(stretch[done] ^ np.int16(-32768))
                sum2 += sum1
                done += 1
            sum1 += np.int64(32768) * count
            sum2 += np.int64(16384) * count * (count + 1)
            nothing = nothing and sum1 == 0
            second = (second + first * count + sum2) % 65535
            first = (first + sum1) % 65535
            start += count
        # Modulo 65535, swapping a word's bytes is multiplying it by 256.
        first, second = first * 256 % 65535, second * 256 % 65535
        if not nothing:
            first, second = first or 65535, second or 65535
        sums[number, 0] = second << 16 | first
        stored, end = np.int64(-1), offsets[number] + 2 * target.size
        if end + 4 <= source.size:
            stored = np.int64(0)
            for place in range(4):
                stored |= np.int64(source[end + place]) << (8 * place)
        sums[number, 1] = stored
    return sums

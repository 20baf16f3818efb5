"""Many small tensors in one buffer: one copy to a GPU instead of twenty, and half of the bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

WORD = 8  # bytes; the buffer is split into views, so each part has whole words
LINE = 8  # words; PyTorch aligns every tensor so, and sums of floats may be rounded otherwise at other addresses
NARROW = torch.iinfo(torch.int32)


@dataclass(frozen=True)
class Form:
    """What a tensor in a buffer looks like.

    Attributes:
        dtype: Its dtype, outside of the buffer.
        shape: Its shape.
        narrow: Whether the buffer has its numbers in 32 bits instead of 64.
    """

    dtype: torch.dtype
    shape: torch.Size
    narrow: bool

    @property
    def words(self) -> int:
        """Words of the buffer that it takes, whole lines; narrow tensors take theirs together."""
        return 0 if self.narrow else math.ceil(self.shape.numel() * self.dtype.itemsize / WORD / LINE) * LINE

    def part_of(self, words: Tensor) -> Tensor:
        """The tensor in its words, flat."""
        return words.view(self.dtype)[: self.shape.numel()]


@dataclass(frozen=True)
class Packed:
    """Tensors in one buffer.

    Rows of tables, indices and lengths are int64, as PyTorch wants them, but nearly always fit into 32 bits. So the
    buffer has them in 32, and they are widened where they are used.

    Attributes:
        buffer: int64 [words]: the tensors that are not narrow, in order, then the narrow ones as int32.
        forms: Those of the tensors, in order.
    """

    buffer: Tensor
    forms: tuple[Form, ...]

    def pin_memory(self) -> Packed:
        """The same in page-locked memory, from where a GPU can copy while the host goes on."""
        return replace(self, buffer=self.buffer.pin_memory())

    def to(self, device: torch.device, non_blocking: bool = False) -> Packed:
        """The same on another device, in one copy."""
        return replace(self, buffer=self.buffer.to(device, non_blocking=non_blocking))

    def unpack(self) -> tuple[list[Tensor], list[Tensor]]:
        """The tensors, on the buffer's device, and the tensors that they are views of."""
        of_wide = [form.words for form in self.forms]
        *wide, rest = self.buffer.split([*of_wide, len(self.buffer) - sum(of_wide)])
        sizes = [form.shape.numel() for form in self.forms if form.narrow]
        widened = rest.view(torch.int32)[: sum(sizes)].to(torch.int64)
        narrow = iter(widened.split(sizes))
        flat = [
            next(narrow) if form.narrow else form.part_of(words) for form, words in zip(self.forms, wide, strict=True)
        ]
        # each operation that is left out saves as much as a small copy takes
        tensors = [t if len(form.shape) == 1 else t.view(form.shape) for form, t in zip(self.forms, flat, strict=True)]
        return tensors, [self.buffer, widened]


def pack(tensors: Sequence[Tensor], pin_memory: bool = False) -> Packed:
    """Puts the values of CPU tensors into one buffer.

    Args:
        tensors: Contiguous, of any dtype and shape.
        pin_memory: Whether the buffer is page-locked.

    >>> some = [torch.tensor([[0.5, 1.5, 2.5]]), torch.tensor([3, 4]), torch.tensor([2**40])]
    >>> packed = pack(some)
    >>> packed.buffer.nbytes  # a line each for the floats and for the large number, and 4 bytes for each of the others
    136
    >>> packed.unpack()[0]
    [tensor([[0.5000, 1.5000, 2.5000]]), tensor([3, 4]), tensor([1099511627776])]
    """
    forms = tuple(Form(tensor.dtype, tensor.shape, _is_narrow(tensor)) for tensor in tensors)
    narrow = [tensor.flatten() for tensor, form in zip(tensors, forms, strict=True) if form.narrow]
    of_narrow = sum(map(len, narrow))
    wide = sum(form.words for form in forms)
    buffer = torch.empty(wide + math.ceil(of_narrow / 2), dtype=torch.int64, pin_memory=pin_memory)
    words = [_words(tensor) for tensor, form in zip(tensors, forms, strict=True) if not form.narrow]
    if words:
        torch.cat(words, out=buffer[:wide])
    if narrow:
        half_words = buffer[wide:].view(torch.int32)
        half_words[of_narrow:] = 0
        torch.cat(narrow, out=half_words[:of_narrow])
    return Packed(buffer, forms)


def _is_narrow(tensor: Tensor) -> bool:
    if tensor.dtype != torch.int64:
        return False
    if not tensor.numel():
        return True
    least, most = tensor.aminmax()
    return NARROW.min <= int(least) and int(most) <= NARROW.max


def _words(tensor: Tensor) -> Tensor:
    """The tensor's bytes as int64 [words], the last line filled up with zeros."""
    if not tensor.numel():
        return torch.empty(0, dtype=torch.int64)
    flat = tensor.flatten().view(torch.uint8)
    missing = -len(flat) % (WORD * LINE)
    return (torch.nn.functional.pad(flat, (0, missing)) if missing else flat).view(torch.int64)

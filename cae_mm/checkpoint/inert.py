"""What a pickle may name, and what stands for it: no class, function or object of that name."""
import operator
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch

# A run of years stays far below; what is above would take minutes and gigabytes.
MOST_OPERATIONS = 1_500_000
MOST_VALUES = 500_000
MOST_TENSORS = 30_000
LONGEST_NAME = 1000
DEEPEST = 100

DTYPES = {f'torch.{name}': getattr(torch, name) for name in (
    'float64', 'float32', 'float16', 'bfloat16', 'int64', 'int32', 'int16', 'int8', 'uint8', 'bool',
    'uint16', 'uint32', 'uint64', 'complex64', 'complex128', 'float8_e4m3fn', 'float8_e5m2')}
STORAGES = dict(Double='float64', Float='float32', Half='float16', BFloat16='bfloat16', Long='int64',
                Int='int32', Short='int16', Char='int8', Byte='uint8', Bool='bool',
                ComplexFloat='complex64', ComplexDouble='complex128', Untyped='uint8')
# Their objects stand as a dict of their state: command lines, and what a training logged.
HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'
RECORDS = ('argparse.Namespace', HISTORY)
KEYS = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names."""

    name: str


@dataclass
class Made:
    """Stands for an object of a class: of ``RECORDS``, of numpy, or a pickled module."""

    name: str
    args: tuple = ()
    state: Any = None


@dataclass(frozen=True)
class Storage:
    """The numbers of one or more tensors, which lie elsewhere in the file."""

    key: str
    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return self.numel * self.dtype.itemsize


@dataclass
class Stored:
    """A tensor in a file: what it is, and how it is read, which compares it with ``checksum``."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    storage: Storage
    offset: int
    stride: tuple[int, ...]
    reader: Callable[['Stored'], torch.Tensor] = field(default=None, repr=False)
    checksum: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return prod(self.shape) * self.dtype.itemsize

    def read(self) -> torch.Tensor:
        """Its numbers; a ValueError when they are not there, or not those that were written."""
        return self.reader(self)


def refuse(name: str) -> None:
    """A ValueError that says what a file asked for: its name, no value, which may have no end."""
    sparse = ' (for a sparse tensor)' if name == 'torch.serialization._get_layout' else ''
    raise ValueError(f'it asks for {name}{sparse}, and no file runs code here')


def _tensor(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None, dtype=None):
    if not isinstance(storage, Storage) or metadata or len(size) > 32 or any(
            type(n) is not int or not 0 <= n < 2**63 for n in (offset, *size, *stride)):
        raise ValueError('it has a tensor whose storage, size, stride or bits are none')
    tensor = Stored(dtype or storage.dtype, tuple(size), storage, offset, tuple(stride))
    there = storage.nbytes // tensor.dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if prod(size) and (last >= there or prod(size) > there):
        raise ValueError(f'it has a tensor of {"x".join(map(str, size))} numbers, with stride '
                         f'{tuple(stride)} and offset {offset}, in a storage of {there}')
    return tensor


def row_major(name: str, dtype: torch.dtype, shape: list[int], reader: Callable) -> Stored:
    """A tensor that is all of a storage, in the usual order."""
    shape = [*map(operator.index, shape)]  # a product of other things may have gigabytes
    stride = [prod(shape[i + 1:]) for i in range(len(shape))]
    stored = _tensor(Storage(name, dtype, prod(shape)), 0, shape, stride)
    stored.reader = reader
    return stored


def _statistic(owner, name):
    # HistoryBuffer pickles its statistics methods by name; nothing is looked up, nor kept.
    if owner != Name(HISTORY) or type(name) is not str or not name.isidentifier() or name.startswith('_'):
        refuse(f'builtins.getattr of a {getattr(owner, "name", type(owner).__name__)}')


def keyed(value):
    """A key of a dict or an item of a set: no hash that can be made to collide, no text but a name."""
    if (type(value) not in KEYS or type(value) is int and abs(value) >= 2**53
            or type(value) is str and not (len(value) <= LONGEST_NAME and value.isprintable())):
        raise ValueError(f'it has a key that is none, a {type(value).__name__}')
    return value


def dict_of(pairs=(), kind=dict):
    """A dict of pairs, or of another dict, with keys that are some."""
    return kind((keyed(key), value) for key, value in getattr(pairs, 'items', lambda: pairs)())


def encoded(text):
    """How protocol 2 holds bytes."""
    return text.encode('latin-1')


# What a pickle may call, and what is done instead. Whatever is not here is refused.
CALLS = {
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_tensor_v3': lambda *args: _tensor(*args[:6], *args[7:], dtype=args[6]),
    'torch._utils._rebuild_parameter': lambda data, *_: data,
    'torch._utils._rebuild_parameter_with_state': lambda data, *_: data,
    'torch.Size': tuple,
    'torch.device': lambda kind, index=None: kind if index is None else f'{kind}:{index}',
    'collections.OrderedDict': lambda pairs=(): dict_of(pairs, OrderedDict),
    'collections.Counter': lambda pairs=(): Counter(dict_of(pairs)),  # the milestones of a schedule
    'mmengine.config.config.ConfigDict': dict_of,
    'builtins.set': lambda items=(): set(map(keyed, items)),
    'builtins.getattr': _statistic,
    '_codecs.encode': encoded,
    'numpy.dtype': lambda *args: Made('numpy.dtype', args),
    **{f'numpy.{core}.multiarray.{name}': call for core in ('core', '_core') for name, call in (
        ('_reconstruct', lambda *_: Made('numpy.ndarray')),
        ('scalar', lambda *args: Made('numpy.scalar', args)))},
}
CONSTANTS = {**DTYPES, **{f'{module}.{kind}Storage': DTYPES[f'torch.{dtype}'] for kind, dtype in
                          STORAGES.items() for module in ('torch', 'torch.cuda', 'torch.storage')}}


def plain(value: Any, size: int) -> Any:
    """What ``unpickle`` gave, as containers of plain values and ``Stored`` tensors.

    A pickled module, or one of TorchScript, becomes its state dict, an object of ``RECORDS`` a dict of its
    state. A ValueError for every other name, and for more values than a file of ``size`` bytes can hold.
    """
    values, room = MOST_VALUES, 16 * size  # some models share arrays, and name them more than once

    def walk(value, depth=0):
        nonlocal values, room
        values -= MOST_VALUES // MOST_TENSORS if isinstance(value, Stored) else 1
        room -= len(value) if isinstance(value, (str, bytes)) else getattr(value, 'nbytes', 0)
        if depth > DEEPEST or values < 0 or room < 0:
            raise ValueError('its values are nested too deep or too many, or shared so often that they '
                             'would be larger than the file by far')
        if isinstance(value, dict):
            result = type(value)({key: walk(item, depth + 1) for key, item in value.items()})
            if hasattr(value, '_metadata'):
                result._metadata = walk(value._metadata, depth + 1)
            return result
        if isinstance(value, (list, tuple)):
            return type(value)(walk(item, depth + 1) for item in value)
        if isinstance(value, Made) and value.name.startswith('numpy.'):
            array = _numbers(value)
            room -= array.nbytes
            return array if value.name == 'numpy.ndarray' else array.item()
        if isinstance(value, Made):
            state = walk(value.state, depth + 1)
            if not isinstance(state, dict):
                refuse(value.name)
            if value.name == HISTORY:
                return dict(log=state['_log_history'], count=state['_count_history'],
                            max_length=state['max_length'])
            return state if value.name in RECORDS else _state_dict(value.name, state)
        if isinstance(value, (Name, Storage)):
            refuse(getattr(value, 'name', 'a storage without a tensor'))
        return value

    try:
        return walk(value)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f'its pickle is damaged ({error})') from error


def _numbers(made: Made) -> np.ndarray:
    dtype, shape, fortran, content = ((made.args[0], (), False, made.args[1]) if made.name == 'numpy.scalar'
                                      else (made.state[2], *made.state[1:2], *made.state[3:5]))
    code = dtype.args[0]
    if dtype.name != 'numpy.dtype' or not re.fullmatch('[biufc][0-9]{1,2}', code):
        refuse(f'numpy objects of {code[:9]}')
    numbers = np.frombuffer(content, np.dtype(code).newbyteorder(dtype.state[1] if dtype.state else '='))
    return numbers.reshape(shape, order='F' if fortran else 'C')


def _state_dict(name: str, state: dict) -> dict[str, Stored]:
    if name.startswith('__torch__.'):  # TorchScript: tensors, modules and numbers side by side
        tensors = {key: value for key, value in state.items() if isinstance(value, Stored)}
        return tensors | {keyed(f'{child}.{key}'): tensor for child, inner in state.items()
                          if isinstance(inner, dict) for key, tensor in inner.items()
                          if isinstance(tensor, Stored)}
    if not {'_parameters', '_buffers', '_modules'} <= state.keys():
        refuse(name)
    kept = state['_buffers'].keys() - state.get('_non_persistent_buffers_set', ())
    tensors = state['_parameters'] | {key: state['_buffers'][key] for key in kept}
    for child, inner in state['_modules'].items():
        tensors |= {keyed(f'{child}.{key}'): tensor for key, tensor in (inner or {}).items()}
    return {key: tensor for key, tensor in tensors.items() if tensor is not None}

"""Pickles read without running them: nothing that one names is imported, looked up or called."""
import functools
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, BinaryIO

import numpy as np
import torch

# A run of years stays far below; what is above would take minutes and gigabytes.
MOST_OPERATIONS = 3_000_000
MOST_TENSORS = 50_000
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

PUSHED = {'NONE': lambda: None, 'NEWTRUE': lambda: True, 'NEWFALSE': lambda: False, 'EMPTY_TUPLE': tuple,
          'EMPTY_LIST': list, 'EMPTY_DICT': dict, 'EMPTY_SET': set}
VALUES = {'INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT', 'STRING',
          'BINSTRING', 'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'BYTEARRAY8',
          'UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8'}


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
        """Its numbers.

        Raises:
            ValueError: when they are not there, or not those that were written.
        """
        return self.reader(self)


def _refuse(name: str) -> None:
    raise ValueError(f'it asks for {name}, which is refused: no file runs code here')


def _tensor(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None, dtype=None):
    numbers = (offset, *size, *stride)
    if not isinstance(storage, Storage) or any(type(n) is not int or not 0 <= n < 2**63 for n in numbers):
        raise ValueError(f'a tensor of {storage} with size {size}, stride {stride}, offset {offset}')
    if metadata:
        raise ValueError(f'a tensor with the bits {metadata}: only plain numbers are read')
    tensor = Stored(dtype or storage.dtype, tuple(size), storage, offset, tuple(stride))
    there = storage.numel * storage.dtype.itemsize // tensor.dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if len(size) > 32 or prod(size) and (last >= there or prod(size) > there):
        raise ValueError(f'a tensor of {"x".join(map(str, size))} numbers, with stride {tuple(stride)} and '
                         f'offset {offset}, in a storage of {there}')
    return tensor


def row_major(name: str, dtype: torch.dtype, shape: list[int], reader: Callable) -> Stored:
    """A tensor that is all of a storage, in the usual order."""
    stride = [prod(shape[i + 1:]) for i in range(len(shape))]
    stored = _tensor(Storage(name, dtype, prod(shape)), 0, shape, stride)
    stored.reader = reader
    return stored


def _statistic(owner, name):
    # HistoryBuffer pickles its statistics methods by name; nothing is looked up, nor kept.
    if owner != Name(HISTORY) or not name.isidentifier() or name.startswith('_'):
        _refuse(f'builtins.getattr of {getattr(owner, "name", type(owner).__name__)} {name!r}')


def _keyed(value):
    """A key of a dict or an item of a set, of a type whose hash cannot be made to collide."""
    if type(value) not in KEYS or type(value) is int and abs(value) >= 2**53:
        raise ValueError(f'a {type(value).__name__} as a key')
    return value


def _dict(pairs=(), kind=dict):
    return kind((_keyed(key), value) for key, value in getattr(pairs, 'items', lambda: pairs)())


def _array(kind, shape, typecode):
    if kind != Name('numpy.ndarray'):
        _refuse(f'an array of {kind}')
    return Made('numpy.ndarray')


# What a pickle may call, and what is done instead.
CALLS = {
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_tensor_v3': lambda *args: _tensor(*args[:6], *args[7:], dtype=args[6]),
    'torch._utils._rebuild_parameter': lambda data, *_: data,
    'torch._utils._rebuild_parameter_with_state': lambda data, *_: data,
    'torch.Size': tuple,
    'torch.device': lambda kind, index=None: kind if index is None else f'{kind}:{index}',
    'collections.OrderedDict': lambda pairs=(): _dict(pairs, OrderedDict),
    'collections.Counter': _dict,
    'collections.defaultdict': lambda factory=None: {},
    'mmengine.config.config.ConfigDict': _dict,
    'builtins.set': lambda items=(): set(map(_keyed, items)),
    'builtins.getattr': _statistic,
    '_codecs.encode': None,  # see op_reduce
    'pathlib.PosixPath': lambda *parts: '/'.join(parts).replace('//', '/'),
    'numpy.dtype': lambda *args: Made('numpy.dtype', args),
    **{f'numpy.{core}.multiarray.{name}': call for core in ('core', '_core') for name, call in (
        ('_reconstruct', _array), ('scalar', lambda *args: Made('numpy.scalar', args)))},
}
CONSTANTS = {**DTYPES, **{f'{module}.{kind}Storage': DTYPES[f'torch.{dtype}'] for kind, dtype in
                          STORAGES.items() for module in ('torch', 'torch.cuda', 'torch.storage')}}


class Unpickler:
    """A machine for the operations of pickles that only ever builds what is written in this file.

    Args:
        file (BinaryIO): stands at the beginning of a pickle, and then behind its end. Its ``read``
            must not take more memory than the file has bytes.
        reader (Callable, optional): of the tensors that it describes.
    """

    def __init__(self, file: BinaryIO, reader: Callable[[Stored], torch.Tensor] | None = None):
        self.file, self.reader, self.stack, self.below, self.memo = file, reader, [], [], {}
        self.storages, self.tensors = {}, 0
        self.encode = functools.lru_cache(maxsize=None)(self._encode)  # one text, however often it is asked

    def load(self) -> Any:
        """What the pickle describes, with ``Stored``, ``Made`` and ``Name`` in it: see ``plain``.

        Raises:
            ValueError: for whatever is not allowed, by its name, and for a damaged pickle.
        """
        try:
            for count, (operation, arg, _) in enumerate(pickletools.genops(self.file)):
                name = operation.name
                if name in VALUES:
                    if type(arg) is int and arg.bit_length() > 128:
                        raise ValueError(f'a number of {arg.bit_length()} bits')
                    self.stack.append(arg)
                elif name in PUSHED:
                    self.stack.append(PUSHED[name]())
                elif name not in ('PROTO', 'FRAME', 'STOP'):
                    method = getattr(self, f'op_{name.lower()}', None)
                    method(arg) if method else _refuse(f'the operation {name} {arg or ""}')
                if count == MOST_OPERATIONS:
                    raise ValueError(f'its pickle has more than {MOST_OPERATIONS} operations')
            return self.stack.pop()
        except (LookupError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f'its pickle is damaged ({error})') from error

    def op_mark(self, _):
        self.below.append(self.stack)
        self.stack = []

    def marked(self) -> list:
        """The values since the last mark."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def op_pop(self, _):
        self.stack.pop() if self.stack else self.marked()

    def op_pop_mark(self, _):
        self.marked()

    def op_dup(self, _):
        self.stack.append(self.stack[-1])

    def op_put(self, index):
        self.memo[index] = self.stack[-1]

    def op_memoize(self, _):
        self.memo[len(self.memo)] = self.stack[-1]

    def op_get(self, index):
        self.stack.append(self.memo[index])

    op_binput = op_long_binput = op_put
    op_binget = op_long_binget = op_get

    def op_tuple(self, _):
        items = self.marked()
        self.stack.append(tuple(items))

    def op_tuple1(self, _, size=1):
        self.stack[-size:] = [tuple(self.stack[-size:])]

    op_tuple2 = functools.partialmethod(op_tuple1, size=2)
    op_tuple3 = functools.partialmethod(op_tuple1, size=3)

    def op_list(self, _):
        items = self.marked()
        self.stack.append(items)

    def op_dict(self, _):
        items = self.marked()
        self.stack.append(_dict(zip(items[::2], items[1::2], strict=True)))

    def op_appends(self, _, items=None):
        items = self.marked() if items is None else items
        if type(self.stack[-1]) is not list:
            _refuse(f'appending to a {type(self.stack[-1]).__name__}')
        self.stack[-1].extend(items)

    def op_append(self, _):
        self.op_appends(_, [self.stack.pop()])

    def op_setitems(self, _, items=None):
        items = self.marked() if items is None else items
        if type(self.stack[-1]) not in (dict, OrderedDict):
            _refuse(f'items of a {type(self.stack[-1]).__name__}')
        self.stack[-1].update(_dict(zip(items[::2], items[1::2], strict=True)))

    def op_setitem(self, _):
        value, key = self.stack.pop(), self.stack.pop()
        self.op_setitems(_, [key, value])

    def op_additems(self, _):
        items = self.marked()
        if type(self.stack[-1]) is not set:
            _refuse(f'items of a {type(self.stack[-1]).__name__}')
        self.stack[-1].update(map(_keyed, items))

    def op_global(self, arg):
        module, _, name = arg.partition(' ')
        text = f'{dict(__builtin__="builtins", copy_reg="copyreg").get(module, module)}.{name}'
        self.stack.append(CONSTANTS.get(text, Name(text)))

    def op_stack_global(self, _):
        name, module = self.stack.pop(), self.stack.pop()
        self.op_global(f'{module} {name}')

    def op_binpersid(self, _):
        key = self.stack.pop()
        if key[0] == 'module':  # the format before 1.6: a class, and its source code, which is not read
            self.stack.append(key[1])
            return
        kind, dtype, name, location, numel, *view = key
        if (kind != 'storage' or not isinstance(dtype, torch.dtype) or type(numel) is not int or numel < 0
                or any(view) or type(name) is not str or location == 'meta'):
            _refuse(f'the storage {key}')
        storage = Storage(name, dtype, numel)
        former = self.storages.setdefault(name, storage)
        if former.numel * former.dtype.itemsize < numel * dtype.itemsize:
            raise ValueError(f'storage {name} has {former.numel} and {numel} numbers')
        self.stack.append(storage)

    @staticmethod
    def _encode(text: str, encoding: str) -> bytes:
        if encoding not in ('latin1', 'latin-1'):
            _refuse(f'_codecs.encode to {encoding!r}')
        return text.encode('latin-1')  # how protocol 2 holds bytes

    def op_reduce(self, _):
        args, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Name) or function.name not in CALLS or type(args) is not tuple:
            _refuse(function.name if isinstance(function, Name) else f'a call of {type(function).__name__}')
        result = (self.encode(*args) if function.name == '_codecs.encode'
                  else CALLS[function.name](*args))
        if isinstance(result, Stored):
            result.reader, self.tensors = self.reader, self.tensors + 1
            if self.tensors > MOST_TENSORS:
                raise ValueError(f'it has more than {MOST_TENSORS} tensors')
        self.stack.append(result)

    def op_newobj(self, _):
        args, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, Name) or args != ():
            _refuse(getattr(kind, 'name', f'an object of {type(kind).__name__}'))
        self.stack.append(Made(kind.name))

    def op_build(self, _):
        state, made = self.stack.pop(), self.stack[-1]
        if type(made) is OrderedDict and type(state) is dict and list(state) == ['_metadata']:
            made._metadata = state['_metadata']  # versions of the layers, which a state dict has
        elif isinstance(made, Made) and made.state is None:
            made.state = state
        else:
            _refuse(f'the state of a {type(made).__name__}')


def plain(value: Any, size: int) -> Any:
    """What was described, as containers of plain values and ``Stored`` tensors.

    A pickled module becomes its state dict, an object of ``RECORDS`` a dict of its state.

    Args:
        value: what ``Unpickler`` gave.
        size (int): bytes of the file, which bound what the values may take together.

    Raises:
        ValueError: for every name that is none of these, and for more than the file can hold.
    """
    values, room = MOST_OPERATIONS, 16 * size  # some models share arrays, and name them more than once

    def walk(value, depth=0):
        nonlocal values, room
        values -= 1
        room -= getattr(value, 'nbytes', 0)
        if depth > DEEPEST or values < 0 or room < 0:
            raise ValueError('its values are nested too deep, or shared so often that they would be '
                             'larger than the file by far')
        if isinstance(value, dict):
            result = type(value)((key, walk(item, depth + 1)) for key, item in value.items())
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
                _refuse(value.name)
            if value.name == HISTORY:
                return dict(log=state["_log_history"], count=state["_count_history"],
                            max_length=state['max_length'])
            return state if value.name in RECORDS else _state_dict(value.name, state)
        if isinstance(value, (Name, Storage)):
            _refuse(getattr(value, 'name', f'a bare {value}'))
        return value

    try:
        return walk(value)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f'its pickle is damaged ({error})') from error


def _numbers(made: Made) -> np.ndarray:
    dtype, shape, fortran, content = ((made.args[0], (), False, made.args[1]) if made.name == 'numpy.scalar'
                                      else (made.state[2], *made.state[1:2], *made.state[3:5]))
    code = dtype.args[0]
    if dtype.name != 'numpy.dtype' or not re.fullmatch('[biufc][0-9]+', code):
        _refuse(f'numpy objects of {code}')
    numbers = np.frombuffer(content, np.dtype(code).newbyteorder(dtype.state[1] if dtype.state else '='))
    return numbers.reshape(shape, order='F' if fortran else 'C')


def _state_dict(name: str, state: dict) -> dict[str, Stored]:
    if not {'_parameters', '_buffers', '_modules'} <= state.keys():
        _refuse(name)
    kept = state['_buffers'].keys() - state.get('_non_persistent_buffers_set', ())
    tensors = state['_parameters'] | {key: state['_buffers'][key] for key in kept}
    for child, inner in state['_modules'].items():
        tensors |= {f'{child}.{key}': tensor for key, tensor in (inner or {}).items()}
    return {key: tensor for key, tensor in tensors.items() if tensor is not None}

"""Pickles read without running them: nothing that one names is imported, looked up or called."""
import functools
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

import torch

from cae_mm.checkpoint.inert import (
    CALLS,
    CONSTANTS,
    MOST_OPERATIONS,
    Made,
    Name,
    Storage,
    Stored,
    dict_of,
    encoded,
    keyed,
    refuse,
)

PUSHED = {'NONE': lambda: None, 'NEWTRUE': lambda: True, 'NEWFALSE': lambda: False, 'EMPTY_TUPLE': tuple,
          'EMPTY_LIST': list, 'EMPTY_DICT': dict, 'EMPTY_SET': set}
VALUES = {'BININT', 'BININT1', 'BININT2', 'LONG1', 'LONG4', 'BINFLOAT', 'BINSTRING', 'SHORT_BINSTRING',
          'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8'}


def unpickle(file: BinaryIO, reader: Callable[[Stored], torch.Tensor] | None = None,
             storages: dict[str, Storage] | None = None) -> Any:
    """What a pickle describes, with ``Stored``, ``Made`` and ``Name`` in it: see ``plain``.

    ``file`` stands at the beginning of the pickle, and then behind its end; its ``read`` must not take more
    memory than it has bytes. ``reader`` is that of the tensors, whose ``storages`` are collected. A
    ValueError for whatever is not allowed, by its name, and for a damaged pickle.
    """
    stack, below, memo, copied, storages = [], [], {}, 0, {} if storages is None else storages
    encode = functools.lru_cache(maxsize=None)(encoded)  # one text, however often it is asked for
    try:
        for count, (operation, arg, _) in enumerate(pickletools.genops(file)):
            if count + copied > MOST_OPERATIONS:
                raise ValueError(f'its pickle has more than {MOST_OPERATIONS} operations')
            match operation.name:
                case 'BINPUT' | 'LONG_BINPUT':
                    memo[arg] = stack[-1]
                case 'BINGET' | 'LONG_BINGET':
                    stack.append(memo[arg])
                case 'MEMOIZE':
                    memo[len(memo)] = stack[-1]
                case name if name in VALUES:
                    if type(arg) is int and arg.bit_length() > 128:
                        raise ValueError(f'its pickle has a number of {arg.bit_length()} bits')
                    stack.append(arg)
                case name if name in PUSHED:
                    stack.append(PUSHED[name]())
                case 'MARK':
                    below.append(stack)
                    stack = []
                case 'TUPLE1' | 'TUPLE2' | 'TUPLE3' as name:
                    size = int(name[-1])
                    stack[-size:] = [tuple(stack[-size:])]
                case 'TUPLE':
                    stack, items = below.pop(), stack
                    stack.append(tuple(items))
                case 'APPENDS' | 'SETITEMS' | 'ADDITEMS' as name:
                    stack, items = below.pop(), stack
                    _extend(name, stack[-1], items)
                case 'APPEND' | 'SETITEM' as name:
                    size = 1 if name == 'APPEND' else 2
                    items = stack[-size:]
                    del stack[-size:]
                    _extend(f'{name}S', stack[-1], items)
                case 'GLOBAL' | 'STACK_GLOBAL' as name:
                    names = arg.split(' ', 1) if name == 'GLOBAL' else (stack.pop(-2), stack.pop())
                    module, name = map(keyed, names)
                    # Protocol 2 has the names of Python 2.
                    text = '.'.join(NAME_MAPPING.get((module, name),
                                                     (IMPORT_MAPPING.get(module, module), name)))
                    stack.append(CONSTANTS.get(text, Name(text)))
                case 'BINPERSID':
                    stack.append(_storage(stack.pop(), storages))
                case 'REDUCE':
                    args, function = stack.pop(), stack.pop()
                    if getattr(function, 'name', None) not in CALLS or type(args) is not tuple:
                        refuse(getattr(function, 'name', f'a call of a {type(function).__name__}'))
                    copied += len(args) + sum(len(x) for x in args if isinstance(x, (dict, list, tuple)))
                    call = CALLS[function.name]
                    if call is encoded and not (type(args[0]) is str and args[1] in ('latin1', 'latin-1')):
                        refuse('another encoding than that of bytes')
                    made = encode(args[0]) if call is encoded else call(*args)
                    if isinstance(made, Stored):
                        made.reader = reader
                    stack.append(made)
                case 'NEWOBJ':
                    args, kind = stack.pop(), stack.pop()
                    if not isinstance(kind, Name) or args != ():
                        refuse(getattr(kind, 'name', f'an object of a {type(kind).__name__}'))
                    stack.append(Made(kind.name))
                case 'BUILD':
                    state, made = stack.pop(), stack[-1]
                    if (type(made) is OrderedDict and type(state) is dict and len(state) == 1
                            and isinstance(state.get('_metadata'), dict)):
                        made._metadata = state['_metadata']  # versions of layers, which a state dict has
                    elif isinstance(made, Made) and made.state is None:
                        made.state = state
                    else:
                        refuse(f'the state of a {type(made).__name__}')
                case name if name not in ('PROTO', 'FRAME', 'STOP'):
                    refuse(f'{arg or ""} by {name}, which torch.save does not write')
        return stack.pop()
    except (LookupError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f'its pickle is damaged ({error})') from error


def _extend(how, there, items):
    kind = dict(APPENDS=(list,), SETITEMS=(dict, OrderedDict), ADDITEMS=(set,))[how]
    if type(there) not in kind:
        refuse(f'items of a {type(there).__name__}')
    if how == 'APPENDS':
        there.extend(items)
    else:
        there.update(dict_of(zip(items[::2], items[1::2], strict=True)) if how == 'SETITEMS'
                     else map(keyed, items))


def _storage(key, storages):
    if key[0] == 'module':  # before torch 1.6: a class, and its source code, which is not looked at
        return key[1]
    kind, dtype, name, location, numel = key[:5]
    if isinstance(dtype, Name):
        refuse(dtype.name)
    if (kind != 'storage' or not isinstance(dtype, torch.dtype) or type(numel) is not int or numel < 0
            or key[5:] not in ((), (None,)) or type(name) is not str or location == 'meta'):
        refuse('a storage of another kind, or on the meta device')
    storage = Storage(name, dtype, numel)
    if storages.setdefault(name, storage).nbytes < storage.nbytes:
        raise ValueError(f'storage {name} has {storages[name].numel} numbers, or {numel}')
    return storage

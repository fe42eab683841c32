"""Damaged checkpoints: bits and bytes, records of a zip, headers of a safetensors, contents saved again.

A damage says what it may change, which decides whether a file without a checksum could tell:

- bytes: anything, in a file whose format may have its own checksums (a zip has, the others do not)
- values: numbers alone, in a file that is in order
- shapes: names, shapes or places of arrays, in a file that is in order; who knows the model can tell
- invalid: the file is not in order, or an array is no floating-point one, or is not finite
- form: nothing that counts; accepted with the same numbers, or refused
"""
import copy
import functools
import io
import json
import struct
import zipfile

import numpy as np
import torch
from safetensors.torch import save as save_safetensors

BOMB = 5 * 2**29
OTHER_FILES = [
    b'', b'\n', b'<!DOCTYPE html><title>Not found</title>', b'{}', b'[]', b'Entry not found', bytes(5000),
    b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n', b'PK\5\6' + bytes(18),
    b'\x1f\x8b\x08' + bytes(50), b'\x89PNG\r\n\x1a\n' + bytes(50), struct.pack('<Q', 2**62) + b'{}',
    struct.pack('<Q', 2) + b'{}', b'\x80\x02}.', b'\x80\x04N.', b'\x93NUMPY\1\0', b'[' * 100000]
OTHER_HEADERS = [b'[' * 50000, b'{"a":' * 20000, b'{}', b'[]', b'null', b'{"a": NaN}', b'\xff{}', b' ' * 99]
METADATA = ['', '{', 'null', '[]', '{"num_heads": "x"}', '{"num_heads": []}', '[' * 10000, '{"a": 1e999}']
LIES = [
    ('shape', [2**40]), ('shape', [2**62, 4]), ('shape', [-1]), ('shape', []), ('shape', None),
    ('shape', 'x'), ('dtype', 'I32'), ('dtype', 'F64'), ('dtype', 'BOOL'), ('dtype', 'X'),
    ('data_offsets', [0, 2**50]), ('data_offsets', [4, 0]), ('data_offsets', [4, 8])]
NAMES = ['more', 'backbone.blocks.1000000.norm1.weight', 'backbone.blocks.-1.norm1.weight', '', 'x' * 99999,
         'head.more\nline', 'backbone.blocks.2.norm1.weight']
INTEGERS = [torch.int64, torch.int32, torch.uint8, torch.int8, torch.bool]


def make(rng: np.random.Generator, data: bytes, form: str, content: dict) -> tuple[str, str, bytes]:
    """Damage a file (zip, legacy, safetensors): the damage's name, what it changes, and the bytes.

    Without its ``content`` only what needs none.
    """
    name = pick(rng, [name for name, (_, level, forms, _) in DAMAGES.items() if form[0] in forms and (
        content or level in ('file', 'records'))])
    changes, level, _, function = DAMAGES[name]
    if level in ('file', 'records', 'header'):
        change = dict(file=function, records=functools.partial(rezip, change=function),
                      header=functools.partial(reheader, change=function))[level]
        return name, changes, change(rng, data)
    content = copy.deepcopy(content)
    state = content['state_dict']
    array = pick(rng, [key for key, x in state.items() if x.is_floating_point() and x.numel() > 1])
    if level == 'content':
        function(rng, content)
    elif level == 'keys':
        function(rng, state, array)
    else:
        state[array] = function(rng, state[array])
    return name, changes, dump(content, form)


def pick(rng, choices):
    return choices[int(rng.integers(len(choices)))]


def dump(content: dict, form: str) -> bytes:
    """A file with this content."""
    if form == 'safetensors':
        return save_safetensors({name: value.contiguous() for name, value in content['state_dict'].items()},
                                {'format': 'pt', **content.get('header', {})})
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=form == 'zip')
    return buffer.getvalue()


def rezip(rng, data, change) -> bytes:
    """Write the records of a zip anew, after ``change`` of their list of names and bytes."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        records = [[name, file.read(name)] for name in file.namelist()]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', change(rng, records) or zipfile.ZIP_STORED) as file:
        for name, content in records:
            file.writestr(name, content)
    return buffer.getvalue()


def reheader(rng, data, change) -> bytes:
    """Write the header of a safetensors anew, after ``change`` of it, or the bytes that this returns."""
    size = struct.unpack('<Q', data[:8])[0]
    header = json.loads(data[8:8 + size])
    text = change(rng, header) or json.dumps(header).encode()
    return struct.pack('<Q', len(text)) + text + data[8 + size:]


# --- bytes ---------------------------------------------------------------------------------------

def part(rng, data, most):
    """What is before, in and behind a random part."""
    start, size = int(rng.integers(max(1, len(data)))), int(rng.integers(1, most))
    return data[:start], data[start:start + size], data[start + size:]


def replace(rng, data, most, new):
    before, old, behind = part(rng, data, most)
    return before + new(old) + behind


def flip(rng, data, head=None):
    data = bytearray(data)
    for place in rng.integers(0, 8 * min(len(data), head or len(data)), rng.integers(1, 4)):
        data[place // 8] ^= 1 << place % 8
    return bytes(data)


def cut(rng, data):
    return data[:pick(rng, [0, 1, len(data) - 1, rng.integers(len(data)), rng.integers(len(data))])]


def lie_in_the_directory(rng, data):
    """A size, an offset, a checksum or a flag of the zip's directory is another."""
    data = bytearray(data)
    entries = [i for i in range(len(data) - 4) if data[i:i + 4] == b'PK\1\2']
    place = pick(rng, entries) + pick(rng, [8, 10, 16, 20, 24, 28, 42])
    data[place:place + 4] = struct.pack('<I', pick(rng, [0, 1, 2**31, 2**32 - 1, 12345]))
    return bytes(data)


@functools.cache
def packed_zeros(record: str) -> bytes:
    """A zip whose record of ``BOMB`` zeros takes a thousandth of that."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open(f'archive/{record}', 'w', force_zip64=True) as stream:
            for _ in range(BOMB >> 24):
                stream.write(bytes(2**24))
    return buffer.getvalue()


def bomb(rng, data):
    """A record of zeros as the pickle itself, or as the numbers of an array that the pickle asks for."""
    record = pick(rng, ['data.pkl', 'data/0'])
    buffer, number = io.BytesIO(packed_zeros(record)), b'J' + struct.pack('<i', BOMB // 4)
    if record == 'data/0':
        array = (b'ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\n'
                 b'X\1\0\0\x000X\3\0\0\0cpu' + number + b'tQK\0' + number
                 + b'\x85K\1\x85\x89ccollections\nOrderedDict\n)RtR')
        with zipfile.ZipFile(buffer, 'a') as file:
            file.writestr('archive/data.pkl', b'\x80\2}X\x0a\0\0\0state_dict}X\1\0\0\0w' + array + b'ss.')
            file.writestr('archive/version', b'3\n')
            file.writestr('archive/byteorder', b'little')
    return buffer.getvalue()


# --- records and headers -------------------------------------------------------------------------

def array_of(rng, records):
    return pick(rng, [record for record in records if '/data/' in record[0] and len(record[1]) > 8])


def swap(rng, records):
    one, other = array_of(rng, records), array_of(rng, records)
    one[1], other[1] = other[1], one[1]


def other_numbers(rng, records):
    record = array_of(rng, records)
    record[1] = bytes(byte ^ 1 for byte in record[1])


def shorten(rng, records):
    record = array_of(rng, records)
    record[1] = record[1][:rng.integers(len(record[1]) - 1)]


def twice(rng, records):
    name, content = array_of(rng, records)
    records.insert(int(rng.integers(len(records))), [name, bytes(len(content))])


def second_pickle(rng, records):
    program = b'\x80\x02cos\nsystem\nX\x14\0\0\0touch chaos_was_here\x85R.'
    records.insert(pick(rng, [0, len(records)]), [f'{records[0][0].split("/")[0]}/data.pkl', program])


def lie_in_the_header(rng, header):
    key, value = pick(rng, LIES)
    header[pick(rng, [name for name in header if name != '__metadata__'])][key] = value


def other_header(rng, header):
    more = [json.dumps(header | new).encode() for new in ({'x': 1}, {'__metadata__': {'cae_mm': 1}})]
    return pick(rng, [*OTHER_HEADERS, *more, json.dumps(header).encode()[:-1]])


# --- contents ------------------------------------------------------------------------------------

def not_finite(rng, value):
    value = value.clone(memory_format=torch.contiguous_format)
    value.view(-1)[rng.integers(value.numel())] = pick(rng, [np.nan, np.inf, -np.inf])
    return value


def other_shape(rng, value):
    return pick(rng, [value.flatten(), value[None], value.transpose(0, -1).clone(), torch.cat(2 * [value])])


def more_keys(rng, state, name):
    state[pick(rng, [*NAMES, f'{name}.more', name.upper()])] = state[name].clone()


def no_names(rng, state, name):
    state[pick(rng, [0, None, (1, 2), b'bytes', 1.5])] = state[name]


def other_structure(rng, content):
    state, nested = content.pop('state_dict'), []
    for _ in range(pick(rng, [10, 100])):
        nested = [nested]
    kept = dict(content, state_dict=state)
    content.clear()
    content.update(pick(rng, [{}, {'model': {'state_dict': kept}}, *(
        {'state_dict': other} for other in (None, [], {}, nested, list(state.items())))]))


def other_history(rng, content):
    """What a resumed run reads beside the weights is of another kind, or gone."""
    keys = [key for key in ('meta', 'optimizer', 'param_schedulers', 'message_hub') if key in content]
    if keys and rng.random() < 0.7:
        content[key := pick(rng, keys)] = pick(rng, [None, 'text', [], {}, 7])
        if rng.random() < 0.3:
            del content[key]
    elif isinstance(content.get('meta'), dict):
        content['meta'][pick(rng, list(content['meta']))] = pick(
            rng, [None, 'text', -1, 10**12, [], {}, 1.5, np.nan])


def other_optimizer(rng, content):
    """An array of the optimizer is another."""
    if states := content.get('optimizer', {}).get('state'):
        state = states[pick(rng, list(states))]
        value = state['exp_avg']
        state['exp_avg'] = pick(rng, [value * np.nan, value[:1], value.long(), value + 1, None])


# What it changes, what its function gets, in which files (zip, legacy, safetensors), and the function.
DAMAGES = {
    'flipped bits': ('bytes', 'file', 'zls', flip),
    'flipped bits in the head': ('bytes', 'file', 'zls', lambda rng, data: flip(rng, data, 20000)),
    'other bytes': ('bytes', 'file', 'zls', lambda rng, data: replace(
        rng, data, 5000, lambda old: rng.bytes(len(old)))),
    'zeros': ('bytes', 'file', 'zls', lambda rng, data: replace(
        rng, data, 65536, lambda old: bytes(len(old)))),
    'lost bytes': ('bytes', 'file', 'zls', lambda rng, data: replace(rng, data, 4096, lambda old: b'')),
    'moved bytes': ('bytes', 'file', 'zls', lambda rng, data: replace(
        rng, data, 4096, lambda old: data[(start := rng.integers(len(data))):start + len(old)])),
    'cut': ('bytes', 'file', 'zls', cut),
    'longer': ('form', 'file', 'zls', lambda rng, data: data + rng.bytes(pick(rng, [1, 100, 70000]))),
    'something else': ('invalid', 'file', 'zls', lambda rng, data: pick(rng, OTHER_FILES)),
    'header length': ('invalid', 'file', 's', lambda rng, data: struct.pack(
        '<Q', pick(rng, [0, 1, 2**31, 2**40, 2**62, len(data), len(data) - 8])) + data[8:]),
    'lying directory': ('form', 'file', 'z', lie_in_the_directory),
    'zip bomb': ('invalid', 'file', 'z', bomb),
    'swapped records': ('values', 'records', 'z', swap),
    'other numbers in a record': ('values', 'records', 'z', other_numbers),
    'shorter record': ('invalid', 'records', 'z', shorten),
    'missing record': ('invalid', 'records', 'z', lambda rng, all: all.remove(array_of(rng, all))),
    'record twice': ('values', 'records', 'z', twice),
    'second pickle': ('invalid', 'records', 'z', second_pickle),
    'other order of records': ('form', 'records', 'z', lambda rng, records: records.reverse()),
    'deflated': ('form', 'records', 'z', lambda rng, records: zipfile.ZIP_DEFLATED),
    'lying header': ('invalid', 'header', 's', lie_in_the_header),
    'other header': ('invalid', 'header', 's', other_header),
    'lying metadata': ('form', 'header', 's', lambda rng, header: header.update(
        __metadata__={'cae_mm': pick(rng, METADATA)})),
    'not finite': ('invalid', 'array', 'zls', not_finite),
    'all NaN': ('invalid', 'array', 'zls', lambda rng, value: torch.full_like(value, np.nan)),
    'integers': ('invalid', 'array', 'zls', lambda rng, value: (value * 10).to(pick(rng, INTEGERS))),
    'complex numbers': ('invalid', 'array', 'z', lambda rng, value: value.to(torch.complex64)),
    'other precision': ('values', 'array', 'zls', lambda rng, value: value.to(
        pick(rng, [torch.float16, torch.bfloat16]))),
    'other numbers': ('values', 'array', 'zls', lambda rng, value: pick(
        rng, [value.roll(1, 0), torch.zeros_like(value), value + 1])),
    'repeated by stride': ('values', 'array', 'z', lambda rng, value: value[:1].expand_as(value)),
    'petabytes by stride': ('invalid', 'array', 'z', lambda rng, value: value.flatten()[:1].expand(
        2**int(rng.integers(31, 50)))),
    'cut array': ('shapes', 'array', 'zls', lambda rng, value: value[:rng.integers(len(value))].clone()),
    'other shape': ('shapes', 'array', 'zls', other_shape),
    'without numbers': ('invalid', 'array', 'z', lambda rng, value: value.to('meta')),
    'sparse': ('invalid', 'array', 'z', lambda rng, value: value.to_sparse()),
    'quantised': ('invalid', 'array', 'z', lambda rng, value: torch.quantize_per_tensor(
        value, 0.1, 0, torch.qint8)),
    'no array': ('shapes', 'array', 'zl', lambda rng, value: pick(
        rng, [None, 'text', 1.5, [1., 2.], {}, value.tolist()])),
    'missing key': ('shapes', 'keys', 'zls', lambda rng, state, name: state.pop(name)),
    'more keys': ('shapes', 'keys', 'zls', more_keys),
    'keys that are no names': ('shapes', 'keys', 'zl', no_names),
    'other structure': ('shapes', 'content', 'zl', other_structure),
    'other history': ('values', 'content', 'z', other_history),
    'other optimizer': ('values', 'content', 'z', other_optimizer)}

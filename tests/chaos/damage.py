"""Damaged checkpoints: bits and bytes, records of a zip, headers of a safetensors, contents saved again.

A damage says what it may change, which decides whether a file without a checksum could tell:

- bytes: anything, in a file whose format may have its own check sums (a torch zip has, the others do not)
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

DAMAGES = {}
BOMB = 5 * 2**29


def damage(kind: str, *suits: str):
    """Register a damage that changes ``kind`` in files of these formats."""
    return lambda function: DAMAGES.setdefault(function.__name__.replace('_', ' '), (kind, suits, function))


def make(rng: np.random.Generator, data: bytes, form: str, content: dict) -> tuple[str, str, bytes]:
    """Damage a file of a form (zip, legacy, safetensors): the damage's name, what it changes, and the bytes."""
    names = [name for name, (_, suits, _) in DAMAGES.items() if form in suits and (
        content or 'content' not in suits) or not suits]
    name = names[rng.integers(len(names))]
    kind, suits, function = DAMAGES[name]
    if 'content' in suits:
        content = copy.deepcopy(content)
        function(rng, content)
        return name, kind, dump(content, form)
    return name, kind, function(rng, data)


def dump(content: dict, form: str) -> bytes:
    """A file with this content."""
    if form == 'safetensors':
        return save_safetensors({name: value.contiguous() for name, value in content['state_dict'].items()},
                                {'format': 'pt', **content.get('header', {})})
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=form == 'zip')
    return buffer.getvalue()


# --- any file ------------------------------------------------------------------------------------

@damage('bytes')
def flipped_bits(rng, data):
    data = bytearray(data)
    for place in rng.integers(0, 8 * len(data), rng.integers(1, 4)):
        data[place // 8] ^= 1 << place % 8
    return bytes(data)


@damage('bytes')
def flipped_bit_in_the_head(rng, data):
    data = bytearray(data)
    data[rng.integers(min(len(data), 20000))] ^= 1 << rng.integers(8)
    return bytes(data)


@damage('bytes')
def other_bytes(rng, data):
    start, size = rng.integers(len(data)), int(rng.integers(1, 5000))
    return data[:start] + rng.bytes(len(data[start:start + size])) + data[start + size:]


@damage('bytes')
def zeros(rng, data):
    start, size = rng.integers(len(data)), int(rng.choice([16, 512, 4096, 65536]))
    return data[:start] + bytes(len(data[start:start + size])) + data[start + size:]


@damage('bytes')
def moved_block(rng, data):
    size = int(rng.integers(1, 4097))
    one, other = rng.integers(max(1, len(data) - size), size=2)
    return data[:one] + data[other:other + size] + data[one + size:]


@damage('bytes')
def lost_block(rng, data):
    start, size = rng.integers(len(data)), int(rng.integers(1, 4097))
    return data[:start] + data[start + size:]


@damage('bytes')
def cut(rng, data):
    return data[:rng.choice([0, 1, len(data) - 1, rng.integers(len(data)), rng.integers(len(data))])]


@damage('form')
def longer(rng, data):
    return data + rng.bytes(int(rng.choice([1, 100, 70000])))


@damage('invalid')
def something_else(rng, data):
    texts = [b'', b'\n', b'<!DOCTYPE html><title>Not found</title>', b'{}', b'[]', b'Entry not found', b'\0' * 5000,
             b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n', b'PK\5\6' + bytes(18),
             b'\x1f\x8b\x08' + bytes(50), b'\x89PNG\r\n\x1a\n' + bytes(50), struct.pack('<Q', 2**62) + b'{}',
             struct.pack('<Q', 2) + b'{}', b'\x80\x02}.', b'\x80\x04N.', b'\x93NUMPY\1\0', b'[' * 100000]
    return texts[rng.integers(len(texts))]


# --- zip -----------------------------------------------------------------------------------------

def rezip(data: bytes, change, compression=zipfile.ZIP_STORED) -> bytes:
    """Write the records anew, after ``change`` of their list of name and bytes."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        records = [[name, file.read(name)] for name in file.namelist()]
    change(records)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', compression) as file:
        for name, content in records:
            file.writestr(name, content)
    return buffer.getvalue()


def arrays(records: list) -> list:
    return [record for record in records if '/data/' in record[0] and len(record[1]) > 8]


@damage('values', 'zip')
def swapped_records(rng, data):
    def change(records):
        one, other = rng.choice(len(arrays(records)), 2, replace=False)
        one, other = arrays(records)[one], arrays(records)[other]
        one[1], other[1] = other[1], one[1]
    return rezip(data, change)


@damage('values', 'zip')
def other_numbers_in_a_record(rng, data):
    def change(records):
        record = arrays(records)[rng.integers(len(arrays(records)))]
        record[1] = (np.frombuffer(record[1], np.uint8) ^ np.uint8(1)).tobytes()
    return rezip(data, change)


@damage('invalid', 'zip')
def record_of_another_length(rng, data):
    def change(records):
        record = arrays(records)[rng.integers(len(arrays(records)))]
        record[1] = record[1][:rng.integers(len(record[1]) - 1)]
    return rezip(data, change)


@damage('invalid', 'zip')
def missing_record(rng, data):
    return rezip(data, lambda records: records.remove(arrays(records)[rng.integers(len(arrays(records)))]))


@damage('form', 'zip')
def other_order_of_records(rng, data):
    return rezip(data, lambda records: records.reverse())


@damage('form', 'zip')
def deflated(rng, data):
    return rezip(data, lambda records: None, zipfile.ZIP_DEFLATED)


@damage('values', 'zip')
def record_twice(rng, data):
    def change(records):
        name, content = arrays(records)[rng.integers(len(arrays(records)))]
        records.insert(int(rng.integers(len(records))), [name, bytes(len(content))])
    return rezip(data, change)


@damage('invalid', 'zip')
def two_pickles(rng, data):
    program = b'\x80\x02cos\nsystem\nX\x16\0\0\0touch chaos_was_here  \x85R.'
    return rezip(data, lambda records: records.insert(
        int(rng.choice([0, len(records)])), [f'{records[0][0].split("/")[0]}/data.pkl', program]))


@damage('form', 'zip')
def lying_directory(rng, data):
    """A size, an offset, a checksum or a flag of the zip's directory is another."""
    data = bytearray(data)
    entries = [i for i in range(len(data) - 4) if data[i:i + 4] == b'PK\1\2']
    place = entries[rng.integers(len(entries))] + int(rng.choice([8, 10, 16, 20, 24, 28, 42]))
    data[place:place + 4] = struct.pack('<I', int(rng.choice([0, 1, 2**31, 2**32 - 1, 12345])))
    return bytes(data)


@functools.cache
def bomb(record: str) -> bytes:
    """A zip whose record of ``BOMB`` zeros takes a thousandth of that."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open(f'archive/{record}', 'w', force_zip64=True) as stream:
            for _ in range(BOMB >> 24):
                stream.write(bytes(2**24))
    return buffer.getvalue()


@damage('invalid', 'zip')
def zip_bomb(rng, data):
    record = str(rng.choice(['data.pkl', 'data/0']))
    packed = bytearray(bomb(record))
    if record == 'data.pkl':
        return bytes(packed)
    buffer = io.BytesIO(packed)
    storage = b'((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuJ' + struct.pack('<i', BOMB // 4) + b'tQ'
    tensor = (b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage[1:] + b'K\0J' + struct.pack('<i', BOMB // 4)
              + b'\x85K\1\x85\x89ccollections\nOrderedDict\n)RtR')
    with zipfile.ZipFile(buffer, 'a') as file:
        file.writestr('archive/data.pkl', b'\x80\2}X\x0a\0\0\0state_dict}X\1\0\0\0w' + tensor + b'ss.')
        file.writestr('archive/version', b'3\n')
        file.writestr('archive/byteorder', b'little')
    return buffer.getvalue()


# --- safetensors ---------------------------------------------------------------------------------

def reheader(data: bytes, change) -> bytes:
    """Write the header anew, after ``change`` of its dictionary, or with the bytes that it returns."""
    size = struct.unpack('<Q', data[:8])[0]
    header = json.loads(data[8:8 + size])
    text = change(header) or json.dumps(header).encode()
    return struct.pack('<Q', len(text)) + text + data[8 + size:]


@damage('invalid', 'safetensors')
def lying_header(rng, data):
    def change(header):
        names = [name for name in header if name != '__metadata__']
        entry = header[names[rng.integers(len(names))]]
        lies = [('shape', [2**40]), ('shape', [2**62, 4]), ('shape', [-1]), ('shape', []), ('dtype', 'I32'), ('dtype', 'F64'),
                ('dtype', 'BOOL'), ('dtype', 'X'), ('data_offsets', [0, 2**50]), ('data_offsets', [4, 0]), ('shape', 'x'),
                ('data_offsets', [entry['data_offsets'][0] + 4, entry['data_offsets'][1] + 4]), ('shape', None)]
        key, value = lies[rng.integers(len(lies))]
        entry[key] = value
    return reheader(data, change)


@damage('invalid', 'safetensors')
def header_of_another_kind(rng, data):
    def change(header):
        texts = [b'[' * 50000, b'{"a":' * 20000, b'{}', b'[]', b'null', b'{"a": NaN}', b'\xff\xfe{}', b' ' * 1000,
                 json.dumps(header).encode()[:-1], json.dumps(header | {'x': 1}).encode(),
                 json.dumps(header | {'__metadata__': {'cae_mm': 1}}).encode()]
        return texts[rng.integers(len(texts))]
    return reheader(data, change)


@damage('form', 'safetensors')
def lying_metadata(rng, data):
    texts = ['', '{', 'null', '[]', '{"num_heads": "x"}', '{"num_heads": [[]]}', '[' * 100000, '{"img_size": 1e999}']
    return reheader(data, lambda header: header.update(__metadata__={'cae_mm': texts[rng.integers(len(texts))]}))


@damage('invalid', 'safetensors')
def header_length(rng, data):
    return struct.pack('<Q', int(rng.choice([0, 1, 2**31, 2**40, 2**62, len(data), len(data) - 8]))) + data[8:]


# --- contents ------------------------------------------------------------------------------------

def an_array(rng, content: dict, floating: bool = True) -> tuple[dict, str]:
    """The place of an array of the state dict, at random, that has at least two numbers."""
    state = content['state_dict']
    names = [name for name, value in state.items() if value.numel() > 1 and value.is_floating_point()]
    return state, names[rng.integers(len(names))]


def changed(kind: str, *suits: str):
    """Register a damage of one array: a function of the array and the random numbers."""
    def register(function):
        def change(rng, content):
            state, name = an_array(rng, content)
            state[name] = function(state[name], rng)
        change.__name__ = function.__name__
        return damage(kind, 'content', *suits)(change)
    return register


ANY = 'zip', 'legacy', 'safetensors'


@changed('invalid', *ANY)
def not_finite(value, rng):
    value = value.clone()
    value.view(-1)[rng.integers(value.numel())] = float(rng.choice([np.nan, np.inf, -np.inf]))
    return value


@changed('invalid', *ANY)
def all_nan(value, rng):
    return torch.full_like(value, np.nan)


@changed('invalid', *ANY)
def another_type(value, rng):
    return (value * 10).to([torch.int64, torch.int32, torch.uint8, torch.int8, torch.bool][rng.integers(5)])


@changed('values', *ANY)
def another_precision(value, rng):
    return value.to([torch.float16, torch.bfloat16][rng.integers(2)])


@changed('invalid', 'zip')
def complex_numbers(value, rng):
    return value.to(torch.complex64)


@changed('shapes', *ANY)
def cut_array(value, rng):
    return value[:rng.integers(len(value))].clone()


@changed('shapes', *ANY)
def another_shape(value, rng):
    return [value.flatten(), value[None], value.transpose(0, -1).contiguous(), torch.cat([value, value])][rng.integers(4)]


@changed('values', *ANY)
def other_numbers(value, rng):
    return value.roll(1, 0) if rng.random() < 0.5 else torch.zeros_like(value)


@changed('invalid', 'zip')
def without_numbers(value, rng):
    return value.to('meta')


@changed('invalid', 'zip')
def sparse(value, rng):
    return value.to_sparse()


@changed('invalid', 'zip')
def quantised(value, rng):
    return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


@changed('values', 'zip')
def repeated_by_stride(value, rng):
    return value.flatten()[:1].expand(value.numel()).view(value.shape) if value.dim() == 1 else value[:1].expand_as(value)


@changed('invalid', 'zip')
def petabytes_by_stride(value, rng):
    return value.flatten()[:1].expand(2**int(rng.integers(31, 50)))


@changed('shapes', 'zip', 'legacy')
def no_array(value, rng):
    return [None, 'text', 1.5, [1., 2.], {}, value.tolist()][rng.integers(6)]


@damage('shapes', 'content', *ANY)
def missing_key(rng, content):
    state, name = an_array(rng, content)
    del state[name]


@damage('shapes', 'content', *ANY)
def more_keys(rng, content):
    state, name = an_array(rng, content)
    names = [f'{name}.more', 'backbone.blocks.1000000.norm1.weight', 'backbone.blocks.-1.norm1.weight', '', 'x' * 100000,
             'head.more\nline', 'backbone.blocks.2.norm1.weight', name.upper()]
    state[names[rng.integers(len(names))]] = state[name].clone()


@damage('shapes', 'content', 'zip', 'legacy')
def keys_that_are_no_names(rng, content):
    state, name = an_array(rng, content)
    state[[0, None, (1, 2), b'bytes', 1.5][rng.integers(5)]] = state[name]


@damage('shapes', 'content', 'zip', 'legacy')
def another_structure(rng, content):
    kept = dict(content)
    content.clear()
    nested = []
    for _ in range(int(rng.choice([10, 500]))):
        nested = [nested]
    content.update([{'state_dict': None}, {'state_dict': []}, {'state_dict': nested}, {}, {'state_dict': {}},
                    {'model': {'state_dict': kept}}, {'state_dict': list(kept['state_dict'].items())}][rng.integers(7)])


@damage('values', 'content', 'zip')
def another_history(rng, content):
    """What a resumed run reads beside the weights is of another kind, or gone."""
    keys = [key for key in ('meta', 'optimizer', 'param_schedulers', 'message_hub') if key in content]
    if keys and rng.random() < 0.7:
        key = keys[rng.integers(len(keys))]
        content[key] = [None, 'text', [], {}, 7][rng.integers(5)]
        if rng.random() < 0.3:
            del content[key]
    elif isinstance(content.get('meta'), dict):
        key = list(content['meta'])[rng.integers(len(content['meta']))]
        content['meta'][key] = [None, 'text', -1, 10**12, [], {}, 1.5, float('nan')][rng.integers(8)]


@damage('values', 'content', 'zip')
def another_optimizer(rng, content):
    """Arrays of the optimizer are damaged."""
    states = content.get('optimizer', {}).get('state', {})
    if states:
        state = states[list(states)[rng.integers(len(states))]]
        value = state['exp_avg']
        state['exp_avg'] = [value * np.nan, value[:1], value.long(), value + 1, None][rng.integers(5)]

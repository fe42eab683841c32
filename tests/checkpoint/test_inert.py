"""Hostile files: nothing runs, no claim takes memory, and the error says what they asked for."""
import argparse
import copyreg
import functools
import importlib
import io
import json
import operator
import os
import pickle
import resource
import struct
import subprocess
import tarfile
import time
import zipfile

import mmengine
import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import initialize
from mmengine.runner import load_checkpoint
from torch import nn

import cae_mm
from cae_mm.checkpoint.convert import convert_file
from cae_mm.checkpoint.files import read_checkpoint, read_weights
from cae_mm.checkpoint.loader import load_backbone
from cae_mm.models.targets.dalle import DALLEEncoder

from .conftest import DIMS, HEADS, SIZE


class Call:
    """What is unpickled by calling a function."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


def touch(path):
    return f'open({str(path)!r}, "w").close()'


CALLS = {
    'builtins.exec': lambda trace: Call(exec, touch(trace)),
    'builtins.eval': lambda trace: Call(eval, touch(trace)),
    'posix.system': lambda trace: Call(os.system, f'touch {trace}'),
    'subprocess.Popen': lambda trace: Call(subprocess.Popen, ['touch', str(trace)]),
    'torch._tensor._rebuild_from_type_v2': lambda trace: Call(
        torch._tensor._rebuild_from_type_v2, exec, torch.Tensor, (touch(trace),), {}),
    'torch.storage._load_from_bytes': lambda trace: Call(torch.storage._load_from_bytes, b'nested'),
    'torch.hub.load': lambda trace: Call(torch.hub.load, str(trace), 'model'),
    'functools.partial': lambda trace: Call(functools.partial, exec, touch(trace)),
    'operator.attrgetter': lambda trace: Call(operator.attrgetter, 'system'),
    'operator.methodcaller': lambda trace: Call(operator.methodcaller, 'touch'),
    'importlib.import_module': lambda trace: Call(importlib.import_module, 'antigravity'),
    'copyreg._reconstructor': lambda trace: Call(copyreg._reconstructor, nn.Module, object, None),
    'getattr of a mmengine.*HistoryBuffer': lambda trace: Call(getattr, HistoryBuffer, '__init__'),
    'getattr of a argparse.Namespace': lambda trace: Call(getattr, argparse.Namespace(a=exec), 'a'),
    'builtins.exec, ': lambda trace: argparse.Namespace(a=exec),
    'posix.system, ': lambda trace: os.system,
    'numpy objects of O8': lambda trace: np.array([{}], dtype=object),
    'torch.serialization._get_layout .for a sparse tensor': lambda trace: torch.eye(3).to_sparse(),
    'torch._utils._rebuild_meta': lambda trace: torch.empty(3, device='meta'),
    'torch.QUInt8Storage': lambda trace: torch.quantize_per_tensor(
        torch.ones(3), 1., 0, torch.quint8),
    'pathlib': lambda trace: trace,
}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('asked', CALLS)
def test_a_pickle_gets_nothing_called_and_the_error_says_what_it_wanted(tmp_path, asked, zipped):
    trace, path = tmp_path / 'trace', tmp_path / 'hostile.pth'
    content = dict(state_dict={'a': torch.ones(1)}, meta=CALLS[asked](trace))
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for read in (read_checkpoint, read_weights):
        with pytest.raises(ValueError, match=f'hostile.pth is refused: it asks for (builtins.)?({asked})'):
            read(path)
    assert not trace.exists()


def zipped(path, content, compression=zipfile.ZIP_STORED, **records):
    """Write what torch.save writes, with a pickle and records of one's own."""
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for name, data in (('data.pkl', content), ('byteorder', b'little'), *records.items()):
            archive.writestr(f'x/{name.replace("__", "/")}', data)
    return path


def described(size, stride, offset=0, numel=4, kind=b'FloatStorage', key=b'0'):
    """The pickle of a tensor with any claims."""
    def number(n):
        return b'\x8a\x10' + int(n).to_bytes(16, 'little', signed=True)

    def numbers(values):
        return b'(' + b''.join(map(number, values)) + b't'

    storage = (b'(X\7\0\0\0storagectorch\n' + kind + b'\nX' + struct.pack('<I', len(key)) + key
               + b'X\3\0\0\0cpu' + number(numel) + b'tQ')
    return (b'\x80\2}X\1\0\0\0wctorch._utils\n_rebuild_tensor_v2\n(' + storage + number(offset)
            + numbers(size) + numbers(stride) + b'\x89ccollections\nOrderedDict\n)RtRs.')


@pytest.mark.parametrize('claims, problem', [
    (dict(size=[2**50], stride=[0]), 'a tensor of 1125899906842624 numbers'),
    (dict(size=[2**62, 2**62], stride=[0, 0]), 'a tensor (of|whose) '),
    (dict(size=[5], stride=[1]), 'in a storage of 4'),
    (dict(size=[2], stride=[4]), 'in a storage of 4'),
    (dict(size=[-1], stride=[1]), 'a tensor (of|whose) '),
    (dict(size=[2], stride=[-1], offset=1), 'a tensor (of|whose) '),
    (dict(size=[1], stride=[1], offset=2**70), 'a tensor (of|whose) '),
    (dict(size=[1], stride=[1, 1]), 'refused: '),
    (dict(size=[1] * 100, stride=[1] * 100), 'a tensor (of|whose) '),
    (dict(size=[1], stride=[1], numel=-1), 'a storage of'),
    (dict(size=[2**40], stride=[1], numel=2**40), 'of 1099511627776 numbers has 16 bytes'),
    (dict(size=[1], stride=[1], key=b'../../etc/passwd'), 'has 0 bytes'),
    (dict(size=[1], stride=[1], kind=b'QInt8Storage'), 'torch.QInt8Storage'),
])
def test_no_tensor_is_larger_than_its_storage(tmp_path, claims, problem):
    path = zipped(tmp_path / 'x.pth', described(**claims), data__0=bytes(16))
    with pytest.raises(ValueError, match=problem):
        read_checkpoint(path)


@pytest.fixture
def little_memory():
    """A process that may not grow by more than a gigabyte."""
    now = int(open('/proc/self/statm').read().split()[0]) * os.sysconf('SC_PAGE_SIZE')
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def nested(depth, empty=b']', add=b'a'):
    return empty * depth + add * (depth - 1)


SHARED = b'\x80\2]' + b''.join(b'q%c](h%ch%ce' % (i, i, i) for i in range(64))
BOMBS = {
    'a memo': b'\x80\2Nr\xff\xff\xff\xff.',
    'a bytearray': b'\x80\5\x96' + struct.pack('<Q', 2**40) + b'.',
    'bytes': b'\x80\4\x8e' + struct.pack('<Q', 2**40) + b'.',
    'text': b'\x80\4\x8d' + struct.pack('<Q', 2**62) + b'.',
    'an integer': b'\x80\2\x8b' + struct.pack('<i', 2**31 - 1) + b'.',
    'a negative length': b'\x80\2\x8b' + struct.pack('<i', -5) + b'.',
    'a long integer': b'\x80\2\x8b' + struct.pack('<i', 2**20) + b'\1' * 2**20 + b'.',
    'a frame': b'\x80\4\x95' + struct.pack('<Q', 2**62) + b'N.',
    'an extension': b'\x80\2\x82\1.',
    'an old object': b'\x80\2(cos\nsystem\nX\4\0\0\0trueo.',
    'an old instance': b'(X\4\0\0\0trueios\nsystem\n.',
    'a text as a key': b'Pos.system\n.',
    'depth': b'\x80\2' + nested(100_000) + b'.',
    'tuples in tuples': b'\x80\2)' + b'\x85' * 100_000 + b'.',
    'a list in itself': b'\x80\2]q\0h\0a.',
    'shared lists': SHARED + b'.',
    'a text encoded often': (b'\x80\2X' + struct.pack('<I', 2**20) + b'a' * 2**20 + b'q\0]'
                             + b'(' + b'c_codecs\nencode\nh\0X\6\0\0\0latin1\x86R' * 5000 + b'e.'),
    'many operations': b'\x80\2(' + b'N' * 1_600_000 + b't.',
    'keys that collide': b'\x80\2}(' + b''.join(
        b'\x8a\x0c' + (i * (2**61 - 1)).to_bytes(12, 'little') + b'N' for i in range(30_000)) + b'u.',
    # Each is small; copied, printed or hashed, it would have no end.
    'a call of shared lists': SHARED + b')R.',
    'a storage of shared lists': SHARED + b'\x85Q.',
    'shared tuples encoded': (b'\x80\2)q\0' + b''.join(
        b'h%c\x85h%c\x86q%c' % (i, i, i + 1) for i in range(60))
                              + b'c_codecs\nencode\nh\x3cX\6\0\0\0latin1\x86R.'),
    'shared lists as a key': b'\x80\2}' + SHARED[2:] + b'Ns.',
    'shared lists as a size': described([1], [1]).replace(b'\x89ccoll', SHARED[2:] + b'ccoll'),
    'long lists copied': (b'\x80\2](' + b'N' * 100_000 + b'eq\0('
                          + b'ctorch\nSize\nh\0\x85R' * 50_000 + b't.'),
    'many arguments': (b'\x80\2](' + b'N' * 100_000 + b'tq\0('
                       + b'ctorch._utils\n_rebuild_parameter\nh\0R' * 50_000 + b't.'),
    'long names joined': (b'\x80\4X' + struct.pack('<I', 2**20) + b'a' * 2**20 + b'q\0('
                          + b'h\0h\0\x93' * 50_000 + b't.'),
    'long states': (b'\x80\2}(' + b''.join(
        b'J' + struct.pack('<i', i) + b'N' for i in range(100_000)) + b'uq\0('
                    + b'ccollections\nOrderedDict\n)Rh\0b' * 50_000 + b't.'),
    'a name of two lines': b'\x80\2}X\3\0\0\0a\nbNs.',
    'a class of two lines': b'\x80\4X\3\0\0\0a\nbX\3\0\0\0c\nd\x93)\x81.',
    'a long name': b'\x80\2}X' + struct.pack('<I', 2**20) + b'a' * 2**20 + b'Ns.',
    'one tensor of many names': (described([1], [1]).replace(b's.', b'q\0s(') + b''.join(
        b'X\6\0\0\0%06dh\0' % i for i in range(40_000)) + b'u.'),
    'nothing': b'',
    'no stack': b'\x80\2R.',
    'no end': b'\x80\2N',
    'a kind of text': b'\x80\2X\2\0\0\0\xff\xff.',
}


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('bomb', BOMBS)
def test_no_pickle_takes_memory_or_time(tmp_path, little_memory, bomb, legacy):
    path = tmp_path / 'bomb.pth'
    path.write_bytes(BOMBS[bomb]) if legacy else zipped(path, BOMBS[bomb], data__0=bytes(16))
    start = time.monotonic()
    with pytest.raises(ValueError, match='bomb.pth is refused') as error:
        read_checkpoint(path)
    assert '\n' not in str(error.value) and len(str(error.value)) < 1000
    assert time.monotonic() - start < 15


@pytest.mark.filterwarnings('ignore')
def test_no_archive_takes_memory(tmp_path, little_memory):
    tensor = described([2**26], [1], numel=2**26)
    zipped(tmp_path / 'deflated.pth', tensor, zipfile.ZIP_DEFLATED, data__0=bytes(2**28))
    torch.save({'a': torch.ones(4)}, tmp_path / 'good.pth')
    content = bytearray((tmp_path / 'good.pth').read_bytes())
    for name, where, value in (('many', content.index(b'PK\1\2') + 20, b'\xff\xff\xff\x7f' * 2),
                               ('directory', content.index(b'PK\6\6') + 40, b'\xff' * 7 + b'\1')):
        changed = content.copy()
        changed[where:where + 8] = value
        (tmp_path / f'{name}.pth').write_bytes(changed)
    with zipfile.ZipFile(tmp_path / 'twice.pth', 'w') as archive:
        for _ in range(2):
            archive.writestr('x/data.pkl', described([1], [1]))
    with tarfile.open(tmp_path / 'tar.pth', 'w') as archive:
        for name in ('storages', 'tensors', 'pickle'):
            member = tarfile.TarInfo(name)
            archive.addfile(member, io.BytesIO())
    for name in ('deflated', 'many', 'directory', 'twice', 'tar'):
        with pytest.raises(ValueError, match=f'{name}.pth is refused'):
            read_checkpoint(tmp_path / f'{name}.pth')


@pytest.mark.parametrize('header, data', [
    (2**62, b''), (50, b'{}'), ('{', b''), ('[' * 100_000, b''), ('{}', b'more'),
    ({'a': dict(dtype='F32', shape=[2**40], data_offsets=[0, 2**42])}, b''),
    ({'a': dict(dtype='F32', shape=[2], data_offsets=[0, 4])}, bytes(4)),
    ({'a': dict(dtype='F32', shape=[-1], data_offsets=[0, 4])}, bytes(4)),
    ({'a': dict(dtype='F32', shape=['x', 2**40], data_offsets=[0, 4])}, bytes(4)),
    ({'a': dict(dtype='F32', shape=[1], data_offsets=[0, 4]),
      'b': dict(dtype='F32', shape=[1], data_offsets=[0, 4])}, bytes(8)),
    ({'a': dict(dtype='F4', shape=[1], data_offsets=[0, 4])}, bytes(4)),
    ({'a': 3}, b''), ({'__metadata__': 3}, b''), ([], b''),
])
def test_headers_that_lie(tmp_path, little_memory, header, data):
    if not isinstance(header, int):
        text = (header if isinstance(header, str) else json.dumps(header)).encode()
        header, data = len(text), text + data
    (tmp_path / 'x.safetensors').write_bytes(struct.pack('<Q', header) + data)
    with pytest.raises(ValueError, match='x.safetensors is refused'):
        read_checkpoint(tmp_path / 'x.safetensors')


def entries(path, tmp_path):
    """Every way in which a file comes to a model."""
    arch = dict(arch=dict(embed_dims=DIMS, num_layers=2, num_heads=HEADS), img_size=SIZE, patch_size=8)
    yield lambda: load_backbone(cae_mm.models.CAEViT(**arch), path)
    yield lambda: cae_mm.get_model('cae_vits', path, **arch)
    yield lambda: convert_file(path, tmp_path / 'out.pth')
    yield lambda: initialize(DALLEEncoder(24, 8, 3, 1), dict(type='PretrainedTokenizer', checkpoint=path))
    yield lambda: load_checkpoint(nn.Linear(1, 1), str(path), map_location='cpu')
    yield lambda: mmpretrain.get_model('resnet18_8xb16_cifar10', pretrained=str(path))


def test_every_entry_refuses(tmp_path):
    trace = tmp_path / 'trace'
    path = tmp_path / 'hostile.pth'
    torch.save(dict(state_dict={'fc.weight': torch.ones(1)}, meta=Call(exec, touch(trace))), path)
    for enter in entries(path, tmp_path):
        with pytest.raises(ValueError, match='hostile.pth is refused: it asks for builtins.exec'):
            enter()
    assert not trace.exists()


def test_pickled_annotations_are_refused(tmp_path):
    trace, path = tmp_path / 'trace', tmp_path / 'annotations.pkl'
    path.write_bytes(pickle.dumps(Call(exec, touch(trace))))
    with pytest.raises(ValueError, match='runs code'):
        mmengine.load(path)
    assert not trace.exists()


def test_a_place_before_the_beginning(tmp_path):
    path = tmp_path / 'x.pth'
    torch.save(dict(a=torch.ones(1)), path)
    content = path.read_bytes()
    path.write_bytes(content[:4] + content[60:])  # of a zip archive all places count from its end
    with pytest.raises(ValueError, match='x.pth is refused'):
        read_checkpoint(path)

"""Hostile pickles from a grammar: every way in which the format calls something, with dangerous names."""
import functools
import io
import os
import pickle
import pickletools
import struct
import subprocess
import zipfile

import numpy as np
import torch

from .children import NEVER_IMPORTED, touch
from .damage import dump, pick

MARK = 'chaos_was_here'  # a file that commands of these pickles make
COMMAND = f'touch {MARK}'
CODE = 'import tests.chaos.children as c; c.touch()'
EXPRESSION, DECOY = f'__import__("os").system("{COMMAND}")', NEVER_IMPORTED[-1]
# What runs something, and its arguments.
CALLS = {
    'tests.chaos.children:touch': (), 'os:system': (COMMAND,), 'posix:system': (COMMAND,),
    'os:popen': (COMMAND,), 'builtins:exec': (CODE,), 'builtins:eval': (EXPRESSION,),
    '__builtin__:eval': (EXPRESSION,), 'builtins:__import__': (DECOY,), 'builtins:open': (MARK, 'w'),
    'io:open': (MARK, 'w'), 'timeit:timeit': (CODE,), 'subprocess:Popen': (['touch', MARK],),
    'subprocess:getoutput': (COMMAND,), 'runpy:run_module': (DECOY,), 'importlib:import_module': (DECOY,),
    'code:InteractiveInterpreter.runcode': (CODE,), 'time:sleep': (60,), 'os:mkdir': (f'/tmp/{MARK}',),
    'os:remove': (f'/tmp/{MARK}',), 'shutil:rmtree': (f'/tmp/{MARK}',),
    'os:execlp': ('touch', 'touch', MARK), 'pty:spawn': (['touch', MARK],),
    'pickle:loads': (b'cos\nabort\n(tR.',), 'torch:load': ('hostile.pth',), 'torch:save': ([1], MARK),
    'torch.hub:load': ('a/b', 'c'), 'os:abort': (),
    'torch.storage:_load_from_bytes': (b'cos\nsystem\n(S"' + COMMAND.encode() + b'"\ntR.',),
    'os:_exit': (0,), 'numpy:load': ('hostile.npy',), 'numpy:save': (MARK, [1]),
    'builtins:bytearray': (2**36,), 'torch:zeros': (2**33,), 'builtins:print': ('called',),
    'webbrowser:open': ('http://127.0.0.1',), 'socket:create_connection': (('127.0.0.1', 9),),
    'urllib.request:urlopen': ('http://127.0.0.1:9',), 'mmengine.config:Config.fromfile': ('hostile.py',),
    'torch.jit:load': ('hostile.pth',), 'torch.multiprocessing:spawn': (), 'faulthandler:_sigsegv': ()}
# What others build of, or reach others through.
NAMES = ('builtins:getattr builtins:map builtins:list functools:partial functools:reduce '
         'operator:attrgetter operator:methodcaller types:FunctionType types:CodeType argparse:Namespace '
         'collections:OrderedDict collections:defaultdict torch._tensor:_rebuild_from_type_v2 '
         'torch._utils:_rebuild_parameter torch._utils:_rebuild_tensor_v2 '
         'torch._utils:_rebuild_wrapper_subclass torch:Tensor torch:FloatStorage '
         'torch._utils:_rebuild_device_tensor_from_numpy torch.nn.modules.container:Sequential numpy:dtype '
         'numpy.core.multiarray:_reconstruct numpy:ndarray mmengine.logging.history_buffer:HistoryBuffer '
         'copyreg:_reconstructor copyreg:__newobj__ builtins:object builtins:type pathlib:PosixPath '
         'logging:Logger cae_mm.checkpoint.tokenizer:Inert mmengine.config.config:ConfigDict').split()
NAMES += [f'{module}:anything' for module in NEVER_IMPORTED]


class Grammar:
    """Grows expressions of a pickle, each of which leaves one object on the stack."""

    def __init__(self, rng: np.random.Generator):
        self.rng, self.pick = rng, functools.partial(pick, rng)

    def plain(self, value) -> bytes:
        """A value without its frame, protocol and end."""
        return pickle.dumps(value, 2)[2:-1]

    def name(self, name: str) -> bytes:
        """A global, by either of its opcodes."""
        parts = name.split(':')
        if self.rng.random() < 0.5:
            return 'c{}\n{}\n'.format(*parts).encode()
        return b''.join(b'X' + struct.pack('<I', len(text)) + text.encode() for text in parts) + b'\x93'

    def call(self, function: bytes, arguments: bytes) -> bytes:
        """A call, in one of the ways of the format."""
        return self.pick([
            lambda: function + arguments + b'R',  # REDUCE
            lambda: function + arguments + b'\x81',  # NEWOBJ
            lambda: function + arguments + b'}\x92',  # NEWOBJ_EX
            lambda: b'(' + function + self.value(1) + b'o',  # OBJ
            lambda: function + arguments + b'R' + self.value(1) + b'b',  # and BUILD
            lambda: self.name('torch._tensor:_rebuild_from_type_v2') + b'(' + function
            + self.name('torch:Tensor') + arguments + b'}tR'])()

    def value(self, depth: int) -> bytes:
        """Any expression."""
        if depth <= 0:
            return self.plain(self.pick([None, 0, 2**40, -1, 1.5, 'text', b'bytes', (), [], {}, ('a', 1)]))
        name, below = self.pick(list(CALLS)), lambda: self.value(depth - 1)
        function, arguments = self.name(name), self.plain(CALLS[name])
        return self.pick([
            lambda: self.call(function, arguments),
            lambda: b'(' + self.plain(CODE) + 'i{}\n{}\n'.format(*name.split(':')).encode(),  # INST
            lambda: self.call(self.name(self.pick(NAMES)), b'(' + below() + b't'),
            lambda: self.call(self.name(self.pick(NAMES)), b'(' + function + arguments + b't'),
            lambda: self.chain(arguments),
            lambda: self.call(below(), b'(' + below() + b't'),
            lambda: b'(' + below() + below() + self.pick([b't', b'l']),
            lambda: b'}' + self.plain('key') + below() + b's',
            lambda: below() + below() + b'b',
            lambda: b'(' + self.plain('storage') + self.name(self.pick(NAMES)) + self.plain('0')
            + self.plain('cpu') + below() + b'tQ',  # BINPERSID
            lambda: b'Pstorage 0\n',
            lambda: self.pick([b'\x82\x01', b'\x83\x01\x00', b'\x84\x01\0\0\0']),  # EXT
            lambda: below() + b'q\x070h\x07',
            lambda: below() + self.pick([b'e', b'u', b'a', b's', b'0', b'2', b'.', b'\x91', b'h\xff'])])()

    def chain(self, arguments: bytes) -> bytes:
        """A call by way of getattr, of what something that was imported has."""
        get, base = self.name('builtins:getattr'), self.name(self.pick([
            'torch:serialization', 'torch._utils:sys.modules', 'numpy:core', 'tests.chaos.children:touch']))
        steps = ('__globals__',), ('os', 'system'), ('__self__', '__import__'), ('__class__', '__base__')
        for step in self.pick(steps):
            base = get + b'(' + base + self.plain(step) + b'tR'
        return self.call(base, arguments)


class Evil:
    """Pickles as a call."""

    def __init__(self, function, arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def hide(rng: np.random.Generator, content: dict) -> bytes:
    """A checkpoint that is whole, with something that calls beside or in the place of what it holds."""
    evil = Evil(*pick(rng, [
        (touch, ()), (os.system, (COMMAND,)), (exec, (CODE,)), (eval, (EXPRESSION,)),
        (getattr, (touch, '__call__')), (subprocess.getoutput, (COMMAND,)),
        (torch._tensor._rebuild_from_type_v2, (touch, torch.Tensor, (), {})),
        (torch.storage._load_from_bytes, (pickle.dumps(Evil(touch, ())),))]))
    content, where = dict(content), pick(rng, [*content, 'more', 'state_dict'])
    inner = content.get(where)
    content[where] = dict(inner, evil=evil) if isinstance(inner, dict) and rng.random() < 0.7 else evil
    return dump(content, 'zip' if rng.random() < 0.8 else 'legacy')


def hostile(rng: np.random.Generator, content: dict) -> tuple[str, bytes]:
    """A file that must not be obeyed: its kind and bytes. ``content`` is a checkpoint to hide in."""
    kind = pick(rng, [*2 * ['hidden', 'grammar in zip'], 'grammar', 'legacy', 'noise in zip'])
    if kind == 'hidden':
        return f'hostile: {kind}', hide(rng, content)
    program = b'\x80\x02' + Grammar(rng).value(int(rng.integers(1, 5))) + b'.'
    if kind == 'noise in zip':
        noise = (pick(rng, pickletools.opcodes).code.encode('latin1') + rng.bytes(int(rng.integers(3)))
                 for _ in range(40))
        program = b'\x80\x02' + b''.join(noise) + b'.'
    if kind == 'legacy':
        heads = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, dict(
            protocol_version=1001, little_endian=True, type_sizes=dict(short=2, int=4, long=4))]
        program = b''.join(pickle.dumps(head, 2) for head in heads) + program + pickle.dumps([], 2)
    elif 'zip' in kind:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, 'w') as file:
            for name, data in (('data.pkl', program), ('data/0', bytes(64)), ('version', b'3\n')):
                file.writestr(f'archive/{name}', data)
        program = buffer.getvalue()
    return f'hostile: {kind}', program

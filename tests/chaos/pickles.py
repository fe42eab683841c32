"""Hostile pickles from a grammar: every way in which the format calls something, with dangerous names."""
import io
import pickle
import pickletools
import struct
import zipfile

import numpy as np
import torch

from .children import NEVER_IMPORTED

MARK = 'chaos_was_here'  # a file that commands of these pickles make
COMMAND = f'touch {MARK}'
CODE = 'import tests.chaos.children as c; c.touch()'
CANARY = ('tests.chaos.children', 'touch')
# Callables and arguments that run something; those whose arguments are not plain come from ``CHAINS``.
CALLS = [
    (*CANARY, ()), ('os', 'system', (COMMAND,)), ('posix', 'system', (COMMAND,)), ('os', 'popen', (COMMAND,)),
    ('builtins', 'exec', (CODE,)), ('builtins', 'eval', ('__import__("os").system("' + COMMAND + '")',)),
    ('__builtin__', 'eval', ('__import__("os").system("' + COMMAND + '")',)),
    ('builtins', '__import__', (NEVER_IMPORTED[-1],)), ('builtins', 'open', (MARK, 'w')), ('io', 'open', (MARK, 'w')),
    ('subprocess', 'Popen', (['touch', MARK],)), ('subprocess', 'getoutput', (COMMAND,)),
    ('importlib', 'import_module', (NEVER_IMPORTED[-1],)), ('runpy', 'run_module', (NEVER_IMPORTED[-1],)),
    ('timeit', 'timeit', (CODE,)), ('code', 'InteractiveInterpreter.runcode', (CODE,)), ('os', 'mkdir', ('/tmp/' + MARK,)),
    ('os', 'execlp', ('touch', 'touch', MARK)), ('os', 'remove', ('/tmp/' + MARK,)), ('pty', 'spawn', (['touch', MARK],)),
    ('shutil', 'rmtree', ('/tmp/' + MARK,)), ('pickle', 'loads', (pickle.dumps(CANARY),)), ('time', 'sleep', (60,)),
    ('torch', 'load', ('hostile.pth',)), ('torch', 'save', ([1], MARK)), ('torch.hub', 'load', ('a/b', 'c')),
    ('torch.storage', '_load_from_bytes', (b'cos\nsystem\n(S"' + COMMAND.encode() + b'"\ntR.',)),
    ('numpy', 'load', ('hostile.npy',)), ('numpy', 'save', (MARK, [1])), ('builtins', 'bytearray', (2**36,)),
    ('torch', 'zeros', (2**33,)), ('builtins', 'print', ('called',)), ('webbrowser', 'open', ('http://127.0.0.1',)),
    ('socket', 'create_connection', (('127.0.0.1', 9),)), ('urllib.request', 'urlopen', ('http://127.0.0.1:9',)),
    ('mmengine.config', 'Config.fromfile', ('hostile.py',)), ('torch.jit', 'load', ('hostile.pth',)),
    ('torch.multiprocessing', 'spawn', ()), ('faulthandler', '_sigsegv', ()), ('os', '_exit', (0,)), ('os', 'abort', ()),
]
NAMES = [('builtins', 'getattr'), ('builtins', 'map'), ('builtins', 'list'), ('functools', 'partial'),
         ('functools', 'reduce'), ('operator', 'attrgetter'), ('operator', 'methodcaller'), ('types', 'FunctionType'),
         ('types', 'CodeType'), ('argparse', 'Namespace'), ('collections', 'OrderedDict'), ('collections', 'defaultdict'),
         ('torch._tensor', '_rebuild_from_type_v2'), ('torch._utils', '_rebuild_parameter'),
         ('torch._utils', '_rebuild_tensor_v2'), ('torch._utils', '_rebuild_wrapper_subclass'),
         ('torch._utils', '_rebuild_device_tensor_from_numpy'), ('torch.nn.modules.container', 'Sequential'),
         ('torch', 'Tensor'), ('torch', 'FloatStorage'), ('numpy.core.multiarray', '_reconstruct'), ('numpy', 'dtype'),
         ('numpy', 'ndarray'), ('mmengine.logging.history_buffer', 'HistoryBuffer'), ('copyreg', '_reconstructor'),
         ('copyreg', '__newobj__'), ('builtins', 'object'), ('builtins', 'type'), ('pathlib', 'PosixPath'),
         ('cae_mm.checkpoint.tokenizer', 'Inert'), ('mmengine.config.config', 'ConfigDict'), ('logging', 'Logger'),
         *((module, 'anything') for module in NEVER_IMPORTED)]


class Grammar:
    """Grows expressions of a pickle, each of which leaves one object on the stack."""

    def __init__(self, rng: np.random.Generator):
        self.rng, self.memo = rng, 0

    def pick(self, choices):
        return choices[int(self.rng.integers(len(choices)))]

    def plain(self, value) -> bytes:
        """A value without its frame, protocol and end."""
        return pickle.dumps(value, 2)[2:-1]

    def name(self, module: str, attribute: str) -> bytes:
        """A global, by either of its opcodes."""
        if self.rng.random() < 0.5:
            return f'c{module}\n{attribute}\n'.encode()
        return b''.join(b'X' + struct.pack('<I', len(text)) + text.encode() for text in (module, attribute)) + b'\x93'

    def call(self, function: bytes, arguments: bytes) -> bytes:
        """A call, in one of the ways of the format."""
        return self.pick([
            lambda: function + arguments + b'R',                            # REDUCE
            lambda: function + arguments + b'\x81',                         # NEWOBJ
            lambda: function + arguments + b'}\x92',                        # NEWOBJ_EX
            lambda: b'(' + function + self.value(1) + b'o',                 # OBJ
            lambda: function + arguments + b'R' + self.value(1) + b'b',     # REDUCE, BUILD
            lambda: self.name('torch._tensor', '_rebuild_from_type_v2') + b'(' + function
            + self.name('torch', 'Tensor') + arguments + b'}tR',
        ])()

    def value(self, depth: int) -> bytes:
        """Any expression."""
        rng = self.rng
        if depth <= 0:
            return self.plain(self.pick([None, 0, 2**40, -1, 1.5, 'text', b'bytes', (), [], {}, True, ('a', 1)]))
        module, name, arguments = self.pick(CALLS)
        productions = [
            lambda: self.call(self.name(module, name), self.plain(arguments)),
            lambda: b'(' + self.plain(CODE) + f'i{module}\n{name}\n'.encode(),                     # INST
            lambda: self.call(self.name(*self.pick(NAMES)), b'(' + self.value(depth - 1) + b't'),
            lambda: self.call(self.name(*self.pick(NAMES)), b'(' + self.name(module, name)
                              + self.plain(arguments) + b't'),
            lambda: self.chain(module, name, arguments),
            lambda: self.call(self.value(depth - 1), b'(' + self.value(depth - 1) + b't'),
            lambda: b'(' + b''.join(self.value(depth - 1) for _ in range(rng.integers(3))) + self.pick([b't', b'l']),
            lambda: b'}' + self.plain('key') + self.value(depth - 1) + b's',
            lambda: self.value(depth - 1) + self.value(depth - 1) + b'b',                          # BUILD
            lambda: b'(' + self.plain('storage') + self.name(*self.pick(NAMES)) + self.plain('0')
            + self.plain('cpu') + self.value(depth - 1) + b'tQ',                                   # BINPERSID
            lambda: b'Pstorage 0\n', lambda: self.pick([b'\x82\x01', b'\x83\x01\x00', b'\x84\x01\0\0\0']),
            lambda: self.value(depth - 1) + b'q\x07' + b'0h\x07', lambda: b'h\xff',
            lambda: self.value(depth - 1) + self.pick([b'e', b'u', b'a', b's', b'0', b'2', b'.', b'\x91', b'\x98']),
        ]
        return self.pick(productions)()

    def chain(self, module: str, name: str, arguments) -> bytes:
        """The same call by way of getattr: of a module's attribute of something that was imported."""
        base = self.pick([self.name('torch', 'serialization'), self.name('torch._utils', 'sys.modules'),
                          self.name('numpy', 'core'), self.name('builtins', 'getattr'), self.name(*CANARY)])
        get = self.name('builtins', 'getattr')
        for step in self.pick([('__globals__',), ('os', 'system'), ('__self__', '__import__'), ('__class__', '__base__')]):
            base = get + b'(' + base + self.plain(step) + b'tR'
        return self.call(base, self.plain(arguments))


class Evil:
    """Pickles as a call."""

    def __init__(self, function, arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def hostile(rng: np.random.Generator, content: dict) -> tuple[str, bytes]:
    """A file that must not be obeyed: its kind and bytes. ``content`` is a checkpoint to hide in."""
    grammar = Grammar(rng)
    kind = grammar.pick(['hidden', 'hidden', 'grammar in zip', 'grammar in zip', 'grammar', 'legacy', 'noise in zip'])
    if kind == 'hidden':
        # Beside or in the place of something of a checkpoint that is otherwise whole.
        import os
        import subprocess

        from .children import touch
        evil = Evil(*grammar.pick([(touch, ()), (os.system, (COMMAND,)), (exec, (CODE,)), (eval, (CODE[-7:],)),
                                   (getattr, (touch, '__call__')), (subprocess.getoutput, (COMMAND,)),
                                   (torch._tensor._rebuild_from_type_v2, (touch, torch.Tensor, (), {})),
                                   (torch.storage._load_from_bytes, (pickle.dumps(Evil(touch, ())),))]))
        content = dict(content)
        where = grammar.pick([*content, 'more', 'state_dict'])
        inner = content.get(where)
        content[where] = dict(inner, evil=evil) if isinstance(inner, dict) and rng.random() < 0.7 else evil
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=bool(rng.random() < 0.8))
        return f'hostile: {kind}', buffer.getvalue()
    program = b'\x80\x02' + grammar.value(int(rng.integers(1, 5))) + b'.'
    if kind == 'noise in zip':
        opcodes = [op.code.encode('latin1') for op in pickletools.opcodes]
        program = b'\x80\x02' + b''.join(grammar.pick(opcodes) + rng.bytes(int(rng.integers(3))) for _ in range(40)) + b'.'
    if kind in ('grammar in zip', 'noise in zip'):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, 'w') as file:
            for name, data in (('data.pkl', program), ('byteorder', b'little'), ('data/0', bytes(64)), ('version', b'3\n')):
                file.writestr(f'archive/{name}', data)
        return f'hostile: {kind}', buffer.getvalue()
    if kind == 'legacy':
        heads = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION,
                 dict(protocol_version=1001, little_endian=True, type_sizes=dict(short=2, int=4, long=4))]
        return f'hostile: {kind}', b''.join(pickle.dumps(head, 2) for head in heads) + program + pickle.dumps([], 2)
    return f'hostile: {kind}', program

"""Strange picture files: of every format and mode, damaged, lying, or no files at all."""
import io
import os
import socket
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

MODES = {'JPEG': ('L', 'RGB', 'CMYK'), 'PNG': ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'), 'GIF': ('L',
                                                                                                    'P',
                                                                                                    'RGB'),
         'TIFF': ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'I;16'), 'BMP': ('1', 'L', 'P', 'RGB',
                                                                               'RGBA'),
         'PPM': ('1', 'L', 'RGB', 'I;16'), 'WEBP': ('L', 'RGB', 'RGBA')}
SUFFIX = {'JPEG': '.jpg', 'PNG': '.png', 'GIF': '.gif', 'TIFF': '.tiff', 'BMP': '.bmp', 'PPM': '.ppm',
          'WEBP': '.webp'}


@dataclass
class Picture:
    """A file's name and what it is: ``pixels`` is what a reader must get, None where it must refuse.

    ``vague``: a damage of which the format itself cannot tell, so that other pixels are no fault.
    """
    name: str
    kind: str
    data: bytes | None = None
    pixels: np.ndarray | None = None
    vague: bool = False


def draw(rng: np.random.Generator) -> tuple[str, bytes, np.ndarray]:
    """A whole file of a random format and mode: format, bytes and its pixels as upright RGB."""
    form = str(rng.choice(list(MODES)))
    width, height = (int(side) for side in rng.integers(33, 80, 2))  # mmdet leaves out smaller ones
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((width, height))
    mode = str(rng.choice(MODES[form]))
    if mode == 'I;16':
        image = Image.fromarray(np.asarray(coarse.convert('L')).astype(np.uint16) * 257)
    else:
        image = coarse.convert(mode)
    options = {}
    if form in ('JPEG', 'PNG', 'TIFF', 'WEBP') and rng.random() < 0.4:
        exif = Image.Exif()
        exif[274] = int(rng.integers(1, 9))
        options['exif'] = exif
    if form == 'JPEG':
        options |= dict(progressive=bool(rng.random() < 0.4), quality=int(rng.integers(50, 100)),
                        icc_profile=rng.bytes(300) if rng.random() < 0.2 else None)
    if form == 'TIFF':
        options['compression'] = str(rng.choice(['raw', 'tiff_lzw', 'packbits', 'tiff_adobe_deflate']))
    if form in ('GIF', 'TIFF', 'WEBP') and rng.random() < 0.3:
        options |= dict(save_all=True, append_images=[image.rotate(90), image.rotate(180)])
    if mode == 'P' and rng.random() < 0.5:
        options['transparency'] = int(rng.integers(4))
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    with Image.open(buffer) as read:
        ImageOps.exif_transpose(read, in_place=True)
        if read.mode.startswith('I'):
            read = Image.fromarray((np.asarray(read) >> 8).astype(np.uint8))
        return form, buffer.getvalue(), np.array(read.convert('RGB'))


def make(rng: np.random.Generator) -> Picture:
    """Any strange picture."""
    form, data, pixels = draw(rng)
    name = f'strange{SUFFIX[form]}'
    kind = str(rng.choice(['whole', 'cut', 'bytes', 'bits', 'zeros', 'lost', 'claims', 'other', 'named',
                           'special'],
                          p=[.15, .15, .1, .1, .08, .07, .1, .1, .05, .1]))
    start, size = int(rng.integers(len(data))), int(rng.integers(1, 200))
    if kind == 'whole':
        return Picture(name, f'whole {form}', data, pixels)
    if kind == 'cut':
        end = int(rng.choice([0, 10, len(data) // 2, rng.integers(len(data)), len(data) - 3]))
        return Picture(name, f'cut {form}', data[:end], pixels)
    if kind == 'bytes':
        return Picture(name, f'other bytes in {form}',
                       data[:start] + rng.bytes(len(data[start:start + size]))
                       + data[start + size:], pixels, vague=True)
    if kind == 'bits':
        changed = bytearray(data)
        changed[start] ^= 1 << int(rng.integers(8))
        return Picture(name, f'flipped bit in {form}', bytes(changed), pixels, vague=True)
    if kind == 'zeros':
        return Picture(name, f'zeros in {form}',
                       data[:start] + bytes(len(data[start:start + size])) + data[start + size:],
                       pixels, vague=True)
    if kind == 'lost':
        return Picture(name, f'lost bytes in {form}', data[:start] + data[start + size:], pixels,
                       vague=True)
    if kind == 'claims':
        return claims(rng)
    if kind == 'other':
        return other(rng, data)
    if kind == 'named':
        names = ['caf\udce9.png', 'a\nb.png', 'x' * 240 + '.png', ' .png', "it's; $(touch M) `x`.png",
                 'A.JPG', '-x.png',
                 'percent%s{}.png', '\u202egnp.png', '.hidden.png', 'wrong.jpg', 'wrong.webp']
        return Picture(str(rng.choice(names)), 'strange name', data, pixels)
    return Picture(f'strange{rng.choice(list(SUFFIX.values()))}',
                   str(rng.choice(['FIFO', 'socket', 'device', 'folder', 'loop', 'dangling link',
                                   'link to itself'])))


def claims(rng: np.random.Generator) -> Picture:
    """A small file that claims to be a picture of gigabytes."""
    side = int(rng.choice([20000, 30000, 65000]))
    form = str(rng.choice(['PNG', 'JPEG', 'BMP', 'GIF', 'PPM', 'TIFF', 'WEBP']))
    buffer = io.BytesIO()
    Image.new('RGB', (16, 16), 'red').save(buffer, form, **({'lossless': True} if form == 'WEBP' else {}))
    data = bytearray(buffer.getvalue())
    if form == 'PNG':
        rows = zlib.compress(bytes(3 * side + 1) * 200, 1)
        data[16:24] = struct.pack('>II', side, side)
        data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
        start = data.index(b'IDAT') - 4
        chunk = b'IDAT' + rows
        data[start:] = struct.pack('>I', len(rows)) + chunk + struct.pack('>I',
                                                                          zlib.crc32(chunk)) + data[-12:]
    elif form == 'JPEG':
        place = data.index(b'\xff\xc0')
        data[place + 5:place + 9] = struct.pack('>HH', side, side)
    elif form == 'BMP':
        data[18:26] = struct.pack('<ii', side, side)
    elif form == 'GIF':
        place = data.index(b'\x2c')
        data[6:10] = data[place + 5:place + 9] = struct.pack('<HH', side, side)
    elif form == 'PPM':
        data = data.replace(b'16 16', b'%d %d' % (side, side))
    elif form == 'WEBP':
        place = data.index(b'VP8L') + 9
        data[place:place + 4] = struct.pack('<I', 0x3fff | 0x3fff << 14)
    else:
        directory = struct.unpack('<I', data[4:8])[0]
        for i in range(struct.unpack('<H', data[directory:directory + 2])[0]):
            tag, kind = struct.unpack('<HH', data[(at := directory + 2 + 12 * i):at + 4])
            if tag in (256, 257):
                data[at + 2:at + 12] = struct.pack('<HII', 4, 1, side)
    return Picture(f'strange{SUFFIX[form]}', f'{form} that claims to be large', bytes(data))


def other(rng: np.random.Generator, data: bytes) -> Picture:
    """What is no picture at all, or none that is read."""
    buffer = io.BytesIO()
    Image.fromarray(rng.random((9, 9), dtype=np.float32)).save(buffer, 'TIFF')
    contents = {
        'empty file': b'', 'web page': b'<!DOCTYPE html><html></html>', 'text': b'hello' * 100,
        'zeros': bytes(10000),
        'noise': rng.bytes(3000),
        'PostScript': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(M) (w) file\n',
        'SVG': b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'floating-point TIFF': buffer.getvalue(),
        'pointer': b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'head alone': data[:8]}
    kind = str(rng.choice(list(contents)))
    return Picture(f'strange{rng.choice(list(SUFFIX.values()))}', kind, contents[kind])


def put(picture: Picture, folder: Path) -> None:
    """Write the file, or make whatever stands in its place."""
    path = os.path.join(folder, picture.name)
    if picture.data is not None:
        with open(path, 'wb') as file:
            file.write(picture.data)
    elif picture.kind == 'FIFO':
        os.mkfifo(path)
    elif picture.kind == 'socket':
        here = os.open('.', os.O_RDONLY)
        os.chdir(folder)  # a socket's path has at most 108 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(picture.name)
        os.fchdir(here)
        os.close(here)
    elif picture.kind == 'device':
        os.symlink('/dev/zero', path)
    elif picture.kind == 'folder':
        os.mkdir(path)
    elif picture.kind == 'loop':
        os.symlink('.', path.removesuffix(Path(path).suffix))
    else:
        os.symlink('nowhere' if picture.kind == 'dangling link' else picture.name, path)

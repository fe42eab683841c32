"""The models of a benchmark, as they are named on its command line."""
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from cae_mm.engine.backbones import TIMM
from cae_mm.models.timm_vit import TimmViT
from cae_mm.models.vit import ENCODERS
from cae_mm.parts import in_parts

HOW = ('write LABEL=FILE for a checkpoint of the suite\'s own encoder, LABEL=cae_vits:FILE for another of '
       'cae_mm.list_models(), or LABEL=timm:NAME:FILE; "none" in place of FILE starts from random weights')


@dataclass(frozen=True)
class Model:
    """A row of the table, by its label: a checkpoint, or 'none', of the suite's encoder, or of another."""

    label: str
    encoder: str | None
    weights: str

    @property
    def is_random(self) -> bool:
        """Whether it is a network before any training."""
        return self.weights == 'none'

    def digest(self) -> str:
        """Of its weights, as hexadecimal SHA-256."""
        if self.is_random:
            return 'random'
        return hashlib.sha256(Path(self.weights).read_bytes()).hexdigest()


def parse_model(text: str) -> Model:
    """A model from LABEL=[ENCODER:]FILE, or a ValueError or FileNotFoundError that says what to write."""
    label, equals, what = text.partition('=')
    if not equals or not label or not what or not label.replace('-', '').replace('_', '').isalnum():
        raise ValueError(f'--models {text}: {HOW}')
    if what.startswith(TIMM):
        name, _, weights = what.removeprefix(TIMM).partition(':')
        encoder = TIMM + name
        with torch.device('meta'):
            TimmViT(name, out_type='raw')
    elif what.partition(':')[0] in ENCODERS:
        encoder, _, weights = what.partition(':')
    else:
        encoder, weights = None, what
    if not weights:
        raise ValueError(f'--models {text} names no weights: {HOW}')
    if in_parts(weights):
        raise ValueError(f'--models {text}: {weights} is a folder of parts, make a file of it: '
                         f'python tools/convert.py {weights} OUT.pth')
    if weights != 'none' and not Path(weights).is_file():
        raise FileNotFoundError(f'--models {text}: there is no file {weights}; {HOW}')
    # Commands run in the root of the repository.
    return Model(label, encoder, weights if weights == 'none' else str(Path(weights).resolve()))

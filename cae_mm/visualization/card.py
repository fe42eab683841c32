"""The README.md of an exported model, filled from its checkpoint and the log beside that."""
import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from cae_mm.checkpoint.export import CROP, Exported
from cae_mm.checkpoint.files import read_weights
from cae_mm.checkpoint.sources import fetch
from cae_mm.visualization.curves import read_scalars

USE = {
    'timm': '''import timm
from timm.data import create_transform, resolve_model_data_config

model = timm.create_model('local-dir:{name}', pretrained=True).eval()    # on the Hub: 'hf-hub:OWNER/{name}'
transform = create_transform(**resolve_model_data_config(model), is_training=False)
output = model(transform(image).unsqueeze(0))    # {output}
maps = timm.create_model('local-dir:{name}', pretrained=True, features_only=True, out_indices={taps})''',
    'huggingface': '''from transformers import AutoImageProcessor, BeitBackbone, {kind}

processor = AutoImageProcessor.from_pretrained('{name}')    # on the Hub: 'OWNER/{name}'
model = {kind}.from_pretrained('{name}')
output = model(**processor(image, return_tensors='pt')).{output}
maps = BeitBackbone.from_pretrained('{name}', out_indices={stages})''',
}
CARD = """---
library_name: {library}
pipeline_tag: image-{task}{license_line}
tags: [cae, context-autoencoder]
---
# {name}

A vision transformer in the form of [CAE](https://arxiv.org/abs/2202.03026), the Context Autoencoder.

{found}

## Use

```python
{use}
```

With cae_mm, `cae_mm.get_model(pretrained='{name}')` gives the encoder; on the Hub, `'hf-hub:OWNER/{name}'`.

RGB pixels of 0 to 255 are normalised by the mean {mean} and the deviation {std}.
The shorter side is resized to {resize} pixels and the middle cut out: the usual crop, not one of the file.

## Data

{data}

## Numbers

{numbers}

## Recipe

{recipe}

This folder was written by `{command}`.

## Licence

{licence}
"""
RECIPE = '{done}: `python tools/train.py CONFIG` of cae_mm, with this config:\n\n```python\n{config}\n```'
UNKNOWN = 'The checkpoint does not say.'


def model_card(model: Exported, checkpoint: str | Path, out: str | Path, to: str, found: list[str],
               licence: str | None = None) -> str:
    """The text of a model card for the Hugging Face Hub.

    Args:
        model (Exported): what is exported.
        checkpoint (str | Path): where it comes from; the log of its training is looked for beside it.
        out, to: see ``export``; 'timm' or 'huggingface'.
        found (list[str]): what was found in the checkpoint.
        licence (str, optional): of the weights, by its identifier.
    """
    path = fetch(checkpoint)
    meta, depth, is_classifier = read_weights(path)[1], model.encoder.num_layers, model.fc is not None
    # Of paths of the machine the last name is enough, and marks would end the block of code.
    config = str(meta.get('cfg', '')).replace('```', '').strip()
    config = re.sub(r"'/(?:[^'\n]*/)?([^'/\n]+)'", r"'\1'", config)
    images = (meta.get('images') or {}).get('dataset')
    data = ([f'{images:,} images'] if images else []) + re.findall(r"^data_root = '(.*)'$", config, re.M)
    data += [f'classes: {", ".join(model.classes)}'] if model.classes else []
    done = [f'{meta[key]:,} {unit}' for key, unit in (('epoch', 'epochs'), ('iter', 'iterations'), (
        'seed', 'as the seed')) if key in meta]
    taps = tuple(round(depth * part) - 1 for part in (1 / 3, 1 / 2, 2 / 3, 1))
    name, libraries = Path(out).resolve().name, dict(timm='timm', huggingface='transformers')
    features = 'features' if to == 'timm' else 'last_hidden_state'
    return CARD.format(
        library=libraries[to], task='classification' if is_classifier else 'feature-extraction', name=name,
        license_line=f'\nlicense: {licence}' if licence else '', found='\n'.join(f'- {x}' for x in found),
        use=USE[to].format(name=name, taps=taps, stages=[tap + 1 for tap in taps],
                           kind='AutoModelForImageClassification' if is_classifier else 'AutoModel',
                           output='logits' if is_classifier else features),
        mean=model.mean, std=model.std, resize=round(min(model.facts['img_size']) / CROP),
        data=', '.join(data) or UNKNOWN, numbers=numbers(path, meta),
        recipe=RECIPE.format(done=', '.join(done), config=config) if config else UNKNOWN,
        command=shlex.join(['cae-mm', 'export', *(Path(arg).name for arg in sys.argv[1:])]),
        licence=licence or 'Not stated. Ask who trained it.')


def numbers(path: Path, meta: dict) -> str:
    """A table of the last losses, and of what evaluations of just this checkpoint gave."""
    records, step = [], meta.get('iter', -1)
    with suppress(FileNotFoundError):
        records = [record for record in read_scalars(path.parent) if 'step' in record]
    trained = [record for record in records if 'loss' in record and record['step'] <= step][-1:]
    tested = [record for record in records if 'loss' not in record and record['step'] in (
        meta.get('epoch') or step, step)]
    rows = [f'| {key} | {value:.4g} |' for record in trained + tested for key, value in record.items()
            if 'loss' in key or record in tested and key not in ('step', 'time', 'data_time')]
    return '\n'.join(['| | at the end |', '|---|---|', *rows]) if rows else (
        'No log of the training lies beside the checkpoint.')

"""Encoders and classifiers for other libraries; each gave there what it gives here before it gets its name."""
import io
import json
from pathlib import Path

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.export import Dim

from cae_mm.atomic import new_folder, write_atomically
from cae_mm.checkpoint.convert import detect_origin, from_ours, kind_of, to_ours
from cae_mm.checkpoint.facts import KEY, facts_of
from cae_mm.checkpoint.files import read_weights, write_checkpoint
from cae_mm.checkpoint.loader import arguments_of, load_backbone
from cae_mm.checkpoint.names import pooling_of, prefix_of, theirs_to_ours, translate
from cae_mm.checkpoint.sources import WEIGHTS, fetch
from cae_mm.models.layers import LAYER_NORM_EPS
from cae_mm.models.vit import CAEViT

FILES = {'onnx': '.onnx', 'torch-export': '.pt2', 'safetensors': '.safetensors'}
FOLDERS = ('huggingface', 'timm')
TOLERANCE = 1e-4  # of the greatest number, or of 1
CROP = 0.875  # side of the middle of an image that is looked at: 224 of 256 pixels
# timm's names of widths, of its ViT and its BEiT; of others 'base', whose sizes model_args replace.
SIZES = {192: ('tiny', 'base'), 384: ('small', 'base'), 1024: ('large', 'large')}


class Exported(nn.Module):
    """An encoder or a classifier as others run it, on RGB images that are normalised by ``mean`` and ``std``.

    Args:
        encoder (CAEViT): gives 'raw' tokens, or, in a classifier, what ``fc`` reads.
        fc (nn.Linear, optional): of a classifier.
        classes (Sequence[str], optional): their names.
        mean, std (list[float], optional): of pixels of 0 to 255; by default those of ImageNet.
    """

    def __init__(self, encoder, fc=None, classes=None, mean=None, std=None):
        super().__init__()
        self.encoder, self.fc = encoder, fc
        self.outputs = ['logits'] if fc else ['cls_token', *(f'map_{i}' for i in encoder.out_indices)]
        self.classes = list(classes) if fc and classes and len(classes) == fc.out_features else None
        self.mean = mean or [float(f'{255 * x:.6g}') for x in IMAGENET_DEFAULT_MEAN]
        self.std = std or [float(f'{255 * x:.6g}') for x in IMAGENET_DEFAULT_STD]
        self.facts = facts_of(encoder) | dict(mean=self.mean, std=self.std, channel_order='RGB')

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> logits (B, K); or the class token (B, C) and, for each tap, a map (B, C, h, w)."""
        outputs = self.encoder(images)
        if self.fc is not None:
            return (self.fc(outputs[-1]),)
        grid = self.encoder.grid(*images.shape[-2:])
        return outputs[-1][:, 0], *(tokens[:, 1:].mT.unflatten(2, grid) for tokens in outputs)


def read_model(path: str | Path, encoder_only: bool = False, out_indices: tuple[int, ...] = (-1,),
               img_size: tuple[int, int] | None = None, num_heads: int | None = None,
               pooling: str | None = None, report: list[str] | None = None) -> Exported:
    """The classifier that is in a checkpoint, or the encoder of anything else.

    Args:
        path (str | Path): see ``load_backbone``.
        encoder_only (bool): of a classifier too.
        out_indices (tuple[int, ...]): taps of an encoder.
        img_size (tuple[int, int], optional): height and width; by default those of its training.
        num_heads (int, optional): see ``heads_of``.
        pooling (str, optional): 'token' or 'mean', what a classifier reads; by default as its names tell, and
            the mean for those of ours, whose names do not.
        report (list[str], optional): what was found is appended.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: see ``load_backbone``.
    """
    report, path = [] if report is None else report, fetch(path)
    state, meta = read_weights(path)
    layout = detect_origin(state)
    pairs = theirs_to_ours(layout, prefix_of(state, layout))
    kind = kind_of({translate(name, pairs) for name in state})
    options, fc = dict(out_type='raw', out_indices=out_indices), None
    if kind == 'classifier' and not encoder_only:
        ours = to_ours(state, layout)
        fc = nn.Linear(*ours['head.fc.weight'].shape[::-1])
        fc.load_state_dict({name: ours[f'head.fc.{name}'] for name in ('weight', 'bias')})
        pooling = pooling or pooling_of(state, layout) or 'mean'
        options['out_type'] = dict(token='cls_token', mean='avg_featmap')[pooling]
    own = arguments_of(path, num_heads) | options
    encoder = CAEViT(**own | dict(img_size=img_size or own['img_size']))
    load_backbone(encoder, path, trained_with=num_heads and dict(num_heads=num_heads))
    what = f'classifier of {fc.out_features} classes, which reads the {pooling}' if fc else f'encoder of a {kind}'
    report.append(f'{layout}, {what}: {encoder.num_layers} blocks, width {encoder.embed_dims}, patches of '
                  f'{encoder.patch_size}, images of {{}}x{{}}'.format(*facts_of(encoder)['img_size']))
    if not own['final_norm']:
        report.append('it has no final norm: of use are the maps')
    facts = encoder.trained_with
    if not facts.get('mean'):
        report.append("how its pixels were normalised the file does not say: taken are ImageNet's mean and std")
    if facts.get('channel_order') == 'BGR':  # What is exported takes RGB.
        encoder.patch_embed.weight.data = encoder.patch_embed.weight.data.flip(1)
        facts |= {name: facts[name][::-1] for name in ('mean', 'std')}
    classes = (meta.get('dataset_meta') or {}).get('classes')
    return Exported(encoder, fc, classes, facts.get('mean'), facts.get('std')).eval().requires_grad_(False)


def export(model: Exported, out: str | Path, to: str, card: str = '') -> list[str]:
    """Write a model for others, whole or not at all, when it has given there what it gives here.

    Args:
        model (Exported): see ``read_model``; not to be used afterwards.
        out (str | Path): a file with the suffix of ``FILES``, or a new folder.
        to (str): one of ``FILES`` or ``FOLDERS``.
        card (str): README.md of a folder.

    Returns:
        list[str]: how much it differs, and how it is loaded.

    Raises:
        ValueError: for a model that the other library does not have, or another suffix.
        RuntimeError: when the other library computes other numbers.
    """
    out = Path(out)
    if to in FILES and out.suffix != FILES[to]:
        raise ValueError(f'{out}: name a {FILES[to]} file')
    if to == 'safetensors':
        write_checkpoint(arrays_of(model), out, meta={KEY: model.facts})
        return [f"cae_mm.get_model(pretrained='{out}')"]
    return (write_folder if to in FOLDERS else write_graph)(model, out, to, card)


def arrays_of(model: Exported) -> dict[str, Tensor]:
    """The model's arrays, by the names of a checkpoint of ours."""
    parts = {'backbone': model.encoder, 'head.fc': model.fc or nn.Identity()}
    return {f'{part}.{name}': value for part, module in parts.items()
            for name, value in module.state_dict().items()}


def write_graph(model: Exported, out: Path, to: str, card: str = '') -> list[str]:
    """An ONNX file or a program of torch.export, for batches of any size and, where they can, images too."""
    encoder, (height, width) = model.encoder, model.facts['img_size']
    patch, sizes, dims = encoder.patch_size, [(2, height, width), (1, height, width)], {0: Dim('batch')}
    if encoder.any_size:
        sizes.append((3, height + patch, width + 2 * patch))
        dims |= {2: patch * Dim('rows'), 3: patch * Dim('columns')}
    images = [torch.randn(batch, encoder.patch_embed.in_channels, *size) for batch, *size in sizes]
    wanted = [model(batch) for batch in images]
    if encoder.any_size:
        encoder.grid_size = (0, 0)  # No size is special then: the graph computes the positions of each.
    program = torch.export.export(model, (images[0],), dynamic_shapes=(dims,), strict=False)
    if to == 'torch-export':
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        content = buffer.getvalue()
        run = torch.export.load(io.BytesIO(content)).module()
        usage = f"torch.export.load('{out}').module()(images)"
    else:
        import onnxruntime
        made = torch.onnx.export(program, dynamo=True, verbose=False, input_names=['images'],
                                 output_names=model.outputs)
        made.model.metadata_props.update(cae_mm=json.dumps(model.facts | dict(classes=model.classes)))
        content = made.model_proto.SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
        usage = f"onnxruntime.InferenceSession('{out}').run(None, dict(images=images))"

        def run(batch):
            return [torch.from_numpy(array) for array in session.run(None, dict(images=batch.numpy()))]
    report = [compare(to, run(batch), want, batch) for batch, want in zip(images, wanted, strict=True)]
    write_atomically(content, out)
    return [*report, f'{usage}: {", ".join(model.outputs)}']


def compare(what: str, got: list[Tensor], want: list[Tensor], images: Tensor) -> str:
    """How much other outputs differ from ours, in a sentence.

    Raises:
        RuntimeError: when that is more than ``TOLERANCE``.
    """
    worst = max(float((a - b).abs().max() / b.abs().max().clamp(min=1)) for a, b in zip(got, want, strict=True))
    size = 'x'.join(map(str, images.shape))
    if not worst <= TOLERANCE:
        raise RuntimeError(f'{what} differs by {worst:.1e} from PyTorch for images of {size}: nothing is written')
    return f'{what} differs by {worst:.1e} for images of {size}'


@torch.no_grad()
def write_folder(model: Exported, out: Path, to: str, card: str = '') -> list[str]:
    """A folder for timm and transformers' wrapper of it, or for transformers' BEiT; see ``export``."""
    encoder, (height, width) = model.encoder, model.facts['img_size']
    if isinstance(encoder.norm, nn.Identity):  # Which those have: of use are the maps, which it is not in.
        encoder.norm = nn.LayerNorm(encoder.embed_dims, eps=LAYER_NORM_EPS)
    pooling = 'mean' if encoder.out_type == 'avg_featmap' else 'token'
    state = from_ours(arrays_of(model), layout_for(model, to), pooling)
    state = {name.removeprefix('encoder.'): value for name, value in state.items() if 'position_index' not in name}
    images = torch.randn(2, encoder.patch_embed.in_channels, height, width)
    want = model(images)[0] if model.fc else encoder.encode(images)
    with new_folder(out) as folder:
        write_checkpoint(state, folder / WEIGHTS, meta={KEY: model.facts})
        for name, content in (for_timm if to == 'timm' else for_transformers)(model, pooling).items():
            (folder / name).write_text(json.dumps(content, indent=2))
        (folder / 'README.md').write_text(card)
        if to == 'timm':
            theirs = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
            got = theirs(images) if model.fc else theirs.forward_features(images)
            usage = f"timm.create_model('local-dir:{out}', pretrained=True)"
        else:
            import transformers
            kind = 'AutoModelForImageClassification' if model.fc else 'AutoModel'
            theirs = getattr(transformers, kind).from_pretrained(folder).eval()
            got = theirs(images).logits if model.fc else theirs(images).last_hidden_state
            usage = f"transformers.{kind}.from_pretrained('{out}')"
        report = compare(to, [got], [want], images)
    return [report, usage]


def layout_for(model: Exported, to: str) -> str:
    """Whose names a folder's arrays have: timm's BEiT, which has relative positions, has those of the authors.

    Raises:
        ValueError: for images that are not square, which transformers' BEiT does not take.
    """
    size = model.facts['img_size']
    if to == 'huggingface' and size[0] != size[1]:
        raise ValueError(f"transformers' BEiT takes square images, these are of {size[0]}x{size[1]}: take --to "
                         'timm, which transformers loads too')
    return 'transformers' if to == 'huggingface' else 'official' if model.encoder.fixed_size else 'timm'


def for_timm(model: Exported, pooling: str) -> dict[str, dict]:
    """What timm, and transformers' TimmWrapperModel, read beside the arrays, by file."""
    encoder, (height, width) = model.encoder, model.facts['img_size']
    channels, relative = encoder.patch_embed.in_channels, encoder.fixed_size
    classes, pool = model.fc.out_features if model.fc else 0, dict(token='token', mean='avg')[pooling]
    arguments = dict(
        img_size=[height, width], patch_size=encoder.patch_size, embed_dim=encoder.embed_dims, in_chans=channels,
        depth=encoder.num_layers, num_heads=model.facts['num_heads'], init_values=0.1, global_pool=pool,
        mlp_ratio=encoder.blocks[0].mlp.fc1.out_features / encoder.embed_dims,
        **dict(use_abs_pos_emb=True, use_rel_pos_bias=True) if relative else {})
    pixels = {name: [x / 255 for x in getattr(model, name)] for name in ('mean', 'std')}
    size = SIZES.get(encoder.embed_dims, ('base', 'base'))[relative]
    return {'config.json': dict(
        architecture=f'{"beit" if relative else "vit"}_{size}_patch16_224', num_classes=classes,
        num_features=encoder.embed_dims, global_pool=pool, model_args=arguments,
        pretrained_cfg=dict(
            input_size=[channels, height, width], fixed_input_size=True, pool_size=None, crop_pct=CROP,
            interpolation='bicubic', crop_mode='center', num_classes=classes, first_conv='patch_embed.proj',
            classifier='head', **pixels),
        **dict(label_names=model.classes) if model.classes else {})}


def for_transformers(model: Exported, pooling: str) -> dict[str, dict]:
    """What transformers' BEiT and its image processor read beside the arrays, by file."""
    encoder, side = model.encoder, model.facts['img_size'][0]
    names = model.classes or [f'LABEL_{i}' for i in range(model.fc.out_features if model.fc else 0)]
    labels = dict(id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)})
    return {'config.json': dict(
        model_type='beit', architectures=['BeitForImageClassification' if model.fc else 'BeitModel'],
        hidden_size=encoder.embed_dims, num_hidden_layers=encoder.num_layers,
        num_attention_heads=model.facts['num_heads'], layer_norm_eps=LAYER_NORM_EPS, image_size=side,
        intermediate_size=encoder.blocks[0].mlp.fc1.out_features, patch_size=encoder.patch_size,
        num_channels=encoder.patch_embed.in_channels, use_absolute_position_embeddings=True,
        use_relative_position_bias=encoder.fixed_size, use_mean_pooling=pooling == 'mean',
        layer_scale_init_value=0.1, drop_path_rate=0., **labels if model.fc else {}),
            'preprocessor_config.json': dict(
        image_processor_type='BitImageProcessor', do_convert_rgb=True, do_resize=True, do_center_crop=True,
        do_rescale=True, do_normalize=True, resample=3, size=dict(shortest_edge=round(side / CROP)),
        crop_size=dict(height=side, width=side), image_mean=[x / 255 for x in model.mean],
        image_std=[x / 255 for x in model.std])}

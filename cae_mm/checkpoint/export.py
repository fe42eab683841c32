"""Encoders and classifiers for other libraries, which compute there what they compute here."""
import io
import json
from pathlib import Path

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.export import Dim

from cae_mm.atomic import new_folder, write_atomically
from cae_mm.checkpoint import lwdetr
from cae_mm.checkpoint.convert import detect_origin, from_ours, kind_of, to_ours
from cae_mm.checkpoint.facts import KEY, facts_of
from cae_mm.checkpoint.files import read_weights, write_checkpoint
from cae_mm.checkpoint.loader import arguments_of, load_backbone
from cae_mm.checkpoint.names import pooling_of, prefix_of, theirs_to_ours, translate
from cae_mm.checkpoint.sources import WEIGHTS, fetch
from cae_mm.models.layers import LAYER_NORM_EPS
from cae_mm.models.vit import CAEViT
from cae_mm.positions import resized

FILES = {'onnx': '.onnx', 'torch-export': '.pt2', 'safetensors': '.safetensors'}
FOLDERS = ('huggingface', 'timm')
TOLERANCE = 1e-4  # of the greatest number, or of 1
CROP = 0.875  # side of the middle of an image that is looked at: 224 of 256 pixels


class Exported(nn.Module):
    """An encoder or a classifier as others run it, on RGB images normalised by ``mean`` and ``std``.

    Args:
        encoder (CAEViT): gives 'raw' tokens, or, in a classifier, what ``fc``, a linear layer, reads.
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
        """(B, 3, H, W) -> logits (B, K); or class token (B, C) and, for each tap, a map (B, C, h, w)."""
        outputs = self.encoder(images)
        if self.fc is not None:
            return (self.fc(outputs[-1]),)
        grid = self.encoder.grid(*images.shape[-2:])
        return outputs[-1][:, 0], *(tokens[:, 1:].mT.unflatten(2, grid) for tokens in outputs)

    def arrays(self) -> dict[str, Tensor]:
        """Its arrays, by the names of a checkpoint of ours."""
        names = {'encoder': 'backbone', 'fc': 'head.fc'}
        return {f'{names[part]}.{name}': value for part, module in self.named_children()
                for name, value in module.state_dict().items()}


def read_model(path: str | Path, encoder_only: bool = False, out_indices: tuple[int, ...] = (-1,),
               img_size: tuple[int, int] | None = None, num_heads: int | None = None,
               pooling: str | None = None, report: list[str] | None = None) -> Exported:
    """The classifier in a checkpoint, or the encoder, of anything else and with ``encoder_only``.

    Args:
        path, num_heads: see ``load_backbone``, as well for what is raised, and ``heads_of``.
        out_indices (tuple[int, ...]): taps of an encoder.
        img_size (tuple[int, int], optional): height and width; by default those of its training.
        pooling (str, optional): what a classifier reads, 'token' or 'mean'; by default as its names tell,
            and the mean for ours, which do not.
        report (list[str], optional): what was found is appended.
    """
    report, path = [] if report is None else report, fetch(path)
    state, meta = read_weights(path)
    layout = detect_origin(state)
    pairs = theirs_to_ours(layout, prefix_of(state, layout))
    kind = kind_of({translate(name, pairs) for name in state})
    options, fc = dict(out_type='raw', out_indices=out_indices), None
    what = 'encoder' if kind == 'encoder' else f'encoder of {kind}'
    if kind == 'classifier' and not encoder_only:
        ours = to_ours(state, layout)
        fc = nn.Linear(*ours['head.fc.weight'].shape[::-1])
        fc.load_state_dict({name: ours[f'head.fc.{name}'] for name in ('weight', 'bias')})
        pooling = pooling or pooling_of(state, layout) or 'mean'
        options = dict(out_type=dict(token='cls_token', mean='avg_featmap')[pooling])
        what = f'classifier of {fc.out_features} classes by the {pooling}'
    options = arguments_of(path, num_heads) | options | (dict(img_size=img_size) if img_size else {})
    encoder = CAEViT(**options)
    load_backbone(encoder, path, trained_with=num_heads and dict(num_heads=num_heads))
    report.append('{}, {}: {} blocks, width {}, patches of {}, images of {}x{}'.format(
        layout, what, encoder.num_layers, encoder.embed_dims, encoder.patch_size, *options['img_size']))
    if not options['final_norm']:
        report.append('it has no final norm: of use are the maps')
        if encoder.any_size:
            report.append("positions of other image sizes are computed; pos_mode='resize' of a training "
                          'resizes them')
    facts = encoder.trained_with
    if not facts.get('mean'):
        report.append("the file does not say how pixels were normalised: ImageNet's mean and std are taken")
    if facts.get('channel_order') == 'BGR':  # What is exported takes RGB.
        encoder.patch_embed.weight.data = encoder.patch_embed.weight.data.flip(1)
        facts |= {name: facts[name][::-1] for name in ('mean', 'std')}
    classes = (meta.get('dataset_meta') or {}).get('classes')
    return Exported(encoder, fc, classes, facts.get('mean'), facts.get('std')).eval().requires_grad_(False)


def export(model: Exported, out: str | Path, to: str, card: str = '') -> list[str]:
    """Write a model for others, whole or not at all, when it has given there what it gives here.

    ``out`` is a file with the suffix of ``FILES[to]``, or a new folder, with a README.md of ``card``. The
    model is not to be used afterwards. Returns how much it differs, and how it is loaded. A ValueError for
    a model that the other library does not have, or another suffix; a RuntimeError when that computes other
    numbers.
    """
    out = Path(out)
    if to == 'lwdetr':
        return write_lwdetr(model, out)
    if to in FOLDERS:
        return write_folder(model, out, to, card)
    if out.suffix != FILES[to]:
        raise ValueError(f'{out}: name a {FILES[to]} file')
    if to != 'safetensors':
        return write_graph(model, out, to)
    write_checkpoint(model.arrays(), out, meta={KEY: model.facts})
    return [f"cae_mm.get_model(pretrained='{out}')"]


def write_graph(model: Exported, out: Path, to: str) -> list[str]:
    """An ONNX file or a program of torch.export, for any batch size and, where it can be, image size."""
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
    """How much other outputs differ from ours; a RuntimeError when that is more than ``TOLERANCE``."""
    worst = max(float((a - b).abs().max() / b.abs().max().clamp(min=1))
                for a, b in zip(got, want, strict=True))
    report = f'{what} differs from PyTorch by {worst:.1e} for images of {"x".join(map(str, images.shape))}'
    if not worst <= TOLERANCE:
        raise RuntimeError(f'{report}: nothing is written')
    return report


@torch.no_grad()
def write_folder(model: Exported, out: Path, to: str, card: str) -> list[str]:
    """A folder for timm and transformers' wrapper of it, or for transformers' BEiT; see ``export``."""
    encoder, (height, width) = model.encoder, model.facts['img_size']
    if to == 'huggingface' and height != width:
        raise ValueError(f"transformers' BEiT takes square images, these are of {height}x{width}: take "
                         '--to timm, which transformers loads too')
    if isinstance(encoder.norm, nn.Identity):  # Which those have: of use are the maps, which it is not in.
        encoder.norm = nn.LayerNorm(encoder.embed_dims, eps=LAYER_NORM_EPS)
    pooling = 'mean' if encoder.out_type == 'avg_featmap' else 'token'
    # timm's BEiT, for relative positions, has the authors' names.
    layout = 'transformers' if to == 'huggingface' else 'official' if encoder.fixed_size else 'timm'
    state = {name.removeprefix('encoder.'): value for name, value in from_ours(
        model.arrays(), layout, pooling).items() if not name.endswith('_index')}
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
            given = getattr(transformers, kind).from_pretrained(folder).eval()(images)
            got = given.logits if model.fc else given.last_hidden_state
            usage = f"transformers.{kind}.from_pretrained('{out}')"
        report = compare(to, [got], [want], images)
    return [report, usage]


@torch.no_grad()
def write_lwdetr(model: Exported, out: Path) -> list[str]:
    """A folder for transformers' ``LwDetrViTBackbone``, whose blocks attend to all of the image."""
    import transformers
    encoder, images = model.encoder, torch.randn(1, model.encoder.patch_embed.in_channels, 256, 256)
    state = lwdetr.for_lwdetr(from_ours(model.arrays(), 'official'), model.facts['num_heads'])
    arch = dict(embed_dims=encoder.embed_dims, num_layers=encoder.num_layers, num_heads=lwdetr.NUM_HEADS)
    same = CAEViT(arch, 256, lwdetr.PATCH, with_cls_token=False, out_type='featmap', final_norm=False)
    given = {name: value for name, value in encoder.state_dict().items() if name in same.state_dict()}
    same.load_state_dict(dict(given, pos_embed=resized(encoder.pos_embed, lwdetr.GRID, same.grid_size)))
    config = dict(
        model_type='lw_detr_vit', architectures=['LwDetrViTBackbone'], hidden_size=encoder.embed_dims,
        num_hidden_layers=encoder.num_layers, num_attention_heads=lwdetr.NUM_HEADS,
        mlp_ratio=encoder.blocks[0].mlp.fc1.out_features // encoder.embed_dims,
        layer_norm_eps=LAYER_NORM_EPS, num_channels=images.shape[1], patch_size=lwdetr.PATCH,
        pretrain_image_size=224, out_indices=[encoder.num_layers])
    with new_folder(out) as folder:
        write_checkpoint(lwdetr.for_transformers(state), folder / WEIGHTS, meta={KEY: model.facts})
        (folder / 'config.json').write_text(json.dumps(config, indent=2))
        theirs = transformers.LwDetrViTBackbone.from_pretrained(folder).eval()
        report = compare('lwdetr', [theirs(images).feature_maps[-1]], [same.eval()(images)[0]], images)
    return [report, f"transformers.LwDetrViTBackbone.from_pretrained('{out}', window_block_indices=[...])"]


def for_timm(model: Exported, pooling: str) -> dict[str, dict]:
    """What timm, and transformers' TimmWrapperModel, read beside the arrays, by file."""
    encoder, size, relative = model.encoder, model.facts['img_size'], model.encoder.fixed_size
    classes, channels = model.fc.out_features if model.fc else 0, encoder.patch_embed.in_channels
    arguments = dict(
        img_size=size, patch_size=encoder.patch_size, in_chans=channels, embed_dim=encoder.embed_dims,
        depth=encoder.num_layers, num_heads=model.facts['num_heads'], init_values=0.1,
        mlp_ratio=encoder.blocks[0].mlp.fc1.out_features / encoder.embed_dims,
        global_pool=dict(token='token', mean='avg')[pooling],
        **dict(use_abs_pos_emb=True, use_rel_pos_bias=True) if relative else {})
    # The arguments replace the sizes in the name; without its width nothing is known by it.
    name = {192: 'tiny', 384: 'small', 1024: 'large'}.get(encoder.embed_dims, 'base')
    return {'config.json': dict(
        architecture=f'beit_{name if name == "large" else "base"}_patch16_224' if relative
        else f'vit_{name}_patch16_224', num_classes=classes, num_features=encoder.embed_dims,
        model_args=arguments, **dict(label_names=model.classes) if model.classes else {},
        pretrained_cfg=dict(
            input_size=[channels, *size], fixed_input_size=True, pool_size=None, crop_pct=CROP,
            crop_mode='center', interpolation='bicubic', num_classes=classes, classifier='head',
            first_conv='patch_embed.proj', mean=[x / 255 for x in model.mean],
            std=[x / 255 for x in model.std]))}


def for_transformers(model: Exported, pooling: str) -> dict[str, dict]:
    """What transformers' BEiT and an image processor read beside the arrays, by file."""
    encoder, side, labels = model.encoder, model.facts['img_size'][0], {}
    if model.fc:
        names = model.classes or [f'LABEL_{i}' for i in range(model.fc.out_features)]
        labels = dict(id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)})
    config = dict(
        model_type='beit', architectures=['BeitForImageClassification' if model.fc else 'BeitModel'],
        hidden_size=encoder.embed_dims, intermediate_size=encoder.blocks[0].mlp.fc1.out_features,
        num_hidden_layers=encoder.num_layers, num_attention_heads=model.facts['num_heads'],
        num_channels=encoder.patch_embed.in_channels, image_size=side, patch_size=encoder.patch_size,
        layer_norm_eps=LAYER_NORM_EPS, layer_scale_init_value=0.1, drop_path_rate=0.,
        use_absolute_position_embeddings=True, use_relative_position_bias=encoder.fixed_size,
        use_mean_pooling=pooling == 'mean', **labels)
    processor = dict(
        image_processor_type='BitImageProcessor', do_convert_rgb=True, do_resize=True, do_center_crop=True,
        do_rescale=True, do_normalize=True, resample=3, size=dict(shortest_edge=round(side / CROP)),
        crop_size=dict(height=side, width=side), image_mean=[x / 255 for x in model.mean],
        image_std=[x / 255 for x in model.std])
    return {'config.json': config, 'preprocessor_config.json': processor}

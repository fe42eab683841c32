"""Features of a frozen vision transformer as targets."""
import torch
from mmengine.utils import to_2tuple
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from cae_mm.models.layers import gather_tokens
from cae_mm.models.targets.base import TargetGenerator
from cae_mm.models.timm_vit import TimmViT
from cae_mm.positions import resized

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])


@MODELS.register_module()
class TeacherFeatures(TargetGenerator):
    """Features of all tokens of a frozen vision transformer, the targets of CAE v2 (arXiv 2211.09799).

    Class and patch tokens count, register tokens do not. Where a teacher has no class token (SigLIP), the
    mean of its patches is the target of the student's. Pixels are normalised as in the teacher's training.

    Args:
        backbone (dict): ``TimmViT`` or ``CAEViT``, of the image size of its weights.
        projection (int, optional): width of a linear layer behind the final norm, which CLIP's files have;
            the features are its outputs, for all tokens, as the authors take them.
        img_size (int | tuple[int, int], optional): height and width of the target's view, where those are
            not the backbone's: a table of positions with a class token is resized bilinearly, as the
            authors do. All others are fitted to a view as the backbone does.
        dtype (str): precision on GPUs.
        init_cfg (dict): ``dict(type='Pretrained', checkpoint=PATH_OR_URL)``, read whole; see ``load_timm``
            and ``load_backbone``.
        allow_random (bool): see :class:`TargetGenerator`.

    Raises:
        FileNotFoundError: without a checkpoint; the message says where to get one.
        RuntimeError: when the checkpoint is of another model.
    """
    has_cls = True
    advice = (
        'A teacher is a trained vision transformer, such as CLIP ViT-B/16, which lies at '
        'https://openaipublic.azureedge.net/clip/models/'
        '5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt: give the path '
        'of its file with --cfg-options tokenizer=PATH. allow_random=True accepts random weights, for '
        'tests and benchmarks only.')

    def __init__(self, backbone: dict, projection: int | None = None,
                 img_size: int | tuple[int, int] | None = None, dtype: str = 'float16',
                 init_cfg: dict | None = None, allow_random: bool = False):
        super().__init__(init_cfg, allow_random)
        self.backbone = MODELS.build(dict(backbone, out_type='raw'))
        self.stride, dims = self.backbone.patch_size, self.backbone.embed_dims
        self.num_outputs, self.dtype = projection or dims, getattr(torch, dtype)
        self.projection = nn.Linear(dims, projection, bias=False) if projection else nn.Identity()
        if init_cfg:
            self.loaded = self.load(self.backbone, dict(init_cfg, type=self.backbone.pretrained))
            if projection:
                self.load(self.projection, dict(init_cfg, type='PretrainedProjection'))
        if isinstance(self.backbone, TimmViT) and img_size is not None:
            self._fit(to_2tuple(img_size))
        known = getattr(self.backbone, 'trained_with', {})
        own = {key: [255 * x for x in getattr(self.backbone, key)] for key in IMAGENET
               if hasattr(self.backbone, key)}
        for key, usual in IMAGENET.items():
            value = torch.tensor(known.get(key) or own.get(key) or usual).view(3, 1, 1) / 255
            self.register_buffer(key, value, persistent=False)
        self.freeze()

    def _fit(self, img_size: tuple[int, int]) -> None:
        vit, old = self.backbone.vit, self.backbone.grid_size
        table, new = getattr(vit, 'pos_embed', None), tuple(side // self.stride for side in img_size)
        if table is not None and table.shape[1] == 1 + old[0] * old[1] and new != old:
            vit.set_input_size(img_size=img_size)
            vit.pos_embed = nn.Parameter(resized(table.detach(), old, new, mode='bilinear'))
            self.backbone.grid_size = new

    def normalise(self, target_images: Tensor) -> Tensor:
        """Pixels (B, 3, h, w) in [0, 1] as the teacher knows them."""
        return (target_images - self.mean) / self.std

    @torch.no_grad()
    def get_targets(self, target_images: Tensor, masked: Tensor) -> Tensor:
        """Features (B, n, K) float32 at (B, n) int64 patches, row-major, of which -1 is the class token."""
        self.grid_size(*target_images.shape[2:])
        device = target_images.device.type
        with torch.autocast(device, self.dtype, enabled=device == 'cuda'):
            tokens = self.projection(self.backbone(self.normalise(target_images))[-1])
        patches = tokens[:, self.backbone.num_prefix_tokens:]
        first = tokens[:, :1] if self.backbone.has_cls_token else patches.mean(1, keepdim=True)
        tokens = torch.cat([patches, first], dim=1)  # The class token is the last, which is -1, too.
        return gather_tokens(tokens, masked % tokens.shape[1]).float()

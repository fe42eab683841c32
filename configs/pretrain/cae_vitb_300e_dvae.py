# CAE ViT-B with a tokenizer of one's own, trained by configs/tokenizer/dvae_imagenet.py.
_base_ = ['./cae_vitb_300e.py', '../_base_/models/dvae_imagenet.py']

tokenizer = 'work_dirs/dvae_imagenet/epoch_20.pth'
model = dict(target_generator={{_base_.dvae}})

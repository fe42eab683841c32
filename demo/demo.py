#!/usr/bin/env python
"""The whole method in minutes: train a tokenizer, pre-train CAE, and show what the encoder learned.

    python demo/demo.py                       on handwritten digits over photographs
    python demo/demo.py --data MY_IMAGES      on your own images

Every step is a command that is printed before it runs; a step whose result exists is not repeated.
"""
import json
from pathlib import Path

from steps import (
    PRETRAIN,
    PRETRAIN_VIEWS,
    TOKENIZER_VIEWS,
    Step,
    Steps,
    change,
    count,
    pretrain,
    print_table,
)
from terminal import POSITIVE, Parser, run

from cae_mm.visualization import Section, draw_curves, write_report

LEAD = """A vision transformer saw unlabelled images with half of their patches hidden, and
learned to predict what the hidden patches are. This page shows what that taught it."""
RESULT = 'Pre-training without labels took {} (top-1 accuracy in %).\n\n'
LEARNED = """Frozen features (the mean of the patch tokens) classify {val} images that were in
no training: by their most similar ones among {train} training images (k-NN), and by a linear
classifier. Pre-training itself saw no labels. The random encoder is the same network before
it."""
PAINTED = """Half of the patches are hidden. From the others the model predicts the codes of the
hidden ones, and the tokenizer's decoder turns codes into pixels. The last column decodes the
true codes: no prediction can look better. The images were in no training, unless the data has
no validation part."""
PRETRAINED = """The loss falls: the predicted codes approach the true ones. Alignment, the other
half of CAE, of predicted representations to the encoder's own, is not worth its time in so short a
training: docs/evidence.md."""
TOKENIZED = """A discrete VAE learns to describe each patch by one code. Codes that are never
used would be wasted; the perplexity is the number of codes in effective use."""


def result_table(results: dict[str, dict[str, float]]) -> list[list[str]]:
    """Accuracies of the random and the pre-trained encoder, and how much the second is ahead."""
    names = {f'knn/top1_k{k}': f'k-NN, k = {k}' for k in (1, 10, 20)} | {
        'linear/top1': 'linear probe'}
    names = {key: name for key, name in names.items() if key in results['random']}
    rows = [[f'{encoder} encoder', *(f'{numbers[key]:.1f}' for key in names)]
            for encoder, numbers in results.items()]
    ahead = [results['pre-trained'][key] - results['random'][key] for key in names]
    return [['top-1 accuracy, %', *names.values()], *rows,
            ['difference', *(f'{number:+.1f}' for number in ahead)]]


def evaluate_steps(data: Path, out: Path, checkpoint: Path) -> dict[str, Step]:
    """k-NN and linear probe of the random and the pre-trained encoder; {} without labels."""
    if not (data / 'val').is_dir():
        return {}
    ks = [k for k in (10, 20) if k <= count(data / 'train')] or [1]
    return {name: Step(
        f'Measure the {name} encoder',
        ['tools/knn.py', PRETRAIN, path, '--data', data, '--linear-probe', '--k', *ks, '--out',
         out / f'{name}.json'], out / f'{name}.json')
        for name, path in (('random', 'none'), ('pre-trained', checkpoint))}


def report(steps: Steps, table: list[list[str]], data: Path) -> None:
    """Write ``report.html``."""
    out = steps.out
    sections = [Section('What the encoder learned', RESULT.format(change(table)) + LEARNED.format(
        train=count(data / 'train'), val=count(data / 'val')), table)] if table else []
    sections += [
        Section('What it paints under the mask', PAINTED, figure=out / 'reconstructions.png'),
        Section('How pre-training went', PRETRAINED, figure=out / 'pretrain_curves.png'),
        Section('How the tokenizer was trained', TOKENIZED, figure=out / 'tokenizer_curves.png'),
        steps.section()]
    write_report(out / 'report.html', 'CAE: a context autoencoder, pre-trained in minutes', LEAD,
                 sections)


def main() -> None:
    """Run all steps."""
    parser = Parser(description=__doc__.split('\n')[0])
    parser.add_argument('--data', type=Path, help='folder of your own images, at any depth; with '
                        'folders of classes, or train/CLASS and val/CLASS, k-NN is measured')
    parser.add_argument('--out', type=Path, help='folder to write, default: demo_out, or '
                        'demo_out/<name of your folder>')
    parser.add_argument('--force', action='store_true', help='repeat what is done already')
    parser.add_argument('--views', type=POSITIVE, nargs=2, default=(TOKENIZER_VIEWS, PRETRAIN_VIEWS),
                        metavar=('TOKENIZER', 'CAE'), help='images that the trainings see')
    args = parser.parse_args()
    source = args.data and args.data.expanduser().resolve()
    if source and not source.is_dir():
        raise FileNotFoundError(f'--data {args.data}: there is no such folder')
    steps = Steps((args.out or Path('demo_out', source.name if source else '')).resolve(), args.force)
    out, data = steps.out, steps.out / 'data' / 'imagenet'
    tokenizer, checkpoint = pretrain(steps, source, args.views)
    measured = evaluate_steps(data, out, checkpoint)
    table = result_table({name: json.loads(steps.run(step).read_text())
                          for name, step in measured.items()}) if measured else []
    images = data / ('val' if measured else 'train')
    steps.run(Step('Draw reconstructions', [
        'tools/reconstruct.py', PRETRAIN, checkpoint, '--images', images, '--out',
        out / 'reconstructions.png', '--cfg-options', f'tokenizer={tokenizer}'],
        out / 'reconstructions.png'))
    draw_curves(out / 'tokenizer', out / 'tokenizer_curves.png',
                ('loss_reconstruct', 'code_usage', 'code_perplexity', 'lr'))
    draw_curves(out / 'pretrain', out / 'pretrain_curves.png')
    report(steps, table, data)
    print()
    print_table(table)
    print(f'\n{steps.seconds():.0f} s of computing. Open {out / "report.html"}')


if __name__ == '__main__':
    run(main)

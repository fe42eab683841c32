"""The tables and curves of docs/evidence.md, from the records of evidence.py."""
import re
import statistics
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / 'docs'
# Half the width of a 95 % interval of a mean, in standard errors, for 2, 3, 4 and 5 seeds (Student's t).
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
LABELS = dict(cae='CAE', cae_whole='CAE, whole', mae="mmpretrain's MAE", beit="mmpretrain's BEiT",
              mmcae="mmpretrain's CAE", cae_pixels='CAE, whole, pixels',
              cae_paired='CAE, whole, paired masks', cae_v2='CAE v2, its teacher not counted',
              no_align='no alignment', no_decoder='no decoder',
              masks_40='40 % masked', masks_60='60 % masked', masks_24="mmpretrain's 38 % masked",
              regressor_1='regressor of one block', drop_path='drop path 0.1')
COLUMNS = dict(knn='k-NN', linear='linear', attentive='attentive', finetune='fine-tuned', upernet='mIoU')


def label(method: str) -> str:
    """A method as readers know it."""
    name = method.removesuffix('_flops')
    return LABELS.get(name, name.replace('_', ' ')) + ', equal operations' * (name != method)


def cell(values: list[float]) -> str:
    """Mean and half interval."""
    if not values:
        return ''
    mean = f'{statistics.mean(values):.1f}'
    if len(values) < 2:
        return mean
    return f'{mean} ± {STUDENT[len(values)] * statistics.stdev(values) / len(values) ** 0.5:.1f}'


def grouped(records: dict, data: str) -> dict[tuple[str, str], list[dict]]:
    """The runs on some images, by minutes and method, in order of seeds.

    Raises:
        ValueError: when seeds of a method were trained for other lengths.
    """
    found = {}
    for key, record in records.get('runs', {}).items():
        name, method, minutes, seed = key.split()
        if name == data:
            found.setdefault((minutes, method), []).append((int(seed), record))
    for key, runs in found.items():
        if len(lengths := {record['epochs'] for _, record in runs}) > 1:
            raise ValueError(f'{data} {key[1]} has seeds of {sorted(lengths)} epochs, which make no mean: '
                             'remove those of the former length from evidence.json, and run again')
    return {key: [run[1] for run in sorted(runs, key=lambda run: run[0])] for key, runs in found.items()}


def table(records: dict, data: str, minutes: str, ablation: bool) -> str:
    """One row for each method that was run for so many minutes, or for CAE and each of its ablation."""
    groups = {key[1]: runs for key, runs in grouped(records, data).items() if key[0] == minutes and (
        ablation and key[1] == 'cae_whole' or ablation != ('seconds' in runs[0]))}
    columns = [name for name in COLUMNS if any(name in run for runs in groups.values() for run in runs)
               and not (ablation and name == 'finetune')]
    cost = [] if ablation else ['minutes', 'TFLOP']
    lines = [['method', 'seeds', 'rate', 'epochs', *cost, *(COLUMNS[name] for name in columns)]]
    lines.append(['---'] * len(lines[0]))
    for method, runs in groups.items():
        first = runs[0]
        rate = f'{first["rate"]:g}' if first['epochs'] else ''
        cost = [] if ablation else [f'{first["seconds"] / 60:.1f}', f'{first["gflops"] / 1000:.0f}']
        lines.append([label(method), str(len(runs)), rate, str(first['epochs']), *cost,
                      *(cell([run[name] for run in runs if name in run]) for name in columns)])
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def curves(records: dict, data: str, minutes: str, path: Path) -> None:
    """Draw accuracy against minutes and operations, the tokenizer's included."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    fig, axes = plt.subplots(2, 2, figsize=(9, 6), sharey='row', layout='constrained')
    for (length, method), runs in grouped(records, data).items():
        if length != minutes or not {'curve', 'seconds'} <= runs[0].keys():
            continue
        for row, name in enumerate(('k-NN', 'linear')):
            mean = [statistics.mean(points) for points in zip(
                *([point[1 + row] for point in run['curve']] for run in runs), strict=True)]
            for axis, unit, factor, title in (
                    (axes[row, 0], 'seconds', 60, 'minutes of one core'),
                    (axes[row, 1], 'gflops', 1000, 'TFLOP')):
                total, start = runs[0][unit] / factor, runs[0].get('before', {}).get(unit, 0) / factor
                done = [point[0] / runs[0]['epochs'] for point in runs[0]['curve']]
                x = [start + (total - start) * share for share in done]
                axis.plot(x, mean, marker='o', label=label(method))
                axis.set(ylabel=f'{name}, %', xlabel=title)
                axis.grid(alpha=.3)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc='outside upper center', ncols=4, fontsize=8)
    fig.savefig(path, dpi=120)


def write(records: dict) -> None:
    """Put the tables between the markers of docs/evidence.md, and draw the curves beside it.

    Raises:
        ValueError: when there is no marker.
    """
    page = DOCS / 'evidence.md'
    text = page.read_text()
    if not (markers := re.findall(r'<!-- ((table|ablation) (\S+) (\S+)) -->', text)):
        raise ValueError(f'{page} has no place for a table: two lines, <!-- table DATA MINUTES --> and '
                         '<!-- end -->, are one, as in <!-- table eurosat 12 -->')
    for marker, kind, data, minutes in markers:
        rows = table(records, data, minutes, kind == 'ablation')
        text = re.sub(rf'<!-- {re.escape(marker)} -->.*?<!-- end -->',
                      lambda _, new=f'<!-- {marker} -->\n{rows}\n<!-- end -->': new, text, flags=re.DOTALL)
    page.write_text(text)
    for name in re.findall(r'images/evidence_(\S+?)\.png', text):
        data, minutes = name.split('_')
        curves(records, data, minutes, DOCS / f'images/evidence_{name}.png')

"""Stand-ins for the exercises that a check does not ask about, so that one mistake costs points only once.

They run in the process of the student's code, so they contain no part of the reference: each returns given tensors, is
one line of torch that the assignment states as a formula, or calls the course's library, which students have anyway.
A stand-in is sent to a submission only with a check of a later exercise than the one it replaces.
"""

from contextlib import contextmanager
from itertools import cycle

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from ebmcourse import gtn, lattice
from ebmcourse.checking import probe, require
from ebmcourse.data.words import BETWEEN


@probe
@contextmanager
def replaced(module, **stand_ins):
    """Replace the module's functions of these names by stand-ins, inside a `with` block."""
    own = {name: vars(module)[name] for name in stand_ins if name in vars(module)}
    vars(module).update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            vars(module).pop(name, None)
        vars(module).update(own)


@probe
def find_path(pm):
    """Free energy, points and table of the best path, by the course's library; only the last entry of dp is right."""
    require(
        pm.shape[1] > 0,
        "`find_path` gets no targets: those of a word are BETWEEN, followed by `transform_word(text)`.",
    )
    require(
        pm.shape[0] > 0,
        "`find_path` gets a word without windows: each word has `window_counts(width)` windows, which is at least one.",
    )
    found = lattice.viterbi(pm.detach()[None], torch.arange(pm.shape[1])[None])
    dp = torch.full_like(pm, float("inf"))
    dp[-1, -1] = found.energy[0]
    return found.energy[0], list(enumerate(found.path[0].tolist())), dp


@probe
def path_energy(pm, path):
    """The energy of a valid path, given as positions or as points."""
    positions = torch.tensor([[int(j) for j in torch.as_tensor(point).flatten()][-1] for point in path])
    return pm.gather(1, positions[:, None]).sum()


@probe
def build_path_matrix(energies, targets):
    words, windows = torch.arange(len(energies)), torch.arange(energies.shape[1])
    return energies[words[:, None, None], windows[None, :, None], targets[:, None, :]]


@probe
def build_ce_matrix(energies, targets):
    return build_path_matrix(energies, targets) + (-energies).logsumexp(2, keepdim=True)


@probe
def create_ctc_graph(target, blank_idx=BETWEEN):
    letters = [int(label) for label in target]
    require(
        int(blank_idx) not in letters,
        "`create_ctc_graph` gets a target that contains the blank which it gets: pass the plain letters and "
        "`blank_idx`, it inserts the blanks itself.",
    )
    return gtn.ctc_graph(letters, int(blank_idx))


@probe
def graph_of_letters(target, blank_idx=BETWEEN):
    """The same, where it does not matter whether the target contains blanks: they are left out."""
    return gtn.ctc_graph([int(label) for label in target if int(label) != int(blank_idx)], int(blank_idx))


@probe
class CrossEntropy:
    """The given criterion, the cross-entropy of -energies; records the sum and the number of losses of each call.

    given, labels: the energies of the first call, and the classes of all calls
    is_detached: whether it was called with energies without a gradient, or where no gradients are kept
    """

    def __init__(self):
        self.sums, self.counts = [], []
        self.given, self.labels, self.is_detached = torch.zeros(0, 27), torch.zeros(0), False

    def __call__(self, energies, target, **kwargs):
        require(
            energies.is_floating_point(),
            "The first argument of the criterion holds whole numbers: pass the energies first, then the classes.",
        )
        require(
            energies.dim() > 1,
            "The criterion gets energies with a single axis: the shape is (N, 27), even if N = 1.",
        )
        require(
            energies.shape[1] == 27,
            "The energies that the criterion gets have another shape than (N, 27), with a column for each class.",
        )
        require(
            not target.is_floating_point(),
            "The second argument of the criterion holds no whole numbers: pass the classes, one for each row of "
            "energies.",
        )
        require(
            kwargs.keys() <= {"reduction", "ignore_index"},
            "The criterion gets further options: call it with the energies and the classes alone.",
        )
        self.is_detached |= not (torch.is_grad_enabled() and energies.requires_grad)
        self.given = self.given if self.counts else energies.detach().clone()
        self.labels = torch.cat([self.labels, target.flatten().float()])
        each = F.cross_entropy(-energies.detach(), target, **(kwargs | {"reduction": "none"}))
        self.sums.append(each.sum())
        self.counts.append(int((target != kwargs.get("ignore_index", -100)).sum()))
        return F.cross_entropy(-energies, target, **kwargs)


@probe
class CTCCriterion:
    """The CTC loss of torch with the arguments of the given `ctc_loss`; records its arguments and results.

    lengths: the numbers of windows of all words
    sums, counts: for each call, the sum and number of the words' losses, each divided by its number of letters
    given: the log-probabilities of the first call
    is_detached: whether it was called with log-probabilities without a gradient, or where no gradients are kept
    factor: of the losses that are returned
    """

    def __init__(self, factor=1.0):
        self.factor = factor
        self.targets, self.lengths, self.excess, self.sums, self.counts = [], [], [], [], []
        self.given, self.is_detached = torch.zeros(0, 0, 27), False

    def __call__(self, log_probs, targets, input_lengths=None, *others, **options):
        require(
            not others and not options,
            "The criterion takes three arguments: log-probabilities, targets and numbers of windows.",
        )
        require(
            log_probs.dim() == 3 and len(log_probs) == len(targets),
            "The log-probabilities and the targets do not fit: (B, L, 27), words first, and one target for each word.",
        )
        require(
            log_probs.shape[2] == 27,
            "The log-probabilities have another number of classes than 27: (B, L, 27) is expected.",
        )
        require(
            not any(isinstance(target, str) for target in targets),
            "The targets are texts: pass lists of classes, which are in `letters`.",
        )
        self.is_detached |= not (torch.is_grad_enabled() and log_probs.requires_grad)
        self.given = self.given if self.counts else log_probs.detach().clone()
        full = [log_probs.shape[1]] * len(log_probs)
        lengths = [int(length) for length in (full if input_lengths is None else input_lengths)]
        require(
            len(lengths) == len(log_probs),
            "The criterion gets another number of window counts than of words: one for each word of the batch.",
        )
        require(
            max(lengths) <= log_probs.shape[1],
            "A word gets more windows than its image has: pass the `window_counts` of the widths, which are in pixels.",
        )
        self.lengths += lengths
        rows = [torch.as_tensor(target).long().flatten() for target in targets]
        self.targets += [row.tolist() for row in rows]
        self.excess.append(log_probs.detach().logsumexp(2).abs().max())
        sizes = torch.tensor([len(row) for row in rows])
        frames, labels = log_probs.transpose(0, 1), torch.cat(rows)
        each = F.ctc_loss(frames, labels, torch.tensor(lengths), sizes, BETWEEN, reduction="none")
        self.sums.append((each.detach() / sizes).sum())
        self.counts.append(len(rows))
        return self.factor * (each / sizes).mean()


@probe
def with_gradients(train, criterion):
    """What `train()` returns; where it stops because the criterion got values without a gradient, this is said."""
    try:
        return train()
    except RuntimeError as error:
        require(
            "does not require grad" not in str(error) or not criterion.is_detached,
            "The loss has no gradient: the criterion gets detached values, or it or the model is called without "
            "gradients.",
        )
        raise


@probe
class SGD(torch.optim.SGD):
    """Plain gradient descent; counts its steps."""

    def __init__(self, parameters, rate):
        super().__init__(parameters, lr=rate)
        self.steps = 0

    def step(self, closure=None):
        self.steps += 1
        return super().step(closure)


@probe
class Reader(nn.Module):
    """A model (B, 1, 32, W) -> (B, L, 27), linear in the mean brightness of rows × columns blocks of each window.

    weights: (27, rows · columns + 1), the last column is the constant
    modes: for each call with gradients, whether the model was in training mode
    """

    def __init__(self, weights, rows=4, columns=3):
        super().__init__()
        self.weights = nn.Parameter(weights.clone())
        self.blocks = rows, columns
        self.modes = []
        self.start, self.moved = weights.clone(), None

    def forward(self, x):
        if torch.is_grad_enabled():
            self.modes.append(self.training)
        self.note_step()
        return self.features(x) @ self.weights.T

    def note_step(self):
        """Keep the weights after the first step."""
        if self.moved is None and not torch.equal(self.weights, self.start):
            self.moved = self.weights.detach().clone()

    def first_step(self):
        """The weights after the first step."""
        self.note_step()
        return self.weights.detach() if self.moved is None else self.moved

    def in_training(self):
        """Whether the model was in training mode in the first call with gradients, and in all of them."""
        return {"first": all(self.modes[:1]), "all": all(self.modes)}

    def features(self, x):
        require(
            x.dim() != 3,
            "The model gets images with three axes: (B, 1, 32, W) is expected. Are they without the channel axis?",
        )
        require(
            x.dim() == 4 and x.shape[1] == 1,
            "The model gets images of another shape than (B, 1, 32, W), in which the channel axis comes second.",
        )
        rows, columns = self.blocks
        windows = x[:, 0].unfold(2, 18, 4)  # (B, 32, L, 18)
        shape = (len(x), rows, 32 // rows, windows.shape[2], columns, 18 // columns)
        blocks = windows.reshape(shape).mean((2, 5)).permute(0, 2, 1, 3).flatten(2)
        return torch.cat([blocks, torch.ones_like(blocks[:, :, :1])], dim=2)


UNUSED = 3  # samples of the data set of a `Loader` that are in no batch


@probe
class Loader(DataLoader):
    """Batches of these sizes of samples (image (32, W), text); each pass has the samples of the next of `passes`.

    reads: how often the loader was read
    """

    def __init__(self, passes, sizes, collate):
        numbers = iter(range(len(passes[0])))
        batches = [[next(numbers) for _ in range(size)] for size in sizes]
        super().__init__(list(passes[0]) + list(passes[0])[:1] * UNUSED, batch_sampler=batches, collate_fn=collate)
        self.passes, self.reads = cycle(passes), 0

    def __iter__(self):
        self.reads += 1
        samples = next(self.passes)
        self.dataset[: len(samples)] = samples
        return super().__iter__()


@probe
def as_tensor(value):
    """A number or a sequence of numbers as a tensor; anything else unchanged."""
    try:
        if isinstance(value, list | tuple):
            value = [float(item) for item in value]
        return value if value is None else torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError):
        return value


@probe
def as_losses(value):
    """The losses that a training returned: numbers, and what they are. No other return value costs all of a training.

    kind: "numbers", "tensors", "graphs" (tensors with their graphs), "nothing", "undefined" (some are not finite), "no
        list" (numbers in a tuple or an array) or "something else"
    """
    if value is None:
        return {"numbers": torch.zeros(0), "kind": "nothing"}
    items = list(value) if isinstance(value, list | tuple) else [value]
    numbers = as_tensor(value)
    if not isinstance(numbers, torch.Tensor):
        return {"numbers": torch.zeros(0), "kind": "something else"}
    tensors = [item for item in items if isinstance(item, torch.Tensor)]
    kind = "graphs" if any(item.requires_grad for item in tensors) else "tensors" if tensors else "numbers"
    if kind == "numbers" and numbers.dim() > 0 and not isinstance(value, list):
        kind = "no list"
    if not numbers.isfinite().all():
        return {"numbers": torch.zeros(0), "kind": "undefined"}
    return {"numbers": numbers, "kind": kind}


@probe
def refusal(call):
    """The type and the message of the exception that `call` raises; two empty strings if it raises none.

    The type of a subclass of ValueError is ValueError.
    """
    try:
        call()
    except NotImplementedError:
        raise
    except Exception as error:
        name = "ValueError" if isinstance(error, ValueError) else type(error).__name__
        return {"type": name, "message": str(error)[:400]}
    return {"type": "", "message": ""}

# %% [markdown]
# # Generative and predictive modelling of printed glyphs
#
# A classifier of letters answers one question: *which letter is this?* The same network, read as an energy, answers
# two more: *what do letters look like?* and *is this a letter at all?* In this assignment you build and train such a
# **joint energy-based model** (JEM) on images of early printed letters, let it draw letters, and let it find
# outliers.
#
# **How to work.** The program is in the `.py` files beside this notebook: open them in an editor and write what the
# `TODO`s ask for. The notebook notices changed files by itself. For each part there is
#
# * a cell that shows your code at work, which you may change as you like, and
# * a cell `check_part("…")` that runs the public checks of that part. More checks run when your work is graded, on
#   other inputs, so a part can have more points than its public checks give.
#
# | part | what to write | file |
# |---|---|---|
# | 3.1 | look at the data; six written answers | this notebook |
# | 3.2 | the network as classifier and as energy | `ex_model.py` |
# | 3.3 | the sampler | `ex_main.py` |
# | 3.4 | the losses and the training step | `ex_main.py` |
# | 3.5 | generating letters | `ex_main.py` |
# | 3.6 | finding outliers | `ex_ood.py` |

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext autoreload
# %autoreload 2
# %matplotlib inline
import json
import math
import os
from pathlib import Path

import ex_main
import ex_model
import ex_ood
import numpy as np
import torch
from ex_data import OOD_SPLITS, get_datasets
from IPython.display import Image, display
from matplotlib.figure import Figure

from ebmcourse import plots
from ebmcourse.checking.notebook import check_part, once_written
from ebmcourse.data import glyphs

torch.set_printoptions(precision=3, sci_mode=False)

# %% [markdown]
# ## The theory in brief
#
# ### Energies and densities
#
# An energy-based model gives every image $x$ a number, its **energy** $E_\theta(x)$: low for images that are likely,
# high for images that are not. The Gibbs distribution turns energies into a density,
#
# $$q_\theta(x) = \frac{e^{-E_\theta(x)}}{Z_\theta}, \qquad Z_\theta = \int e^{-E_\theta(x)}\,\mathrm dx .$$
#
# Any network with one output may serve as energy; nothing has to be normalised or invertible. As networks usually
# give *high* values to what they like, ours computes
#
# $$f_\theta(x) = -E_\theta(x),$$
#
# and this convention holds in every file: **large $f$ = low energy = likely.**
#
# The price is the **partition function** $Z_\theta$. It makes $q_\theta$ integrate to one, and it cannot be computed:
# a sum over all images of 56 × 56 pixels with 256 grey values has about $10^{7552}$ terms. Two things do not need it:
# the ratio of two densities, $q(x)/q(x') = e^{f(x) - f(x')}$, and the gradient at the image, $\nabla_x \log
# q_\theta(x) = \nabla_x f_\theta(x)$, because $Z_\theta$ does not depend on $x$.
#
# ### Learning without the partition function
#
# Maximum likelihood asks for the $\theta$ with the smallest
#
# $$\mathcal L(\theta) = \mathbb E_{x\sim p}\left[-\log q_\theta(x)\right]
#     = \mathbb E_{x\sim p}\left[E_\theta(x)\right] + \log Z_\theta ,$$
#
# where $p$ is the distribution of the data. The second term keeps the first one honest: without it, an energy of
# minus infinity everywhere would be best. Its gradient is an expectation,
#
# $$\nabla_\theta \log Z_\theta = \frac{1}{Z_\theta}\int \nabla_\theta\, e^{-E_\theta(x)}\,\mathrm dx
#     = -\int q_\theta(x)\,\nabla_\theta E_\theta(x)\,\mathrm dx
#     = -\mathbb E_{x\sim q_\theta}\left[\nabla_\theta E_\theta(x)\right],$$
#
# so that
#
# $$\nabla_\theta \mathcal L = \mathbb E_{x\sim p}\left[\nabla_\theta E_\theta(x)\right]
#     - \mathbb E_{x\sim q_\theta}\left[\nabla_\theta E_\theta(x)\right].$$
#
# This is a contrast: *lower the energy where the data are, raise it where the model's own samples are.* When the two
# cannot be told apart, the gradient is zero and learning is over. In code it is the gradient of
#
# $$\frac1{\tilde n}\sum_j f_\theta(\tilde x_j) - \frac1n\sum_i f_\theta(x_i), \qquad x_i \text{ data},\;
#     \tilde x_j \text{ samples of the model.}$$
#
# The value of this difference measures noise against data, not the quality of the model.
#
# ### Sampling: Langevin dynamics
#
# Samples of $q_\theta$ come from a Markov chain that climbs towards higher $f$, shaken by noise (stochastic gradient
# Langevin dynamics, SGLD). With Gaussian noise $\varepsilon_k$, one step of our sampler is
#
# $$x_{k+1} = \operatorname{clip}\left(x_k + \eta\,\operatorname{clamp}(\nabla_x f_\theta(x_k), \pm c)
#     + \sigma\,\varepsilon_k\right),$$
#
# with step size $\eta = 10$, clamp $c = 0.03$, noise $\sigma = 0.005$, images clipped to $[-1, 1]$, and $K = 60$
# steps. Exact sampling would need $\sigma^2 = 2\eta$ and endlessly many small steps. Ours has far less noise than
# that, so what it does lies between sampling and optimisation. It is fast, and the training adapts the energy to the
# chains that there really are.
#
# Sixty steps from pure noise do not lead far. So most chains go on from where an earlier one stopped: a **replay
# buffer** of bounded size keeps finished chains, and about 5 % of the starts are fresh Gaussian noise, with standard
# deviation 0.01, so that the model goes on learning how the way from noise to letters begins.
#
# ### Keeping energies small
#
# The contrast sees differences of energies only: their common level may drift, and the landscape may get as steep as
# it likes, until the sampler can no longer follow. A penalty on the values themselves holds both,
#
# $$\mathcal L_{\text{reg}} = \alpha\left(\frac1n\sum_i f_\theta(x_i)^2
#     + \frac1{\tilde n}\sum_j f_\theta(\tilde x_j)^2\right).$$
#
# ### The joint model
#
# A classifier with $K$ classes has $K$ outputs, its logits $f_\theta(x)[y]$. JEM (Grathwohl et al., 2020) reads them
# as an energy of image *and* class,
#
# $$q_\theta(x, y) = \frac{e^{f_\theta(x)[y]}}{Z_\theta}, \qquad E_\theta(x, y) = -f_\theta(x)[y].$$
#
# So the class-conditional $f_\theta(x, y)$ is **the logit itself**. Its exponential is the density without
# $Z_\theta$, which is something else. Summing over the classes, and dividing by the sum, gives everything that we
# need:
#
# $$f_\theta(x) = \log\sum_y e^{f_\theta(x)[y]}, \qquad
#     q_\theta(y\mid x) = \frac{e^{f_\theta(x)[y]}}{\sum_{y'} e^{f_\theta(x)[y']}} .$$
#
# The second is the usual softmax; the first is what a classifier leaves unused. The factorisation
#
# $$\log q_\theta(x, y) = \log q_\theta(x) + \log q_\theta(y\mid x)$$
#
# gives the training its two losses: the contrast of data and chains for $\log q_\theta(x)$, weighted by $\lambda$,
# and the cross-entropy for $\log q_\theta(y\mid x)$.
#
# ### Outliers
#
# A score orders images by how foreign they are. Here **a larger score always means more outlying**, and
# out-of-distribution (OOD) is the positive class:
#
# | score | definition | idea |
# |---|---|---|
# | `px` | $E_\theta(x) = -f_\theta(x)$ | outliers are unlikely |
# | `py` | $-\max_y q_\theta(y\mid x)$ | the classifier hesitates on outliers |
# | `mass` | $\lVert\nabla_x \log q_\theta(x)\rVert_2$ | typical images lie where the landscape is flat |
#
# A threshold on the score turns it into a detector. It is chosen on held-out images of the known classes, never on
# outliers: nobody knows those in advance. AUROC, AUPR and FPR95 judge a score without a threshold.

# %% [markdown]
# ## 3.1 Data and understanding
#
# The data are 16,171 images of single printed letters in 42 classes; 70 % are for training, 15 % each for validation
# and test. Every image comes as 1×56×56 in $[-1, 1]$, dark ink on light paper. `ebmcourse data glyphs --out
# data/glyphs` draws the whole set. Where it is missing, this notebook draws a smaller one of the same kind.

# %%
DATA = Path("data/glyphs")
if not DATA.is_dir():
    DATA = Path("data/glyphs-small")
if not DATA.is_dir():
    glyphs.generate(DATA, size="small")

data = get_datasets(DATA)
images, labels = data["train"].tensors
K = int(labels.max()) + 1
NAMES = [str(number) for number in range(K)]
if (DATA / "classes.json").exists():
    NAMES = [entry["letter"] for entry in json.loads((DATA / "classes.json").read_text("utf-8"))["classes"]]

for split, dataset in data.items():
    print(f"{split:7} {len(dataset):6} images of shape {tuple(dataset[0][0].shape)}")

# %% [markdown]
# One image of each class, then one class many times, and the outliers that your model should find: other letters (A),
# and digits, punctuation and ornaments (B).

# %%
first_of_class = [int((labels == number).nonzero()[0]) for number in range(K)]
display(plots.sample_sheet(images[first_of_class], NAMES, columns=14))

commonest = int(labels.bincount().argmax())
rows = {f"class {NAMES[commonest]}": images[labels == commonest], "OOD A": data["ood_ta"].tensors[0]}
rows["OOD B"] = data["ood_tb"].tensors[0]
for title, row in rows.items():
    figure = plots.sample_sheet(row[:14], columns=14)
    figure.suptitle(title, fontsize=9, color=plots.GREY)
    display(figure)

# %%
figure = Figure(figsize=(10, 2.6), layout="constrained")
axes = figure.subplots()
axes.bar(range(K), labels.bincount(), color=plots.COLOURS[0])
axes.set_xticks(range(K), NAMES)
axes.margins(x=0.01)
plots.clean(axes, xlabel="class", ylabel="training images")
display(figure)

# %% [markdown]
# ### Written questions
#
# A few sentences each. Replace the text in the cell below the question.
#
# **3.1a** (2 points) Somebody trains the network to give the training images a low energy, and leaves the second half
# of the gradient away. What happens, and why does the partition function prevent it? Say in your own words what each
# of the two expectations in $\nabla_\theta\mathcal L$ does to the energy landscape.

# %% [markdown] nbgrader={"grade_id": "answer-3-1a", "grade": true, "solution": true, "points": 2}
# Without the second half nothing stops the network from lowering the energy of *all* images: the loss falls without
# end, and data are not preferred to anything else. Probability is a share of a fixed total. $\log Z$ grows when
# energies fall anywhere, so that only lowering the data *relative to the rest* pays. The expectation over the data
# pulls the landscape down at the training images. The expectation over the model's own samples pushes it up wherever
# the model at present believes in images. Where data and samples agree, the two cancel.
#
# ### BEGIN MARK SCHEME
# 1 point: collapse (energies fall everywhere, no preference), and that $Z$ normalises, so that only relative energies
# count. 1 point: both directions right (down at the data, up at the model's samples).
# ### END MARK SCHEME

# %% [markdown]
# **3.1b** (1 point) An image $a$ has the energy $-2$, an image $b$ the energy $1$. How much more likely is $a$ under
# the model? Why can you tell without $Z_\theta$? What changes if the model adds 7 to all energies?

# %% [markdown] nbgrader={"grade_id": "answer-3-1b", "grade": true, "solution": true, "points": 1}
# $q(a)/q(b) = e^{-(-2) + 1} = e^3 \approx 20$. Both densities have the same denominator $Z$, which cancels in the
# ratio. Adding a constant multiplies all numerators, and $Z$ with them, by $e^{-7}$: the distribution stays the same.
#
# ### BEGIN MARK SCHEME
# ½ point: the ratio $e^3$. ½ point: $Z$ cancels, and the constant changes nothing.
# ### END MARK SCHEME

# %% [markdown]
# **3.1c** (2 points) What would the samples look like, and what would the model fail to learn, (i) without the noise
# in the step, (ii) with every chain started fresh, (iii) with no chain started fresh, once the buffer is full?

# %% [markdown] nbgrader={"grade_id": "answer-3-1c", "grade": true, "solution": true, "points": 2}
# (i) Each chain climbs straight to the nearest mode and stays: little variety, and what lies around the modes is
# never visited, so that its energy is never corrected. (ii) A few dozen steps from noise do not reach the letters.
# The samples stay half-finished, the model learns to tell letters from half-finished noise only, and has no reason to
# shape the energy among letters. (iii) The chains of the buffer are improved for ever and become alike. Regions far
# from them, noise above all, are not visited any more: false modes there stay undiscovered, and a chain from noise no
# longer finds its way, so generation fails after training.
#
# ### BEGIN MARK SCHEME
# ½ point for each of (i), (ii) and (iii) with what is *seen*; ½ point if at least one says what the *energy* fails to
# learn.
# ### END MARK SCHEME

# %% [markdown]
# **3.1d** (2 points) Derive $f_\theta(x) = \log\sum_y e^{f_\theta(x)[y]}$ and the softmax from $q_\theta(x, y) =
# e^{f_\theta(x)[y]}/Z_\theta$. Which of the two changes when a number $c(x)$ is added to all logits of an image? What
# does that say about a classifier that was trained with cross-entropy alone?

# %% [markdown] nbgrader={"grade_id": "answer-3-1d", "grade": true, "solution": true, "points": 2}
# Summing the joint density over $y$ gives $q(x) = \sum_y e^{f(x)[y]}/Z$. Comparing with $q(x) = e^{f(x)}/Z$ gives
# $f(x) = \log\sum_y e^{f(x)[y]}$. Dividing, $q(y\mid x) = q(x, y)/q(x)$, cancels $Z$ and leaves the softmax. Adding
# $c(x)$ leaves the softmax as it is, since numerator and denominator get the same factor, but changes $f(x)$ by
# $c(x)$. Cross-entropy sees the softmax only, so it leaves this one degree of freedom of every image, which is the
# density, undetermined: such a classifier's $f(x)$ is a by-product. JEM trains exactly this freedom.
#
# ### BEGIN MARK SCHEME
# 1 point: both derivations. ½ point: softmax unchanged, $f(x)$ shifted by $c(x)$. ½ point: cross-entropy alone does
# not determine the density.
# ### END MARK SCHEME

# %% [markdown]
# **3.1e** (1 point) Look at the pictures and at the histogram above. Name two pairs of classes that you expect to be
# confused, and two properties of the images that differ within a class. Why does the validation log the *macro*
# average precision rather than the accuracy?

# %% [markdown] nbgrader={"grade_id": "answer-3-1e", "grade": true, "solution": true, "points": 1}
# For example ſ and f, i and l, u and n, or b and h in the blackletter faces. Within a class the typeface, the weight
# of the ink (spread or broken strokes), slant and position, the tone of the paper and the resolution of the scan
# differ. The classes have different sizes: accuracy weighs every image alike and so mostly counts the common letters.
# The macro average weighs every class alike, so that a rare letter which is never recognised shows.
#
# ### BEGIN MARK SCHEME
# ½ point: two plausible pairs and two properties. ½ point: unequal classes, each weighing alike in the macro average.
# ### END MARK SCHEME

# %% [markdown]
# **3.1f** (2 points) In a long training, the loss falls and the accuracy stays at 95 %, but the logged `gap`, the
# mean of $f$ over the chains minus the mean over the data, slides from 0 to −8, and the sample pictures turn into
# stripes. What is going on? Name two settings that you would change, and say why. Why is it no good idea to keep the
# checkpoint with the lowest contrastive divergence?

# %% [markdown] nbgrader={"grade_id": "answer-3-1f", "grade": true, "solution": true, "points": 2}
# The sampler has lost the model: within its steps the chains no longer reach what the model finds likely, so telling
# them from data is easy, and the loss, which contains just this difference, looks better and better. Nothing forces
# the energy to be right where letters are, and the classifier hardly notices. More steps $K$ give the chains time to
# follow; a lower learning rate lets the landscape change more slowly than the chains move; a larger $\alpha$ keeps it
# flat enough. The lowest divergence is reached when the samples are worst, or before anything is learnt: at the
# optimum it is near zero.
#
# ### BEGIN MARK SCHEME
# 1 point: chains cannot follow, the falling loss is a symptom. ½ point: two of: more steps, lower learning rate,
# larger $\alpha$, smaller $\lambda$, each with its reason. ½ point: a low divergence means bad samples; good ones are
# near zero.
# ### END MARK SCHEME

# %% [markdown]
# ## 3.2 The network
#
# **3.2a** Write `ShallowCNN.get_logits`: the logits of all classes, shape $(B, K)$. The convolutions leave a small
# map of features; adaptive average pooling makes one vector of it, whatever the size of the image.

# %%
x, y = images[:8], labels[:8]

with once_written(), torch.no_grad():
    torch.manual_seed(0)
    logits = ex_model.ShallowCNN(num_classes=K).get_logits(x)
    print(f"{len(x)} images, {K} classes: logits of shape {tuple(logits.shape)}")
    print(f"from {logits.min():.3f} to {logits.max():.3f}: an untrained network prefers no class")

# %% nbgrader={"grade_id": "test-3-2a", "grade": true, "locked": true}
check_part("3.2a")

# %% [markdown]
# **3.2b** Write `ShallowCNN.forward`: $f(x)$ without labels, $f(x, y)$ with labels, shape $(B,)$ in both cases.
# Below, the last two lines must agree, because $\log q(y\mid x) = f(x, y) - f(x)$.

# %%
with once_written(), torch.no_grad():
    torch.manual_seed(0)
    network = ex_model.ShallowCNN(num_classes=K)
    print("f(x)          ", network(x))
    print("f(x, y)       ", network(x, y))
    print("f(x, y) - f(x)", network(x, y) - network(x))
    print("log softmax   ", network.get_logits(x).log_softmax(dim=1)[range(len(x)), y])

# %% nbgrader={"grade_id": "test-3-2b", "grade": true, "locked": true}
check_part("3.2b")

# %% [markdown]
# ## 3.3 The sampler
#
# **3.3a** Write `MCMCSampler.initial_chains` and `store`. Fresh chains are small Gaussian noise; the others continue
# what the buffer holds, of their own class where labels are given. The buffer has a bounded size and lives as long as
# the sampler.
#
# The first sheet shows how chains start while the buffer is empty. Then training images are stored as if they were
# finished chains, and asked for again.

# %%
with once_written():
    torch.manual_seed(0)
    sampler = ex_main.MCMCSampler(torch.nn.Identity(), (1, 56, 56), sample_size=28, num_classes=K, cbuffer_size=64)
    start, place = sampler.initial_chains(None)
    for number in range(20):
        sampler.store(images[28 * number : 28 * (number + 1)], place)
        again, place = sampler.initial_chains(None)
    for title, chains in {"first call: noise": start, "later: from the buffer, few fresh": again}.items():
        figure = plots.sample_sheet(chains, columns=14)
        figure.suptitle(title, fontsize=9, color=plots.GREY)
        display(figure)

# %% nbgrader={"grade_id": "test-3-3a", "grade": true, "locked": true}
check_part("3.3a")

# %% [markdown]
# **3.3b** Write `MCMCSampler.sampling_mode`, which freezes the network and gives it back as it was, and `gradient`,
# the clamped $\nabla_x f$.
#
# To see it at work, take an energy that has a single valley, $f(x) = -\lVert x - t\rVert^2/200$. Its gradient at $x$
# points straight to the bottom $t$: brighter (red) where $t$ has paper and $x$ has ink, darker (blue) the other way
# round.


# %%
class Valley(torch.nn.Module):
    """f(x) = -‖x - target‖² / 200, whatever the class."""

    def __init__(self, target):
        super().__init__()
        self.target = target

    def forward(self, x, y=None):
        return -(x - self.target).square().flatten(1).sum(dim=1) / 200


with once_written():
    here, there = images[first_of_class[0]][None], images[first_of_class[10]][None]
    sampler = ex_main.MCMCSampler(Valley(there), (1, 56, 56), sample_size=1, num_classes=K)
    with sampler.sampling_mode():
        gradient = sampler.gradient(here, None)
    figure = Figure(figsize=(5, 1.9), layout="constrained")
    panels = {"x": (here, "gray", 1), "t": (there, "gray", 1), "gradient at x": (gradient, "coolwarm", 0.03)}
    for axes, (title, (picture, colours, limit)) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        axes.imshow(picture[0, 0], cmap=colours, vmin=-limit, vmax=limit)
        axes.set_title(title, fontsize=9, color=plots.GREY)
        axes.set_axis_off()
    display(figure)

# %% nbgrader={"grade_id": "test-3-3b", "grade": true, "locked": true}
check_part("3.3b")

# %% [markdown]
# **3.3c** Write `MCMCSampler.update`, one step of SGLD. In a landscape with one valley, chains that start from noise
# must end at the bottom: here five chains, each with a valley of its own.

# %%
with once_written():
    torch.manual_seed(0)
    chosen = first_of_class[10:15]
    sampler = ex_main.MCMCSampler(Valley(images[chosen]), (1, 56, 56), sample_size=len(chosen), num_classes=K)
    chains = sampler.synthesize_samples(steps=60, return_img_per_step=True)
    shown = torch.tensor([1, 2, 4, 8, 15, 30, 60])
    display(plots.generation_strip(chains[shown - 1], shown.tolist(), NAMES[10:15]))

# %% nbgrader={"grade_id": "test-3-3c", "grade": true, "locked": true}
check_part("3.3c")

# %% [markdown]
# ## 3.4 The losses and the training
#
# **3.4a** Write `JEM.px_step`, the loss of $\log q(x)$: draw chains, contrast them with the data, add the penalty. A
# loss is *minimised*, so mind the signs.
#
# Below, a small model takes a few steps down this loss, on one image of each class. Data must become more likely than
# chains: the logged `gap`, mean $f$ of the chains minus mean $f$ of the data, falls.


# %%
def small_model(**settings):
    """A JEM with few features and short chains; what it logs stands in its `logged`."""

    def log(name, value, **_):
        value = value.compute() if hasattr(value, "compute") else value
        model.logged[name] = round(torch.as_tensor(value).item(), 3)

    torch.manual_seed(0)
    model = ex_main.JEM((1, 56, 56), K, num_classes=K, hidden_features=8, steps=5, cbuffer_size=4, **settings)
    model.logged, model.log = {}, log
    return model


batch = images[first_of_class], labels[first_of_class]

with once_written():
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(26):
        loss = model.px_step(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 5 == 0:
            print(f"step {step:2}  loss {loss.item():6.3f}  gap {model.logged['gap']:6.3f}")

# %% nbgrader={"grade_id": "test-3-4a", "grade": true, "locked": true}
check_part("3.4a")

# %% [markdown]
# **3.4b** Write `JEM.pyx_step`, the loss of $\log q(y\mid x)$. A network that has learnt nothing yet should pay about
# $\log K$, the price of guessing.

# %%
with once_written():
    loss = small_model().pyx_step(batch)
    print(f"cross-entropy {loss.item():.3f}, guessing costs {math.log(K):.3f}")

# %% nbgrader={"grade_id": "test-3-4b", "grade": true, "locked": true}
check_part("3.4b")

# %% [markdown]
# **3.4c** Write `JEM.training_step`, which puts the two losses together with the weight $\lambda$ (`lmbd`), and
# `validation_step`, which logs `val_contrastive_divergence` and `val_MulticlassAveragePrecision`.

# %%
with once_written():
    model = small_model(lmbd=0.1)
    loss = model.training_step(batch, 0)
    model.validation_step(batch, 0)
    print(f"loss {loss.item():.3f}, logged:")
    for name, value in model.logged.items():
        print(f"    {name:32} {value:.3f}")

# %% nbgrader={"grade_id": "test-3-4c", "grade": true, "locked": true}
check_part("3.4c")

# %% [markdown]
# ### A first training
#
# The cell below uses the model in `runs/jem`, where the command line leaves it. If there is none, it trains the
# smallest one, with the preset `smoke`. That takes a minute and shows that everything works together. It is **not**
# enough for good letters. For those, train longer in a terminal, and run the notebook from here on once more:
#
# ```
# python ex_main.py train --preset cpu     # a laptop
# python ex_main.py train --preset full    # a GPU
# ```
#
# While it trains, watch `gap` and the pictures in `samples/` (question 3.1f says why), or
# `tensorboard --logdir runs`.

# %%
RUN = Path("runs/jem")
if not (RUN / "last.ckpt").exists():
    RUN = Path("runs/smoke")
    if "NBGRADER_EXECUTION" not in os.environ:  # nbgrader runs the notebook for its tested cells only
        with once_written():
            where = ["--data_dir", str(DATA), "--out", str(RUN)]
            ex_main.run_training(ex_main.parse_args(["train", "--preset", "smoke", *where]))


def trained_model():
    """The model of the last training."""
    if not (RUN / "last.ckpt").exists():
        raise NotImplementedError("this needs a trained model, so part 3.4 comes first.")
    return ex_main.load_model(RUN / "last.ckpt")


# %% [markdown]
# The classifier on the test images, and the chains of the sampler after the last epoch, one per class:

# %%
with once_written():
    trained_model()
    ex_main.run_evaluation(ex_main.parse_args(["evaluate", "--data_dir", str(DATA)]), RUN / "last.ckpt")
    display(Image(max((RUN / "samples").glob("*.png")), width=560))

# %% [markdown]
# ## 3.5 Generation
#
# **3.5a** Write `generate_images`: new letters from Gaussian noise, with many more steps than in training, and every
# step of the way. The chains climb. In a well-trained model they level off near the value of real letters; after a
# minute of training they still climb past it.


# %%
def generated_letters(steps=120):
    """One chain for each class and every step of it, (steps, K, 1, 56, 56), and the model that drew them."""
    torch.manual_seed(0)
    model = trained_model()
    return ex_main.generate_images(model, torch.arange(K), K, steps), model


with once_written():
    chains, model = generated_letters()
    classes = torch.arange(K, device=model.device)
    with torch.no_grad():
        climb = [model(step.to(model.device), classes).mean().item() for step in chains]
        x, y = (tensor[:256].to(model.device) for tensor in data["val"].tensors)
        real = model(x, y).mean().item()
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(climb) + 1), climb, color=plots.COLOURS[1], label="chains from noise")
    axes.axhline(real, color=plots.COLOURS[0], linestyle="--", label="validation images")
    plots.clean(axes, xlabel="SGLD step", ylabel="mean of f(x, y)")
    axes.legend(frameon=False)
    display(figure)

# %% nbgrader={"grade_id": "test-3-5a", "grade": true, "locked": true}
check_part("3.5a")

# %% [markdown]
# **3.5b** Write `draw_generation`: one figure that follows some chains from noise to the last step, and one with all
# finished images.

# %%
with once_written():
    chains, _ = generated_letters()
    for figure in ex_main.draw_generation(chains, NAMES):
        display(figure)

# %% nbgrader={"grade_id": "test-3-5b", "grade": true, "locked": true}
check_part("3.5b")

# %% [markdown]
# ## 3.6 Outliers
#
# **3.6a** Write `grad_norm` and `score_fn` in `ex_ood.py`. Larger scores mean more outlying, for all three. The table
# shows the median score of each set: where a score works, the last two columns are larger than the first two.


# %%
def scores_of(score, count=400):
    """The score of up to `count` images of each set: name -> (count,)."""
    model = trained_model()
    sets = {split: data[split].tensors[0][:count].to(model.device) for split in ("val", "test", *OOD_SPLITS)}
    return {split: ex_ood.score_fn(model, x, score=score).cpu().numpy() for split, x in sets.items()}


with once_written():
    print("       ", *(f"{split:>8}" for split in ("val", "test", *OOD_SPLITS)))
    for score in ex_ood.SCORES:
        print(f"{score:8}", *(f"{np.median(values):8.3f}" for values in scores_of(score).values()))

# %% nbgrader={"grade_id": "test-3-6a", "grade": true, "locked": true}
check_part("3.6a")

# %% [markdown]
# **3.6b** Write `score_histogram` and `energy_threshold`. The threshold comes from validation images alone: 95 % of
# them lie below it.

# %%
SETS = {"test": "test letters", "ood_ta": "A: other letters", "ood_tb": "B: signs, ornaments"}

with once_written():
    scores = scores_of("px")
    threshold = ex_ood.energy_threshold(scores["val"])
    edges, densities = ex_ood.score_histogram({title: scores[split] for split, title in SETS.items()}, bins=40)
    display(plots.score_histogram(edges, densities, threshold, "px: the energy E(x)"))
    for split, title in SETS.items():
        print(f"{title:20} above the threshold: {np.mean(scores[split] > threshold):6.1%}")

# %% nbgrader={"grade_id": "test-3-6b", "grade": true, "locked": true}
check_part("3.6b")

# %% [markdown]
# **3.6c** Write `ood_metrics`: AUROC, AUPR and FPR95, from the scores themselves. An AUROC of 0.5 is guessing; one
# far below means that a sign is wrong.

# %%
with once_written():
    curves = {}
    print("score  OOD set     AUROC    AUPR   FPR95")
    for score in ex_ood.SCORES:
        scores = scores_of(score)
        for split in OOD_SPLITS:
            metrics = ex_ood.ood_metrics(scores["test"], scores[split])
            print(f"{score:5}  {split:8}", *(f"{metrics[name]:7.3f}" for name in ("auroc", "aupr", "fpr95")))
            curves[f"{score}, {SETS[split][0]}"] = scores["test"], scores[split]
    display(plots.roc_curves(curves))

# %% nbgrader={"grade_id": "test-3-6c", "grade": true, "locked": true}
check_part("3.6c")

# %% [markdown]
# ## Handing in
#
# Restart the kernel, run all cells once more, and save. `ebmcourse check` in a terminal repeats the public checks of
# all parts. Hand in this notebook with `ex_model.py`, `ex_main.py` and `ex_ood.py`; data and trained models stay with
# you.
#
# ## References
#
# * W. Grathwohl et al., *Your classifier is secretly an energy based model and you should treat it like one*, ICLR
#   2020.
# * Y. Du, I. Mordatch, *Implicit generation and modeling with energy-based models*, NeurIPS 2019.
# * E. Nijkamp et al., *Learning non-convergent non-persistent short-run MCMC toward energy-based model*, NeurIPS
#   2019.
# * M. Welling, Y. W. Teh, *Bayesian learning via stochastic gradient Langevin dynamics*, ICML 2011.

# %% [markdown]
# # Generative and predictive modelling of printed glyphs
#
# A classifier of letters answers one question: *which letter is this?* If we interpret the same network as an energy
# function, it answers two more questions: *what do letters look like?* and *is this a letter at all?* In this
# assignment, you build and train such a **joint energy-based model** (JEM) on images of early printed letters. You then
# use it to generate letters and to detect outliers.
#
# **How to work.** The program is in the `.py` files next to this notebook. Open them in an editor and follow the
# `TODO` comments. The notebook reloads files when you save them. For each part, there is
#
# * a cell that shows the results of your code, which you may change as you like, and
# * a cell `check_part("…")` that runs the public checks of this part. When your work is graded, further checks run with
#   other inputs. Therefore a part can be worth more points than its public checks.
#
# | part | task | file |
# |---|---|---|
# | 3.1 | look at the data, and answer six questions | this notebook |
# | 3.2 | the network as a classifier and as an energy function | `ex_model.py` |
# | 3.3 | the sampler | `ex_main.py` |
# | 3.4 | the losses and the training step | `ex_main.py` |
# | 3.5 | generating letters | `ex_main.py` |
# | 3.6 | detecting outliers | `ex_ood.py` |

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
# ## Summary of the theory
#
# ### Energies and densities
#
# An energy-based model assigns an **energy** $E_\theta(x)$ to each image $x$: a low energy to likely images, and a high
# energy to unlikely images. The Gibbs distribution defines a density from the energies,
#
# $$q_\theta(x) = \frac{e^{-E_\theta(x)}}{Z_\theta}, \qquad Z_\theta = \int e^{-E_\theta(x)}\,\mathrm dx .$$
#
# Any network with one output can be used as an energy function; it need not be normalised or invertible. It is more
# convenient if likely images have *high* values. Our network therefore computes
#
# $$f_\theta(x) = -E_\theta(x),$$
#
# and this convention is used in all files: **large $f$ = low energy = likely.**
#
# The difficulty is the **partition function** $Z_\theta$, which makes $q_\theta$ integrate to one. We cannot compute
# it: for images of 56 × 56 pixels with 256 grey values, it would be a sum of about $10^{7552}$ terms. Two quantities do
# not depend on it: the ratio of two densities, $q(x)/q(x') = e^{f(x) - f(x')}$, and the gradient with respect to the
# image, $\nabla_x \log q_\theta(x) = \nabla_x f_\theta(x)$.
#
# ### Learning without the partition function
#
# The maximum likelihood method minimises
#
# $$\mathcal L(\theta) = \mathbb E_{x\sim p}\left[-\log q_\theta(x)\right]
#     = \mathbb E_{x\sim p}\left[E_\theta(x)\right] + \log Z_\theta ,$$
#
# where $p$ is the distribution of the data. Without the second term, the minimum would be an energy of minus infinity
# for all images. The gradient of this term is an expectation,
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
# Gradient descent therefore *lowers the energy of the data and raises the energy of samples of the model.* If both have
# the same distribution, the gradient is zero and training is complete. In the code, we use the gradient of
#
# $$\frac1{\tilde n}\sum_j f_\theta(\tilde x_j) - \frac1n\sum_i f_\theta(x_i), \qquad x_i \text{ data},\;
#     \tilde x_j \text{ samples of the model,}$$
#
# which is called contrastive divergence. Note that its value does not measure how good the model is.
#
# ### Sampling with Langevin dynamics
#
# Samples of $q_\theta$ are computed with a Markov chain, which follows the gradient towards higher $f$ and adds noise
# in each step. This is called stochastic gradient Langevin dynamics (SGLD). One step of our sampler is
#
# $$x_{k+1} = \operatorname{clip}\left(x_k + \eta\,\operatorname{clamp}(\nabla_x f_\theta(x_k), \pm c)
#     + \sigma\,\varepsilon_k\right)$$
#
# with Gaussian noise $\varepsilon_k$, step size $\eta = 10$, clamp $c = 0.03$, and $\sigma = 0.005$. The images are
# clipped to $[-1, 1]$, and a chain has 60 steps. Exact sampling would require $\sigma^2 = 2\eta$ and infinitely
# many small steps. Our sampler uses much less noise and is therefore between sampling and optimisation. This is fast,
# and during training the energy adapts to the chains that this sampler produces.
#
# Sixty steps from noise are not enough to reach letters. Therefore most chains continue an earlier chain: a **replay
# buffer** of limited size contains the final images of earlier chains. About 5 % of the chains start from Gaussian
# noise with standard deviation 0.01, so that the model also learns how to get from noise to letters.
#
# ### Keeping energies small
#
# The contrastive divergence depends only on differences of energies. All energies may drift together, and the gradients
# may become so large that the sampler can no longer follow. A penalty on the values prevents both,
#
# $$\mathcal L_{\text{reg}} = \alpha\left(\frac1n\sum_i f_\theta(x_i)^2
#     + \frac1{\tilde n}\sum_j f_\theta(\tilde x_j)^2\right).$$
#
# ### The joint model
#
# A classifier with $K$ classes has $K$ outputs, its logits $f_\theta(x)[y]$. JEM (Grathwohl et al., 2020) interprets
# them as negative energies of an image *and* a class,
#
# $$q_\theta(x, y) = \frac{e^{f_\theta(x)[y]}}{Z_\theta}, \qquad E_\theta(x, y) = -f_\theta(x)[y].$$
#
# Thus the class-conditional $f_\theta(x, y)$ is **the logit itself**, not its exponential. If we sum the density over
# the classes, and divide by this sum, we obtain
#
# $$f_\theta(x) = \log\sum_y e^{f_\theta(x)[y]}, \qquad
#     q_\theta(y\mid x) = \frac{e^{f_\theta(x)[y]}}{\sum_{y'} e^{f_\theta(x)[y']}} .$$
#
# The second equation is the softmax; the first one is a quantity that an ordinary classifier does not use. The
# factorisation
#
# $$\log q_\theta(x, y) = \log q_\theta(x) + \log q_\theta(y\mid x)$$
#
# leads to two losses: contrastive divergence for $\log q_\theta(x)$, with the weight $\lambda$, and the cross-entropy
# for $\log q_\theta(y\mid x)$.
#
# ### Outliers
#
# A score measures how unusual an image is. Here, **outliers have larger scores**, and out-of-distribution (OOD) is the
# positive class:
#
# | score | definition | idea |
# |---|---|---|
# | `px` | $E_\theta(x) = -f_\theta(x)$ | outliers are unlikely |
# | `py` | $-\max_y q_\theta(y\mid x)$ | the classifier is less certain for outliers |
# | `mass` | $\lVert\nabla_x \log q_\theta(x)\rVert_2$ | the density changes little around typical images |
#
# With a threshold, a score becomes a detector. The threshold is chosen on held-out images of the known classes, because
# outliers are not known in advance. AUROC, AUPR and FPR95 measure the quality of a score without a fixed threshold.

# %% [markdown]
# ## 3.1 Data and understanding
#
# The data are 16,171 images of single printed letters in 42 classes: 70 % for training, 15 % for validation, and 15 %
# for testing. Each image is 1×56×56 in $[-1, 1]$, with dark ink on light paper. The command
# `ebmcourse data glyphs --out data/glyphs` creates the data set. If it does not exist, this notebook creates a smaller
# one of the same kind.

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
# The first figure shows one image of each class, and the second one shows several images of one class. The other
# figures show outliers that your model should detect: other letters (A), and digits, punctuation and ornaments (B).

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
# Answer each question in a few sentences. Replace the text in the cell below the question.
#
# **3.1a** (2 points) Suppose that the network is trained to assign low energies to the training images, without the
# second term of the gradient. What happens, and how does the partition function prevent it? Explain in your own words
# how each of the two expectations in $\nabla_\theta\mathcal L$ changes the energies.

# %% [markdown] nbgrader={"grade_id": "answer-3-1a", "grade": true, "solution": true, "points": 2}
# Without the second term, the network can lower the energy of *all* images: the loss decreases without limit, and the
# data are not more likely than other images. The partition function normalises the density, so the total probability is
# fixed. $\log Z$ increases when energies decrease anywhere; therefore the loss only decreases if the energy of the data
# decreases *relative to other images*. The expectation over the data lowers the energy of the training images. The
# expectation over samples of the model raises the energy of images that the model currently considers likely. If data
# and samples have the same distribution, both terms cancel.
#
# ### BEGIN MARK SCHEME
# 1 point: collapse (all energies decrease, the data are not preferred), and $Z$ normalises, so only relative energies
# matter. 1 point: both directions are right (down for the data, up for samples of the model).
# ### END MARK SCHEME

# %% [markdown]
# **3.1b** (1 point) An image $a$ has the energy $-2$, and an image $b$ has the energy $1$. How much more likely is $a$
# according to the model? Why is $Z_\theta$ not needed? What changes if 7 is added to all energies?

# %% [markdown] nbgrader={"grade_id": "answer-3-1b", "grade": true, "solution": true, "points": 1}
# $q(a)/q(b) = e^{-(-2) + 1} = e^3 \approx 20$. Both densities have the same denominator $Z$, which cancels in the
# ratio. Adding 7 multiplies all numerators and $Z$ by $e^{-7}$, so the distribution does not change.
#
# ### BEGIN MARK SCHEME
# ½ point: the ratio $e^3$. ½ point: $Z$ cancels, and the constant has no effect.
# ### END MARK SCHEME

# %% [markdown]
# **3.1c** (2 points) What would the samples look like, and what would the model fail to learn, if (i) the steps
# contained no noise, (ii) all chains started from noise, (iii) no chain started from noise once the buffer is full?

# %% [markdown] nbgrader={"grade_id": "answer-3-1c", "grade": true, "solution": true, "points": 2}
# (i) Each chain moves to the nearest mode and stays there. The samples show little variety. The chains never visit the
# regions around the modes, so the energies there are never corrected. (ii) Sixty steps from noise are not enough to
# reach letters. The samples look unfinished. The model only learns to distinguish letters from such samples, but not
# which letters are more likely than others. (iii) The chains of the buffer become longer and longer, and more and more
# similar. They no longer visit regions far away from letters, such as noise. High values of f there are not corrected,
# and chains from noise no longer reach letters, so generation fails after training.
#
# ### BEGIN MARK SCHEME
# ½ point for the *samples* in each of (i), (ii) and (iii). ½ point if at least one answer says what the *energy* fails
# to learn.
# ### END MARK SCHEME

# %% [markdown]
# **3.1d** (2 points) Derive $f_\theta(x) = \log\sum_y e^{f_\theta(x)[y]}$ and the softmax from $q_\theta(x, y) =
# e^{f_\theta(x)[y]}/Z_\theta$. Which of the two changes if a number $c(x)$ is added to all logits of an image? What
# follows for a classifier that is trained with the cross-entropy alone?

# %% [markdown] nbgrader={"grade_id": "answer-3-1d", "grade": true, "solution": true, "points": 2}
# The sum of the joint density over $y$ is $q(x) = \sum_y e^{f(x)[y]}/Z$. Comparing it with $q(x) = e^{f(x)}/Z$ gives
# $f(x) = \log\sum_y e^{f(x)[y]}$. In the quotient $q(y\mid x) = q(x, y)/q(x)$, $Z$ cancels, and the softmax remains.
# Adding $c(x)$ does not change the softmax, because numerator and denominator are multiplied by the same factor, but
# it increases $f(x)$ by $c(x)$. The cross-entropy depends only on the softmax. Therefore it does not determine this
# degree of freedom of each image, which is its density. JEM trains exactly this degree of freedom.
#
# ### BEGIN MARK SCHEME
# 1 point: both derivations. ½ point: the softmax does not change, and $f(x)$ increases by $c(x)$. ½ point: the
# cross-entropy alone does not determine the density.
# ### END MARK SCHEME

# %% [markdown]
# **3.1e** (1 point) Look at the images and the histogram above. Name two pairs of classes that you expect to be
# confused, and two properties that differ between images of the same class. Why does the validation log the *macro*
# average precision instead of the accuracy?

# %% [markdown] nbgrader={"grade_id": "answer-3-1e", "grade": true, "solution": true, "points": 1}
# Examples of pairs are ſ and f, i and l, u and n, or b and h in blackletter typefaces. Images of a class differ in the
# typeface, in the amount of ink (wide or broken strokes), in slant and position, in the colour of the paper, and in the
# resolution of the scan. The classes have different sizes. Each image has the same weight in the accuracy, which is
# therefore dominated by common letters. Each class has the same weight in the macro average, so it also shows if a rare
# letter is never recognised.
#
# ### BEGIN MARK SCHEME
# ½ point: two plausible pairs and two properties. ½ point: the classes have different sizes but equal weights in the
# macro average.
# ### END MARK SCHEME

# %% [markdown]
# **3.1f** (2 points) During a long training, the loss decreases and the accuracy stays at 95 %. But the logged `gap`,
# the mean of $f$ over the chains minus the mean over the data, decreases from 0 to −8, and the sample images become
# stripes. What is happening? Name two hyperparameters that you would change, and explain why. Why should you not keep
# the checkpoint with the lowest contrastive divergence?

# %% [markdown] nbgrader={"grade_id": "answer-3-1f", "grade": true, "solution": true, "points": 2}
# The sampler can no longer follow the model: in their number of steps, the chains do not reach images that the model
# considers likely. It is easy to distinguish such chains from data, so the loss, which contains this difference,
# decreases. The energies near letters are no longer corrected, and the classifier is hardly affected. With more steps,
# the chains get further. With a lower learning rate, the energies change more slowly than the chains move. With a
# larger $\alpha$, the gradients stay small enough. The contrastive divergence is lowest when the samples are worst; for
# a good model, it is near zero.
#
# ### BEGIN MARK SCHEME
# 1 point: the chains cannot follow, and the decreasing loss is a symptom. ½ point: two of more steps, lower learning
# rate, larger $\alpha$, smaller $\lambda$, each with a reason. ½ point: a low divergence means bad samples; for good
# samples, it is near zero.
# ### END MARK SCHEME

# %% [markdown]
# ## 3.2 The network
#
# **3.2a** Write `ShallowCNN.get_logits`, which returns the logits of all classes, shape $(B, K)$. The convolutions
# compute a small map of features. Adaptive average pooling converts it to one vector, for images of any size.

# %%
x, y = images[:8], labels[:8]

with once_written(), torch.no_grad():
    torch.manual_seed(0)
    logits = ex_model.ShallowCNN(num_classes=K).get_logits(x)
    print(f"{len(x)} images, {K} classes: logits of shape {tuple(logits.shape)}")
    print(f"from {logits.min():.3f} to {logits.max():.3f}: an untrained network does not prefer any class")

# %% nbgrader={"grade_id": "test-3-2a", "grade": true, "locked": true}
check_part("3.2a")

# %% [markdown]
# **3.2b** Write `ShallowCNN.forward`, which returns $f(x)$ without labels and $f(x, y)$ with labels, shape $(B,)$ in
# both cases. The last two lines of the output should be equal, because $\log q(y\mid x) = f(x, y) - f(x)$.

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
# **3.3a** Write `MCMCSampler.initial_chains` and `store`. New chains are Gaussian noise with a small standard
# deviation. The others continue chains of the buffer; if labels are given, chains of their own class. The buffer has a
# limited size and is kept between calls.
#
# The first figure shows the initial images of chains while the buffer is empty. Then the cell stores training images as
# if they were chains. The second figure shows initial images that come from the buffer.

# %%
with once_written():
    torch.manual_seed(0)
    sampler = ex_main.MCMCSampler(torch.nn.Identity(), (1, 56, 56), sample_size=28, num_classes=K, cbuffer_size=64)
    start, place = sampler.initial_chains(None)
    for number in range(20):
        sampler.store(images[28 * number : 28 * (number + 1)], place)
        again, place = sampler.initial_chains(None)
    for title, chains in {"first call: noise": start, "later calls: mostly from the buffer": again}.items():
        figure = plots.sample_sheet(chains, columns=14)
        figure.suptitle(title, fontsize=9, color=plots.GREY)
        display(figure)

# %% nbgrader={"grade_id": "test-3-3a", "grade": true, "locked": true}
check_part("3.3a")

# %% [markdown]
# **3.3b** Write `MCMCSampler.sampling_mode`, which freezes the network and then restores its state, and `gradient`,
# which returns the clamped $\nabla_x f$.
#
# The cell below uses an energy with a single minimum, $E(x) = -f(x) = \lVert x - t\rVert^2/200$. The gradient of $f$ at
# $x$ points to the minimum $t$. It is positive (red) where $t$ has paper and $x$ has ink, and negative (blue) where $t$
# has ink and $x$ has paper.


# %%
class Quadratic(torch.nn.Module):
    """f(x, y) = -‖x - target of y‖² / 200 for x (B, C, H, W); f(x) uses the first target; returns (B,)."""

    def __init__(self, targets):
        super().__init__()
        self.targets = targets

    def forward(self, x, y=None):
        target = self.targets[:1] if y is None else self.targets[y]
        return -(x - target).square().flatten(1).sum(dim=1) / 200


with once_written():
    here, there = images[first_of_class[0]][None], images[first_of_class[10]][None]
    sampler = ex_main.MCMCSampler(Quadratic(there), (1, 56, 56), sample_size=1, num_classes=K)
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
# **3.3c** Write `MCMCSampler.update`, one step of SGLD. With the quadratic energy, chains that start from noise should
# reach the minimum. The cell below shows five chains, each with its own minimum.

# %%
with once_written():
    torch.manual_seed(0)
    chosen = first_of_class[10:15]
    sampler = ex_main.MCMCSampler(Quadratic(images[chosen]), (1, 56, 56), sample_size=5, num_classes=5)
    chains = sampler.synthesize_samples(torch.arange(5), steps=60, return_img_per_step=True)
    shown = torch.tensor([1, 2, 4, 8, 15, 30, 60])
    display(plots.generation_strip(chains[shown - 1], shown.tolist(), NAMES[10:15]))

# %% nbgrader={"grade_id": "test-3-3c", "grade": true, "locked": true}
check_part("3.3c")

# %% [markdown]
# ## 3.4 The losses and the training
#
# **3.4a** Write `JEM.px_step`, the loss of $\log q(x)$: contrastive divergence plus the L2 penalty. Note the signs: a
# loss is *minimised*.
#
# The cell below trains a small model with this loss, on one image of each class. Data should become more likely than
# chains: the logged `gap`, the mean of $f$ over the chains minus the mean over the data, decreases.


# %%
def small_model(**settings):
    """A JEM with few features and short chains. The dict `model.logged` contains what it logs."""

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
# **3.4b** Write `JEM.pyx_step`, the loss of $\log q(y\mid x)$. For an untrained network, it should be about $\log K$,
# the cross-entropy of guessing.

# %%
with once_written():
    loss = small_model().pyx_step(batch)
    print(f"cross-entropy {loss.item():.3f}, log K = {math.log(K):.3f}")

# %% nbgrader={"grade_id": "test-3-4b", "grade": true, "locked": true}
check_part("3.4b")

# %% [markdown]
# **3.4c** Write `JEM.training_step`, which combines both losses with the weight $\lambda$ (`lmbd`), and
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
# ### Training
#
# The following cells use the model in `runs/jem`, the default directory of the command line. If it does not exist, the
# next cell trains a model with the preset `smoke`. This takes about one minute and shows that all parts work together.
# It is **not** long enough for good letters. To generate good letters, train longer in a terminal, and then run the
# notebook again from here:
#
# ```
# python ex_main.py train --preset cpu     # without a GPU
# python ex_main.py train --preset full    # with a GPU
# ```
#
# During the training, watch `gap` and the images in `samples/` (see question 3.1f), or use `tensorboard --logdir runs`.
#
# If the environment variable `EBM_PRESET` is `small`, the notebook trains and generates much less: long enough to see
# that everything runs.

# %%
SMALL = os.environ.get("EBM_PRESET") == "small"
RUN = Path("runs/jem")
if not (RUN / "last.ckpt").exists():
    RUN = Path("runs/smoke")
    if "NBGRADER_EXECUTION" not in os.environ:  # nbgrader only needs the cells with checks
        with once_written():
            options = ["--preset", "smoke", "--data_dir", str(DATA), "--out", str(RUN)]
            if SMALL:
                options += ["--epochs", "1", "--warmup_epochs", "0", "--train_batches", "2"]
            ex_main.run_training(ex_main.parse_args(["train", *options]))


def trained_model():
    """Load the model of the last training."""
    if not (RUN / "last.ckpt").exists():
        raise NotImplementedError("this cell needs a trained model, so finish part 3.4 first.")
    return ex_main.load_model(RUN / "last.ckpt")


# %% [markdown]
# The next cell shows the accuracy of the classifier on the test images, and the chains of the sampler after the last
# epoch, one per class.

# %%
with once_written():
    trained_model()
    ex_main.run_evaluation(ex_main.parse_args(["evaluate", "--data_dir", str(DATA)]), RUN / "last.ckpt")
    display(Image(max((RUN / "samples").glob("*.png")), width=560))

# %% [markdown]
# ## 3.5 Generation
#
# **3.5a** Write `generate_images`, which generates letters from Gaussian noise with many more steps than in training,
# and returns the images after each step. The figure shows the mean of $f$ over the chains. For a well-trained model, it
# increases up to about the mean over real letters. After one minute of training, it still becomes larger than that.


# %%
def generated_letters(steps=12 if SMALL else 120):
    """Return one chain for each class, (steps, K, 1, 56, 56), and the model that generated them."""
    torch.manual_seed(0)
    model = trained_model()
    return ex_main.generate_images(model, torch.arange(K), K, steps), model


with once_written():
    chains, model = generated_letters()
    classes = torch.arange(K, device=model.device)
    with torch.no_grad():
        means = [model(step.to(model.device), classes).mean().item() for step in chains]
        x, y = (tensor[:256].to(model.device) for tensor in data["val"].tensors)
        real = model(x, y).mean().item()
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(means) + 1), means, color=plots.COLOURS[1], label="chains from noise")
    axes.axhline(real, color=plots.COLOURS[0], linestyle="--", label="validation images")
    plots.clean(axes, xlabel="SGLD step", ylabel="mean of f(x, y)")
    axes.legend(frameon=False)
    display(figure)

# %% nbgrader={"grade_id": "test-3-5a", "grade": true, "locked": true}
check_part("3.5a")

# %% [markdown]
# **3.5b** Write `draw_generation`, which returns two figures: some chains from noise to the last step, and all
# generated images.

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
# **3.6a** Write `grad_norm` and `score_fn` in `ex_ood.py`. All three scores are larger for outliers. The table shows
# the median score of each set. If a score works, the last two columns are larger than the first two.


# %%
def scores_of(score, count=40 if SMALL else 400):
    """Return the scores of up to `count` images of each set: name -> (count,)."""
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
# **3.6b** Write `score_histogram` and `energy_threshold`. The threshold is computed from validation images only: 95 %
# of their scores are below it.

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
# **3.6c** Write `ood_metrics`, which returns AUROC, AUPR and FPR95 of the scores. Guessing has an AUROC of 0.5. A much
# smaller value means that a sign is wrong.

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
# Restart the kernel, run all cells again, and save the notebook. The command `ebmcourse check` in a terminal runs the
# public checks of all parts. Hand in this notebook with `ex_model.py`, `ex_main.py` and `ex_ood.py`, without data and
# trained models.
#
# ## References
#
# * W. Grathwohl et al., *Your classifier is secretly an energy based model and you should treat it like one*, ICLR
#   2020.
# * Y. Du, I. Mordatch, *Implicit generation and modeling with energy-based models*, NeurIPS 2019.
# * E. Nijkamp et al., *Learning non-convergent non-persistent short-run MCMC toward energy-based model*, NeurIPS
#   2019.
# * M. Welling, Y. W. Teh, *Bayesian learning via stochastic gradient Langevin dynamics*, ICML 2011.

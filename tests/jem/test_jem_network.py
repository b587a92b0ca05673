"""The network f = -E."""

import torch
from ex_model import ShallowCNN


def test_f_is_the_logsumexp_of_the_logits_or_the_logit_of_a_class():
    x, y = torch.randn(3, 1, 28, 40), torch.tensor([4, 0, 2])
    model = ShallowCNN(hidden_features=4, num_classes=5, unknown_option=1)
    logits = model.get_logits(x)
    assert logits.shape == (3, 5)
    torch.testing.assert_close(model(x), logits.exp().sum(dim=1).log())
    torch.testing.assert_close(model(x, y), torch.stack([logits[0, 4], logits[1, 0], logits[2, 2]]))
    ebm = ShallowCNN(hidden_features=4, num_classes=1)
    torch.testing.assert_close(ebm(x), ebm.get_logits(x)[:, 0])


def test_the_network_has_the_size_of_the_exercise():
    channels = [
        (layer.in_channels, layer.out_channels) for layer in ShallowCNN().cnn_layers if hasattr(layer, "stride")
    ]
    assert channels == [(1, 32), (32, 64), (64, 128), (128, 128), (128, 128)]
    assert ShallowCNN().cnn_layers(torch.zeros(1, 1, 56, 56)).shape == (1, 128, 2, 2)

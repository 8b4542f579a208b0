"""What several tests of LAPP look at."""

import torch

DIGIT = torch.zeros(1, 1, 8, 8)

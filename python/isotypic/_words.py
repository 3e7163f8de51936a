"""Sets of words that arguments take, for type checkers. What a call checks is said beside it, and a test compares the two."""

from __future__ import annotations

from typing import Literal

Padding = Literal["same", "valid"]
PaddingMode = Literal["zeros", "circular", "reflect", "replicate"]
GroupPoolMode = Literal["max", "mean"]
FusedActivation = Literal["relu"]
Algebra = Literal["pga", "sta"]
GatedActivation = Literal["gelu", "gelu_tanh", "relu", "sigmoid", "tanh", "silu"]
Initialization = Literal["default", "small", "almost_unit_scalar"]
Pool = Literal["mean", "sum", "max"]
Symmetry = Literal["hidden", "all"]
Scheme = Literal["geometric", "nfn"]
WeightNorm = Literal["batch", "block", "layer"]
WeightActivation = Literal["relu", "gelu", "silu", "tanh"]
PairMode = Literal["mix", "bias"]
PairReduction = Literal["softmax", "sum"]
Difference = Literal["vector", "distance2", "none"]
RelationalDifference = Literal["vector", "distance2"]
Architecture = Literal["resnet", "unet"]
SwapHead = Literal["pool", "fields"]
SwapInit = Literal["pretrained"]
Turned = Literal["rotated", "upright"]
Schedule = Literal["constant", "cosine"]
FieldActivation = Literal["sine", "tanh", "relu"]
Layout = Literal["padded", "packed"]
RelaxMode = Literal["add", "gate", "concat"]

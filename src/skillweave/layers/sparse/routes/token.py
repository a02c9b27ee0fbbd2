"""Learned routes that look at the data: at each token, or at each token and its sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.config.encoder import RouteConfig
from skillweave.config.routes import ROUTES
from skillweave.layers.precision import at_least_float32
from skillweave.layers.sparse.dispatch import Dispatch, plan
from skillweave.layers.sparse.routes.base import Known, Route
from skillweave.layers.sparse.routes.gate import add_noise, number, select
from skillweave.layers.tokens import TokenMap


@ROUTES.register("token")
class TokenRoute(Route):
    """A gate picks the `active` best of `experts` for each token (Uni-Perceiver-MoE eq. 3 with R(x)
    = x; SkillNet section 5.1).

    In training, noise is added to the logits. `balance` weighs the loss E · Σ_e f_e · p_e of the
    Switch Transformer (arXiv 2101.03961, section 2.2), where f_e is the share of assignments and
    p_e the mean probability of expert e.
    """

    learned = looks_at_data = True

    representation = 1
    """Size of R in widths."""

    def __init__(self, config: RouteConfig, width: int, known: Known) -> None:
        super().__init__(config, width, known)
        self.experts = number(config.experts)
        self.active, self.renormalise = config.active, config.renormalise
        self.noise = config.noise
        self.balance = config.balance
        self.gate = nn.Linear(self.representation * width, config.experts, bias=False)

    def forward(
        self, x_TD: Tensor, tokens: TokenMap, generator: torch.Generator | None = None
    ) -> Dispatch:
        """The experts of each token. `generator`: of the noise; without one there is none."""
        logits_TE = add_noise(
            self, at_least_float32(self.logits(x_TD, tokens)), self.noise, generator
        )
        weights_Tk, experts_Tk = select(logits_TE, self.active, self.renormalise)
        dispatch = plan(experts_Tk, weights_Tk.to(x_TD.dtype), len(self.experts), tokens.sizes)
        if not self.balance:
            return dispatch
        share_E = dispatch.statistics.load.sum(0).to(logits_TE.dtype) / experts_Tk.numel()
        balance = self.balance * len(self.experts) * (share_E * logits_TE.softmax(-1).mean(0)).sum()
        return dispatch._replace(statistics=dispatch.statistics._replace(balance=balance))

    def logits(self, x_TD: Tensor, tokens: TokenMap) -> Tensor:
        """[T, E] before noise."""
        return self.gate(x_TD)


@ROUTES.register("context")
class ContextRoute(TokenRoute):
    """R(x) = [x ; attnpool(X)] (Uni-Perceiver-MoE eq. 6), pooled over the tokens of
    `TokenMap.context`.

    The pool is CLIP's (arXiv 2103.00020, section 2.4): one head whose query is the mean. It has no
    key, value and output projections, because the matrices of the query and the gate can express
    their products. That takes T · D multiply-adds instead of T · D² for the same functions.
    """

    representation = 2

    def __init__(self, config: RouteConfig, width: int, known: Known) -> None:
        super().__init__(config, width, known)
        self.query = nn.Linear(width, width)

    def logits(self, x_TD: Tensor, tokens: TokenMap) -> Tensor:
        """[T, E]. The gate is linear, so the context's term is computed once per sample."""
        own_ED, context_ED = self.gate.weight.chunk(2, dim=1)
        shared_NE = F.linear(self._context(x_TD, tokens), context_ED)
        shared_NLE = shared_NE.unsqueeze(1).expand(-1, tokens.length, -1)
        return F.linear(x_TD, own_ED) + tokens.to_tokens(shared_NLE)

    def _context(self, x_TD: Tensor, tokens: TokenMap) -> Tensor:
        if tokens.cache is None:
            return self.pool(x_TD, tokens)
        if self not in tokens.cache.pooled:
            tokens.cache.pooled[self] = self.pool(x_TD, tokens)
        return tokens.cache.pooled[self]

    def pool(self, x_TD: Tensor, tokens: TokenMap) -> Tensor:
        """[N, D] the attention-pooled context of each sample, zeros where it has none. Raises
        ValueError for packed samples."""
        if tokens.context is None:
            raise ValueError(
                "the route `context` pools each sample, and packed samples share a row; leave out"
                " the task's `pack`"
            )
        x_NLD, seen_NL = tokens.to_padded(x_TD), tokens.context
        counts_N1 = seen_NL.sum(1, keepdim=True)
        mean_ND = (x_NLD * seen_NL.unsqueeze(-1)).sum(1) / counts_N1.clamp(min=1)
        query_ND1 = self.query(mean_ND).to(x_NLD.dtype).unsqueeze(-1)
        scores_NL = (x_NLD @ query_ND1).squeeze(-1) / x_TD.shape[-1] ** 0.5
        hidden = scores_NL.new_tensor(torch.finfo(scores_NL.dtype).min)
        weights_NL = at_least_float32(scores_NL.where(seen_NL, hidden)).softmax(-1) * seen_NL
        return (weights_NL.to(x_NLD.dtype).unsqueeze(1) @ x_NLD).squeeze(1)
